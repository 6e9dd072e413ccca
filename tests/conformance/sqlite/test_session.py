"""A session of SQLite: what it keeps between batches, how much it looks at, and what it says of a lost commit."""

import pytest

from stepwell.kernel.unit import Unit
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionScheduled, raw
from stepwell.model.settings import Settings
from stepwell.store.sqlite.session import CACHED_CHARS, GROUPS, SqliteSession
from stepwell.store.sqlite.store import SqliteStore
from tests.support import Bench

from ..filling import NOW, fill, loading, put, run

WIDE = '"' + "x" * (CACHED_CHARS + 1) + '"'


def session_of(bench: Bench) -> SqliteSession:
    session = bench.lane._session
    assert isinstance(session, SqliteSession)
    return session


def test_open_runs_stay_between_batches(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.record(lease, 1, ActionScheduled("m:f"))
    session = session_of(bench)
    assert (set(session._runs), set(session._tasks)) == ({1}, {(1, 1), (1, 3)})


def test_what_has_ended_does_not_stay(bench: Bench) -> None:
    lease = bench.turn().lease
    bench.record(lease, 1, ActionScheduled("m:f"))
    (action,) = bench.claim()
    bench.do(c.Finish(action.lease, 1, c.Completed()))
    assert set(session_of(bench)._tasks) == {(1, 1)}
    bench.do(c.Finish(lease, 2, c.Completed()))
    bench.refused(c.Signal("r", "s"), errors.Ended)
    bench.refused(c.Finish(lease, 3, c.Completed()), errors.Ended)
    assert (session_of(bench)._runs, session_of(bench)._tasks) == ({}, {})


def test_what_is_large_does_not_stay(bench: Bench) -> None:
    lease = bench.turn(input=WIDE).lease
    bench.do(c.Signal("r", "s"))
    bench.refused(c.Park(lease, 1, 0, ("signal:s",)), errors.Unseen)
    assert session_of(bench)._runs == {}
    bench.record(lease, 1, ActionScheduled("m:f", raw(WIDE)))
    bench.do(c.Sync("w", (c.Beat(lease, details=WIDE),)))
    assert session_of(bench)._tasks == {}
    bench.do(c.Finish(lease, 2, c.Completed()))


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("deleted", [True, False])
def test_a_deleted_lane_row_does_not_change_whether_a_commit_happened(
    bench: Bench, happened: bool, deleted: bool
) -> None:
    for name in ("a", "b", "c"):
        bench.start(name)
    session = session_of(bench)
    if deleted:
        session._db.execute("delete from lane")
    session.begin()
    unit = Unit(Settings())
    put(unit, run(9, "r9"))
    session.flush(unit, NOW)
    session._db.execute("commit" if happened else "rollback")
    session._unlock()
    assert session.committed() == happened
    with session._db as db:
        db.execute("delete from run where no = 9")


def test_a_claim_looks_at_a_bounded_number_of_groups_and_everybody_gets_a_turn(bench: Bench) -> None:
    scopes = [f"s{number:03}" for number in range(3 * GROUPS + 7)]
    bench.all(*(c.StartRun(f"{scope}.{k}", "wf", scope=scope) for scope in scopes for k in range(5)))
    statements: list[str] = []
    session_of(bench)._db.set_trace_callback(statements.append)
    heard: set[str] = set()
    for _ in range(5):
        statements.clear()
        leased = bench.claim(limit=GROUPS)
        assert len(leased) == GROUPS
        heard |= {one.run.scope for one in leased}
        assert sum(" from task " in " ".join(text.split()) for text in statements) < 3 * GROUPS
    assert heard == set(scopes)


def test_a_claim_of_one_kind_of_work_finds_it_among_very_many_others(bench: Bench) -> None:
    bench.all(*(c.StartRun(f"r{number}", "wf", requires=f"workflow:{number:03}") for number in range(3 * GROUPS)))
    found = [one.run.id for _ in range(4) for one in bench.claim(requires=("workflow:250",))]
    assert found == ["r250"]


def test_the_cache_is_dropped_when_another_connection_has_committed(store: SqliteStore) -> None:
    one, two = store.session("one"), store.session("two")
    fill(one, run(1))
    with loading(one) as s:
        kept = s.runs([1])[0]
    with loading(one) as s:
        assert s.runs([1])[0] is kept, "own commits keep the cache"
    fill(two, run(2))
    with loading(one) as s:
        assert s.runs([1])[0] is not kept
    one.close()
    two.close()


def test_whether_a_commit_happened_is_told_by_the_lanes_row(store: SqliteStore) -> None:
    session = store.session("lane")
    fill(session, run(1))
    assert session.committed() is True, "what was flushed last is there"
    unit = Unit(Settings())
    put(unit, run(2))
    session.begin()
    session.flush(unit, NOW)
    session._db.execute("rollback")
    session._unlock()
    assert session.committed() is False, "what was flushed last is not there"
    fill(session, run(2))
    with loading(session) as s:
        assert sorted(row.no for row in s.runs([1, 2])) == [1, 2]
    session.close()


def test_what_goes_wrong_after_a_commit_is_not_told_as_a_failed_commit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: SqliteSession, unit: Unit) -> None:
        raise ValueError("a bug in the cache")

    monkeypatch.setattr(SqliteSession, "_remember", broken)
    assert bench.start("r").created
    assert not bench.start("r").created, "it is there"
    assert "the row cache starts again" in caplog.text
