"""What a claim looks at: as little for a queue that is long as for a short one. In blocks, as the server counts."""

from contextlib import closing

from stepwell.store.port import Group
from stepwell.store.postgres.session import PostgresSession
from stepwell.store.postgres.store import PostgresStore
from tests.support.postgres import ask

from ..filling import fill, loading, task
from .support import Sessions

MANY = 5_000


def blocks(session: PostgresSession) -> int:
    """How many blocks of tasks and of their index this transaction has read, from memory too."""
    counts = (f"pg_stat_get_xact_blocks_fetched('{name}'::regclass)" for name in ("task", "task_ready"))
    return int(session._link.rows(f"select {' + '.join(counts)}")[0][0])


def looked(session: PostgresSession, pool: str = "p") -> tuple[int, int, list[int]]:
    """What it takes to find the groups of a pool, and then the first task of each; and which these are."""
    with loading(session):
        begun = blocks(session)
        wanted: dict[Group, int] = dict.fromkeys(session.ready_groups([pool]), 1)
        found = blocks(session)
        tasks = session.ready(wanted)
        return found - begun, blocks(session) - found, [one.run_no for one in tasks]


def test_a_long_queue_is_not_walked_through(sessions: Sessions) -> None:
    session = sessions("lane")
    fill(session, *(task(no, pool=pool) for no, pool in enumerate("ppqq", 1)))
    short = sum(looked(session)[:2])
    fill(session, *(task(no, pool=pool) for pool in "pq" for no in range(ord(pool) * MANY, (ord(pool) + 1) * MANY)))
    groups, first, numbers = looked(session)
    assert numbers == [1]
    assert groups + first <= 3 * short


def test_what_an_old_snapshot_keeps_dead_is_walked_over_once(store: PostgresStore, sessions: Sessions) -> None:
    """By whoever looks for groups, who then knows where each begins."""
    session = sessions("lane")
    fill(session, *(task(no, order=no) for no in range(1, MANY + 2)))
    with closing(store.connect()) as old:
        old.execute(b"begin isolation level repeatable read")
        old.execute(b"select from task limit 1")
        ask(store, "update task set state = 'done' where run_no <= $1", MANY)
        groups, first, numbers = looked(session)
        assert numbers == [MANY + 1]
        assert groups > 50, "or there was nothing to walk over"
        assert first < groups / 5
        old.execute(b"rollback")
