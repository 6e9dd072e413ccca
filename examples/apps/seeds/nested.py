"""A workflow in a workflow, how one ends, and what is called in the very commit of its end (seed: convex-workflow)."""

import asyncio

from stepwell import App, Completion, Context, MutationContext, QueryContext, RunError, Stepwell

app = App("nested", migrations="migrations")


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
    told = f"{completion.context['name']}: {completion.kind} {completion.value}"
    ctx.db.execute("insert into completion (told) values (?)", told)


@app.query
def completions(ctx: QueryContext) -> list[str]:
    return ctx.db.all("select told from completion", type=str)


async def main() -> None:
    async with Stepwell("sqlite:///nested.sqlite", app) as sw:
        run = await sw.options(on_complete=handle_on_complete, context={"name": "James"}).start(parent, [1, 2, 3])
        print(await run.result(), await sw.call(completions))
        print(await (await sw.start(careful, -1)).result())


if __name__ == "__main__":
    asyncio.run(main())
