"""Hundreds of pictures in one commit, and never more at once than the pool allows: five in all, two of a customer.

Run it: `python examples/apps/fanout.py`.
"""

import asyncio
import time

from stepwell import App, Context, Pool, Retry, State, Stepwell

app = App("media")
gpu = Pool("gpu", limit=5, per_key=2)
done = State("done", int)


@app.action(pool=gpu, retry=Retry(4), timeout=120)
def thumbnail(path: str) -> str:  # sync: runs in a thread, heartbeats go on
    time.sleep(0.02)  # stands for the work
    return path + ".webp"


@app.workflow
async def album(ctx: Context, customer: str, paths: list[str]) -> list[str]:
    resize = ctx.options(key=customer, priority=5)
    jobs = [asyncio.create_task(resize.call(thumbnail, path), name=path) for path in paths]  # one commit for all
    for n, job in enumerate(asyncio.as_completed(jobs), 1):
        await job
        if n % 20 == 0:
            await ctx.set(done, n)
    return [job.result() for job in jobs]


async def main() -> None:
    async with Stepwell("sqlite:///media.sqlite", app) as sw:
        pictures = [f"{n}.jpg" for n in range(60)]
        runs = [await sw.start(album, customer, pictures) for customer in ("ann", "bob", "eve")]
        for run in runs:
            made = await run.result()
            print(f"{len(made)} thumbnails, {made[0]} to {made[-1]}; {await run.get(done)} were counted on the way")


if __name__ == "__main__":
    asyncio.run(main())
