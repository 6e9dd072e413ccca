"""1,000,000 parked runs with 5,000,000 entries on PostgreSQL: what they cost those that are not parked."""

import time
from collections.abc import Iterator
from contextlib import closing

from bench import idle, seed
from bench.pg import OnPostgres
from bench.report import Row
from bench.rig import Rig, run
from stepwell.store.columns import columns
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.store import PostgresStore

CHUNK = 50_000


def measure(ground: OnPostgres, rig: Rig) -> Iterator[Row]:
    """Half of the parked runs wait for a signal, half for a timer in a year; five entries each."""
    empty, full = ground.url("idle_empty"), ground.url("idle_parked")
    run(seed.prototypes(empty, steps=2))
    prototypes = run(seed.prototypes(full, steps=2))
    started = time.perf_counter()
    with closing(PostgresStore(full).connect()) as db:
        for run_no in prototypes:
            copies(db, run_no, idle.PARKED // 2)
        db.execute("select setval('run_no', (select max(no) from run))")
        db.execute("vacuum (analyze)", prepare=False)
        took = time.perf_counter() - started
        tables = db.execute(
            "select sum(pg_total_relation_size(c.oid))::bigint, "
            "(select count(*) from entry) from pg_class c where relnamespace = current_schema()::regnamespace "
            "and relkind = 'r'"
        ).fetchall()
    ((size, entries),) = tables
    note = f"{entries:,} entries, {size / (1 << 20):,.0f} MiB, {size / idle.PARKED:,.0f} B a run"
    yield Row(f"made {idle.PARKED:,} parked runs", "s", [took], note)
    yield from idle.asleep(rig, empty, full)
    yield from run(idle.beside(rig, empty, full, claim_ms=10))


def copies(db: Db, of: int, count: int) -> None:
    """Copies a run with its entries and task; the shape is the engine's own."""
    first = int(db.execute("select max(no) + 1 from run").fetchall()[0][0])
    for start in range(0, count, CHUNK):
        series = f"generate_series({first + start}::bigint, {first + min(count, start + CHUNK) - 1}) as s(i)"
        swaps = {
            "run": {"no": "i", "id": "'parked-' || i"},
            "entry": {"run_no": "i"},
            "task": {"run_no": "i"},
        }
        for table, swap in swaps.items():
            names = columns(table)
            values = ", ".join(swap.get(name, f'"{name}"') for name in names)
            into = ", ".join(f'"{name}"' for name in names)
            if table == "task":
                into, values = f"no, {into}", f"(i << 20) | k, {values}"
            where = "no" if table == "run" else "run_no"
            db.execute(f"insert into {table} ({into}) select {values} from {series}, {table} where {where} = {of}")
