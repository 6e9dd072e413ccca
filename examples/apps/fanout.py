"""A thousand pictures at a time, and never more at once than the pool allows.

Run it: `python examples/apps/fanout.py`.
"""

import asyncio

from stepwell import App, Context, Pool, Retry, State, Stepwell

app = App("media")
gpu = Pool("gpu", limit=20, per_key=2)
done = State("done", int)


@app.action(pool=gpu, retry=Retry(4), timeout=120)
def thumbnail(path: str) -> str:  # sync: runs in a thread, heartbeats go on
    return path + ".webp"


@app.workflow
async def album(ctx: Context, customer: str, paths: list[str]) -> list[str]:
    resize = ctx.options(key=customer, priority=5)
    jobs = [asyncio.create_task(resize.call(thumbnail, path), name=path) for path in paths]  # 1,000 tasks, one commit
    for n, job in enumerate(asyncio.as_completed(jobs), 1):
        await job
        if n % 100 == 0:
            await ctx.set(done, n)
    return [job.result() for job in jobs]


async def main() -> None:
    async with Stepwell("sqlite:///media.sqlite", app) as sw:
        run = await sw.start(album, "ann", [f"{n}.jpg" for n in range(200)])
        print(len(await run.result()), "thumbnails;", await run.get(done), "were counted on the way")


if __name__ == "__main__":
    asyncio.run(main())
