"""What a run last said about itself by `ctx.set`, read from its journal, the newest entries first."""

import msgspec

from stepwell.model.entries import StateSet
from stepwell.model.rows import Run
from stepwell.store.port import Reader

#: Entries that are looked at in one go.
AT_ONCE = 500


def state_text(reader: Reader, run: Run, name: str) -> str | None:
    """The JSON of a state; None when the run, as its journal stands since the last restart, has not set it."""
    last = run.head_seq
    while last > 0:
        first = max(0, last - AT_ONCE)
        for entry in reversed(reader.entries(run.no, after=first, limit=last - first)):
            counts = entry.generation == run.generation or entry.seq <= run.kept_seq
            if entry.kind == StateSet.kind and counts:
                body = msgspec.json.decode(entry.data, type=StateSet)
                if body.name == name:
                    return bytes(body.value).decode()
        last = first
    return None
