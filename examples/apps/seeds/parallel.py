"""Actions at the same time, and retries of three kinds (seed: convex-workflow, "Running steps in parallel", "Retry").

In the original nothing goes on until all that were begun together have ended; here each result comes as it is there.
"""

import asyncio

from stepwell import ActionContext, App, Context, Retry, Stepwell

app = App("work", retry=Retry(3, initial=0.1))


@app.action
async def double(n: int) -> int:
    return n * 2


@app.action(retry=False)
async def fickle(ctx: ActionContext, good_from: int) -> int:
    if ctx.attempt < good_from:
        raise ConnectionError(f"attempt {ctx.attempt} fails")
    return ctx.attempt


@app.workflow
async def both(ctx: Context, n: int) -> tuple[int, int]:
    return await asyncio.gather(ctx.call(double, n), ctx.call(double, n + 1))


@app.workflow
async def retries(ctx: Context) -> list[int]:
    once = await ctx.call(fickle, 1)  # the action's own policy: no retry
    app_policy = await ctx.options(retry=True).call(fickle, 2)  # the app's policy
    own = await ctx.options(retry=Retry(2, initial=0.1, factor=2)).call(fickle, 2)
    return [once, app_policy, own]


async def main() -> None:
    async with Stepwell("sqlite:///work.sqlite", app) as sw:
        print(await (await sw.start(both, 20)).result())
        print(await (await sw.start(retries)).result())


if __name__ == "__main__":
    asyncio.run(main())
