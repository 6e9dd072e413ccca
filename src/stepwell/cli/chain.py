"""Runs to the end of their chain: the events that results send start runs, too (manifest key `next`)."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from stepwell.engine.engine import Engine
from stepwell.model.entries import ENDS
from stepwell.model.rows import Run
from stepwell.store.port import Reader, RunFilter

#: Where the end of a run stands in its journal, from its head; and the most runs of one event that are followed.
LAST, LIMIT = 20, 500


async def to_the_end(
    engine: Engine, run_ids: Sequence[str], ended: Callable[[Sequence[str]], Awaitable[list[Run]]]
) -> list[Run]:
    """The runs, and those that their results led to, once all have ended; the nearest first.

    `ended` waits for some runs and answers them. The chain is as long as the kernel lets it be (`event_depth`).
    """
    level = found = await ended(run_ids)
    for _ in range(engine.settings.event_depth):
        sent = await engine.read(partial(_sent_by, runs=level))
        if not sent:
            break
        level = await ended(sent)
        found = [*found, *level]
    return found


def _sent_by(reader: Reader, *, runs: Sequence[Run]) -> list[str]:
    """Ids of the runs of events that these runs sent. An event that was there already is somebody else's."""
    events = (reader.event(run.scope, event_id) for run in runs for event_id in _next(reader, run))
    causes = {run.id for run in runs}
    sent = [event for event in events if event is not None and event.cause in causes]
    pages = (reader.list_runs(RunFilter(event_no=event.no), limit=LIMIT) for event in sent)
    return [run.id for page in pages for run in reversed(page.rows)]


def _next(reader: Reader, run: Run) -> list[str]:
    """Ids of the events that the end of a run sent."""
    ends = (one for one in reader.entries(run.no, after=max(0, run.head_seq - LAST)) if one.kind in ENDS)
    return [event_id for end in ends for event_id in msgspec.json.decode(end.data).get("next", ())]
