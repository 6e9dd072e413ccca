"""What a session refuses, and what becomes of one whose connection or commit is lost."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stepwell.kernel.unit import Unit
from stepwell.model import commands as c
from stepwell.model.entries import StepCompleted
from stepwell.model.errors import Invalid, Unavailable
from stepwell.model.settings import Settings
from stepwell.store.port import Broken, Refused, Retry, RunFilter, Unknowable
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.exchange import KEPT, Exchange
from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench, postgres
from tests.support.pgbouncer import pooler
from tests.support.postgres import cut

from ..filling import event, fill, loading, put, run, sent
from .support import Sessions, flushed, until_it_waits

# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["nul \0", "\ud800"])
def test_text_that_cannot_be_stored_is_refused_and_leaves_nothing(sessions: Sessions, text: str) -> None:
    session = sessions("lane")
    for rows in ([run(1, "r" + text)], [run(1), event(1, source=text)]):
        session.begin()
        unit = Unit(Settings())
        put(unit, *rows)
        with pytest.raises(Refused):
            sent(session, unit)
        session.rollback()
    with loading(session) as s:
        assert s.runs([1], [("main", "r" + text)]) == s.runs_by_id([("main", "r" + text)]) == []


def test_a_reader_that_is_asked_for_what_cannot_be_says_so_and_goes_on(store: PostgresStore) -> None:
    with closing(store.reader()) as reader:
        for name in ("nul \0", "\ud800"):
            assert (reader.run("main", name), reader.event("main", name)) == (None, None)
            with pytest.raises(Invalid, match="such a value"):
                reader.list_runs(RunFilter(name=name), limit=1)
        with pytest.raises(Invalid, match="such a value"):
            reader.run_by_no(1 << 70)
        assert reader.run("main", "r") is None


@pytest.mark.parametrize("rows", [[run(2, "same")], [event(2, "same")], [run(1, "other")]])
def test_what_another_lane_made_meanwhile_is_looked_for_again(sessions: Sessions, rows: list[Any]) -> None:
    one, two = sessions("one"), sessions("two")
    one.begin()
    fill(two, run(1, "same"), event(1, "same"))
    unit = Unit(Settings())
    put(unit, *rows)
    with pytest.raises(Retry):
        sent(one, unit)
    one.rollback()


def test_a_failed_transaction_is_no_commit(sessions: Sessions) -> None:
    session = sessions("lane")
    session.begin()
    with pytest.raises(Refused):
        session._all("find/blocked", "main", "p", "k", "many")
    with pytest.raises(Retry):
        session.commit()
    session.rollback()


# ── connections ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_connection_that_was_lost_is_made_anew(store: PostgresStore, sessions: Sessions) -> None:
    session = sessions("lane")
    fill(session, run(1_001))
    cut(store, session._link.db)
    with pytest.raises(Broken):
        session.begin()
    session.rollback()
    fill(session, run(1_002))
    cut(store, session._link.db)
    bench = Bench(store, session=session)
    assert bench.start("r").created, "the lane tries again by itself"
    reader = store.reader()
    cut(store, reader._link.db)
    assert reader.run_by_no(1_001) is not None
    with reader.snapshot():
        cut(store, reader._link.db)
        with pytest.raises(Unavailable, match="cannot be read"):
            reader.run_by_no(1_001)
    with reader.snapshot():
        assert reader.run_by_no(1_001) is not None
    reader.close()


class Dying(PostgresStore):
    """Its server ends each connection of a lane as soon as it is there."""

    def connect(self, lane: str = "") -> Db:
        db = super().connect(lane)
        if lane:
            cut(self, db)
        return db


def test_a_server_that_dies_while_it_is_opened_is_said_to_be_away(tmp_path: Path) -> None:
    store = Dying(postgres.address(tmp_path))
    store.migrate()
    with pytest.raises(Unavailable, match="cannot open postgresql:"):
        store.session("lane")


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_who_stands_still_in_a_transaction_holds_nobody_up_for_long(tmp_path: Path, pooled: bool) -> None:
    """As a process does that was stopped: the server ends its transaction, and with it its locks."""
    url = pooler().database(tmp_path).removesuffix("&pooled=true") if pooled else postgres.address(tmp_path)
    store = PostgresStore(url, pooled=pooled, idle_ms=200)
    store.migrate()
    with closing(store.session("one")) as stopped, closing(store.session("two")) as other:
        fill(stopped, run(1))
        stopped.begin()
        assert stopped.runs([1])
        other.begin()
        assert other.runs([1]), "it waits for the lock, which is given back"
        other.rollback()
        with pytest.raises((Retry, Broken)):
            stopped.runs([1])
        stopped.rollback()
        fill(stopped, run(2))


def test_what_is_prepared_is_bounded(store: PostgresStore) -> None:
    """Also where a statement fails at first: it is not prepared anew each time."""
    link = Exchange(store.connect())
    for number in range(KEPT + 20):
        assert link.rows(f"select {number} + $1::int", [1]) == [(number + 1,)]
    for _ in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero):
            link.rows("select 1 / $1::int", [0])
    assert link.rows("select 1 / $1::int", [1]) == [(1,)]
    prepared = [text for (text,) in link.rows("select statement from pg_prepared_statements")]
    assert len(prepared) < KEPT
    assert prepared.count("select 1 / $1::int") == 1
    link.db.close()


def test_how_often_a_workflow_waits_for_the_server(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with all that is asked for first, once with all that is written; a claim thrice between, to find work."""
    waits: list[int] = []
    waited = Exchange._results

    def counted(link: Exchange) -> Any:
        waits[-1] += 1
        return waited(link)

    def done(command: c.Command) -> Any:
        waits.append(0)
        return bench.do(command)

    bench = Bench(store)
    bench.turn("warm")
    monkeypatch.setattr(Exchange, "_results", counted)
    lease = done(c.StartRun("r", "wf", claim_for=c.ClaimFor("w", 60_000, "secret"))).claim.lease
    done(c.Record(lease, 1, 1_000, (c.Draft(StepCompleted(), "k"),)))
    done(c.Finish(lease, 2, c.Completed("1")))
    done(c.StartRun("queued", "wf"))
    done(c.Claim("w", "claim"))
    monkeypatch.undo()
    bench.close()
    assert waits == [2, 2, 2, 2, 5]


# ── commits that are lost ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("first", [True, False])
def test_a_commit_that_never_came_through_did_not_happen(store: PostgresStore, sessions: Sessions, first: bool) -> None:
    session = sessions("lane")
    if not first:
        fill(session, run(1))
    flushed(session, run(2))
    cut(store, session._link.db)
    with pytest.raises(Unknowable):
        session.commit()
    assert session.committed() is False
    fill(session, run(2))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("happens", [True, False])
def test_a_commit_that_is_still_under_way_is_waited_for(
    store: PostgresStore, sessions: Sessions, first: bool, happens: bool
) -> None:
    """The answer is lost, the server is not done: its connection is kept here, as a server keeps it."""
    session = sessions("lane")
    if not first:
        fill(session, run(1))
    flushed(session, run(2))
    server_side, session._link = session._link.db, Exchange(store.connect())
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(session.committed)
        until_it_waits(store, answer)
        server_side.execute("commit" if happens else "rollback", prepare=False)
        assert answer.result(5) is happens
    server_side.close()
