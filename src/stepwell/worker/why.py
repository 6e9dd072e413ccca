"""Why runs do not move: gathers what `kernel.explain` says it from."""

from collections import Counter
from collections.abc import Iterable

import msgspec
from msgspec import Struct, structs

from stepwell.engine.engine import Engine
from stepwell.kernel.explain import Around, explain, obstacle
from stepwell.model.rows import Pool, Run, Task
from stepwell.store.port import Reader, RunFilter
from stepwell.store.sqlite.store import SqliteStore
from stepwell.worker.alive import any_worker, has_died

#: How many running runs are looked at for those of a pool, and how many entries for a reason.
LOOK, LAST = 500, 20
#: How many characters of a failure are told.
SAID = 200


class Note(Struct, frozen=True):
    """What keeps so many runs from moving, and what to do."""

    runs: int
    why: str


def why_of(reader: Reader, run: Run, engine: Engine) -> str:
    """The sentence of one run."""
    around = _ended(reader, run) if run.terminal else _around(reader, run, _running(reader), _workers(engine))
    tasks = reader.tasks_of(run.no)
    if run.status == "running":
        around = structs.replace(around, died=any(_has_died(engine, task) for task in tasks if task.k == run.turn))
    return explain(run, tasks, engine.clock_ms(), around)


def notes_of(reader: Reader, runs: Iterable[Run], engine: Engine) -> list[Note]:
    """What keeps these runs from moving and asks for somebody, the most frequent first."""
    found: Counter[str] = Counter()
    running, workers, now = _running(reader), _workers(engine), engine.clock_ms()
    for run in runs:
        if not run.terminal:
            around = _around(reader, run, running, workers)
            found.update(one for one in [obstacle(run, reader.tasks_of(run.no), now, around)] if one)
    return [Note(runs=count, why=why) for why, count in found.most_common()]


def notes_of_open(reader: Reader, engine: Engine) -> list[Note]:
    """The same of the newest runs that are open."""
    pages = (reader.list_runs(RunFilter(status=status), limit=LOOK) for status in ("queued", "running", "waiting"))
    return notes_of(reader, [run for page in pages for run in page.rows], engine)


def _running(reader: Reader) -> list[Run]:
    return reader.list_runs(RunFilter(status="running"), limit=LOOK).rows


def _around(reader: Reader, run: Run, running: list[Run], workers: bool | None) -> Around:
    if run.hold is not None:
        return Around(held_for=_last(reader, run, "run.held", "diff"))
    if run.status == "running":
        return Around(workers=workers)
    if run.status != "queued":
        return Around(failed_with=_last(reader, run, "attempt.ended", "error"), unread=_unread(reader, run))
    beside = [one for one in running if one.pool == run.pool]
    return Around(
        workers=workers,
        running=len(running),
        pool=_pool(reader, run),
        pool_runs=len(beside),
        key_runs=tuple(one.id for one in beside if run.pool_key is not None and one.pool_key == run.pool_key),
        failed_with=_last(reader, run, "attempt.ended", "error"),
    )


def _ended(reader: Reader, run: Run) -> Around:
    if run.callback is None:
        return Around()
    return Around(callback_failed=_last(reader, run, f"run.{run.status}", "callback_error"))


def _workers(engine: Engine) -> bool | None:
    return any_worker(engine.store.path) if isinstance(engine.store, SqliteStore) else None


def _has_died(engine: Engine, task: Task) -> bool:
    return (
        isinstance(engine.store, SqliteStore) and task.worker is not None and has_died(engine.store.path, task.worker)
    )


def _pool(reader: Reader, run: Run) -> Pool | None:
    return next((pool for pool in reader.pools(run.scope) if pool.name == run.pool), None)


def _unread(reader: Reader, run: Run) -> tuple[str, ...]:
    """Signals that came and that the run, as it was parked, did not ask for."""
    for entry in reversed(reader.entries(run.no, after=max(0, run.head_seq - LAST))):
        if entry.kind == "run.parked":
            return tuple(msgspec.json.decode(entry.data).get("unread", ()))
    return ()


def _last(reader: Reader, run: Run, kind: str, field: str) -> str:
    """What the last entry of a kind says of its reason."""
    for entry in reversed(reader.entries(run.no, after=max(0, run.head_seq - LAST))):
        if entry.kind == kind:
            said = msgspec.json.decode(entry.data).get(field)
            return str(said.get("message", "") if isinstance(said, dict) else said or "")[:SAID]
    return ""
