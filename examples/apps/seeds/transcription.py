"""A step a month after the one before (seed: convex-workflow, its first example).

`runAfter: 30 days` of the original is `ctx.options(delay=...)`.
"""

import asyncio
from datetime import timedelta

from stepwell import App, Context, Stepwell

app = App("index")
MONTH = timedelta(days=30)


@app.action
async def compute_transcription(storage_id: str) -> str:
    return f"what was said in {storage_id}"


@app.action
async def compute_embedding(transcription: str) -> list[float]:
    return [float(len(word)) for word in transcription.split()]


@app.workflow
async def example(ctx: Context, storage_id: str) -> list[float]:
    transcription = await ctx.call(compute_transcription, storage_id)
    # Run this a month after the transcription is computed.
    return await ctx.options(delay=MONTH).call(compute_embedding, transcription)


async def main() -> None:
    async with Stepwell("sqlite:///index.sqlite", app) as sw:
        run = await sw.options(id="talk.mp3").start(example, "talk.mp3")  # again, a month later: the same run
        async for seen in run.watch():
            if seen.status in ("sleeping", "waiting"):  # soon: then it is in the file, and in no memory
                print(f"{seen.id} is {seen.status}, for {seen.waiting_for}")
                return
        print(await run.result())


if __name__ == "__main__":
    asyncio.run(main())
