"""Why a run does not move: gathers what `kernel.explain` says it from."""

import msgspec

from stepwell.engine.engine import Engine
from stepwell.kernel.explain import Around, explain
from stepwell.model.rows import Pool, Run
from stepwell.store.port import Reader, RunFilter
from stepwell.store.sqlite.store import SqliteStore
from stepwell.worker.alive import any_worker

#: How many running runs are looked at for those of a pool.
LOOK = 500


def why_of(reader: Reader, run: Run, engine: Engine) -> str:
    """The sentence."""
    tasks = reader.tasks_of(run.no)
    return explain(run, tasks, engine.clock_ms(), Around() if run.terminal else _around(reader, run, engine))


def _around(reader: Reader, run: Run, engine: Engine) -> Around:
    if run.hold is not None:
        return Around(held_for=_held_for(reader, run))
    if run.status != "queued":
        return Around()
    running = [one for one in reader.list_runs(RunFilter(status="running"), limit=LOOK).rows if one.pool == run.pool]
    return Around(
        workers=_workers(engine),
        pool=_pool(reader, run),
        pool_runs=len(running),
        key_runs=tuple(one.id for one in running if run.pool_key is not None and one.pool_key == run.pool_key),
    )


def _workers(engine: Engine) -> bool | None:
    return any_worker(engine.store.path) if isinstance(engine.store, SqliteStore) else None


def _pool(reader: Reader, run: Run) -> Pool | None:
    return next((pool for pool in reader.pools(run.scope) if pool.name == run.pool), None)


def _held_for(reader: Reader, run: Run) -> str:
    """What the last entry that held the run says."""
    for entry in reversed(reader.entries(run.no, after=max(0, run.head_seq - 20))):
        if entry.kind == "run.held":
            data = msgspec.json.decode(entry.data)
            return str(data.get("diff") or "")
    return ""
