"""What a commit did, for those who wait: a hint, never the truth."""

from msgspec import Struct

from stepwell.engine.ends import kept
from stepwell.kernel.unit import NEW, Unit
from stepwell.model.entries import DELIVERABLE, ENDS, RunRestarted
from stepwell.model.rows import Entry, Run


class Wake(Struct, gc=False):
    """What others wrote to a run for its body, with no other entry for it since `after`. `seq` is the last of them.

    `epoch`: that of the lease under which the body runs; 0: of none, as in a pause. No `entries` where they are too
    large to be handed on: whoever wants them reads them.
    """

    after: int
    epoch: int = 0
    seq: int = 0
    entries: list[Entry] | None = None


class Committed(Struct, gc=False):
    """What a commit did, for those who wait: a hint, never the truth.

    `wakes`: runs that others wrote to, for their bodies. `ended`: runs that are terminal now, with their
    rows where these can be handed on. `reopened`: the new generation of runs that were restarted.
    """

    runs: frozenset[int] = frozenset()
    wakes: dict[int, Wake] = {}
    ended: dict[int, Run | None] = {}
    reopened: dict[int, int] = {}
    ready: bool = False
    earliest_due: int | None = None
    freed: frozenset[tuple[str, str, str]] = frozenset()  # pool keys (scope, pool, key) that have a slot more
    messages: bool = False


def summary(unit: Unit, limited: set[tuple[str, str]]) -> Committed:
    """What those who wait want to know of a unit that was committed; `limited` pools have a slot more with each end."""
    runs = frozenset(unit.runs.dirty).union(one.run_no for one in unit.outputs)
    rows = unit.runs.rows
    ended = {
        one.run_no: kept(rows[one.run_no]) for one in unit.entries if one.kind in ENDS and rows[one.run_no].terminal
    }
    reopened = {one.run_no: rows[one.run_no].generation for one in unit.entries if one.kind == RunRestarted.kind}
    committed = Committed(runs, _wakes(unit) if unit.woken else {}, ended, reopened, messages=bool(unit.sent))
    freed: set[tuple[str, str, str]] = set()
    # A claim passes over a run that somebody has, so who wrote one that is ready says so again, and who claimed less
    # than it had looked at.
    committed.ready = any(unit.queues.values()) or any(_is_ready(unit, rows[number]) for number in unit.runs.dirty)
    for key in unit.tasks.dirty:
        task = unit.tasks.rows[key]
        if task.state == "ready" or (task.state != "leased" and (task.scope, task.pool) in limited):
            committed.ready = True
        if task.state == "due" and task.due_at is not None:
            earliest = committed.earliest_due
            committed.earliest_due = task.due_at if earliest is None else min(earliest, task.due_at)
        is_new = unit.tasks.dirty[key] == NEW  # a start frees nothing, and a promotion for each waits for its pool
        if task.pool_key is not None and task.state != "leased" and not is_new and (task.scope, task.pool) in limited:
            freed.add((task.scope, task.pool, task.pool_key))
    committed.freed = frozenset(freed)
    return committed


def _is_ready(unit: Unit, run: Run) -> bool:
    if run.status != "queued":
        return False
    task = unit.tasks.rows.get((run.no, run.turn))
    return task is not None and task.state == "ready"


def _wakes(unit: Unit) -> dict[int, Wake]:
    wakes: dict[int, Wake] = {}
    for one in unit.entries:
        if one.kind in DELIVERABLE and (after := unit.woken.get(one.run_no)) is not None:
            wake = wakes.get(one.run_no)
            if wake is None:
                run = unit.runs.rows[one.run_no]
                wake = wakes[one.run_no] = Wake(after, run.epoch if run.status == "running" else 0, entries=[])
            wake.seq = one.seq
            if one.data.startswith("@"):
                wake.entries = None
            if wake.entries is not None:
                wake.entries.append(one)
    return wakes
