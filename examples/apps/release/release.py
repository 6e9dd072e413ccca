"""An event starts a workflow, through a flow package or by the type that the workflow listens to; it sends another.

`flows/upstream-watch` beside this file has the step `review` with `runner = "workflow"`.
Run it: `python examples/apps/release/release.py`; or, in its folder, `stepwell serve --app release:app`, and from
another terminal `curl --json @event.json localhost:7345/events`.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from stepwell import App, Context, Event, Stepwell

app = App("ci")
HERE = Path(__file__).parent


@dataclass
class Release:
    repo: str
    tag: str


@dataclass
class Reviewed:
    tag: str
    note: str


@app.workflow
async def review(ctx: Context, event: Event[Release]) -> str:
    note = await ctx.step("summary", summarise, event.payload.tag)
    await ctx.dispatch(Event("release.reviewed", {"tag": event.payload.tag, "note": note}))
    return note


@app.workflow(on="release.reviewed")
async def announce(ctx: Context, event: Event[Reviewed]) -> str:
    return f"{event.payload.tag} is announced: {event.payload.note}"


async def summarise(tag: str) -> str:
    return f"{tag} looks good"


async def main() -> None:
    async with Stepwell("sqlite:///ci.sqlite", app, flows=HERE) as sw:
        sent = await sw.dispatch(Event(**json.loads((HERE / "event.json").read_text())))
        print(await sw.handle(sent.run_ids[0], review).result())
        async for run in sw.runs(name="ci:announce"):
            print(await sw.handle(run.id, announce).result())


if __name__ == "__main__":
    asyncio.run(main())
