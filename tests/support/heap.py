"""A heap of tasks of one pool, written past the kernel: in no time, and without the server looking at its tables."""

from contextlib import closing

from stepwell.store.postgres.store import PostgresStore

FIRST = 1_000_000
RUNS = """
insert into run (no, scope, id, kind, name, version, pool, pool_key, priority, parent_gen, replay, depth, created_at,
    generation, turn, kept_seq, status, head_seq, wake_seq, epoch, write_no, write_seq, open_actions, open_children,
    journal_bytes, updated_at)
select no, 'main', 'heap' || no, 'workflow', 'wf', '', 'tight', $3, 0, 0, 0, 0, 1700000000000,
    1, 1, 0, 'queued', 1, 0, 0, 0, 0, 0, 0, 200, 1700000000000
from generate_series($1::bigint, $2) as no
"""
TASKS = """
insert into task (no, run_no, k, scope, kind, state, pool, pool_key, requires, priority, "order", epoch, attempt,
    failures, lost, write_no, output_n, output_bytes, said)
select no << 20 | 1, no, 1, 'main', 'turn', $4, 'tight', $3, 'wf', 0, 1700000000000, 0, 0, 0, 0, 0, 0, 0, 0
from generate_series($1::bigint, $2) as no
"""


def pile(store: PostgresStore, since: int, count: int, key: str | None, state: str) -> None:
    """The heap in pool `tight` grows from one number of tasks to another."""
    with closing(store.connect()) as db:
        values = (FIRST + since, FIRST + count - 1, key)
        db.execute(RUNS.encode(), values)
        db.execute(TASKS.encode(), (*values, state))
