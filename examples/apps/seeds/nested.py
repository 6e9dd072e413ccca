"""A workflow in a workflow, how one ends, and what is called then (seed: convex-workflow)."""

import asyncio
from typing import Any

from stepwell import App, Completion, Context, MutationContext, RunError, Stepwell

app = App("nested")
ends: list[str] = []


@app.workflow
async def child(ctx: Context, n: int) -> int:
    if n < 0:
        raise ValueError("a negative number")
    return await ctx.step("square", lambda: n * n)


@app.workflow
async def parent(ctx: Context, numbers: list[int]) -> int:
    return sum(await asyncio.gather(*(ctx.call(child, n) for n in numbers)))


@app.workflow
async def careful(ctx: Context, n: int) -> str:
    try:
        return str(await ctx.call(child, n))
    except RunError as error:
        return f"{error.type}: {error}"


@app.mutation
def handle_on_complete(ctx: MutationContext, completion: Completion) -> None:
    ends.append(f"{completion.context}: {completion.kind} {completion.value}")


async def main() -> None:
    async with Stepwell("sqlite:///nested.sqlite", app) as sw:
        context: Any = {"name": "James"}
        run = await sw.options(on_complete=handle_on_complete, context=context).start(parent, [1, 2, 3])
        print(await run.result(), ends)
        print(await (await sw.start(careful, -1)).result())


if __name__ == "__main__":
    asyncio.run(main())
