"""The change log where transactions end in any order: nothing is skipped, nobody waits longer than an older one."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stepwell.model.errors import Unavailable
from stepwell.store.port import Stamped
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.session import PostgresSession
from stepwell.store.postgres.stamper import DUTY_MS, PostgresStamper
from stepwell.store.postgres.store import PostgresStore
from tests.support import postgres, stamp
from tests.support.crowd import at_once
from tests.support.postgres import ask, cut

from ..filling import entry, fill, loading, look, run, writing
from ..test_changes import changes, edges, positions
from .support import Sessions, flushed

LANES = 4


@pytest.fixture
def commit(sessions: Sessions) -> Callable[..., None]:
    """A commit that touches these scopes."""
    numbers, lane = count(1), sessions("lane")

    def commit(*scopes: str) -> None:
        runs = [run(next(numbers), scope=scope) for scope in scopes or ("main",)]
        fill(lane, *runs, *(entry(one.no, 1) for one in runs))

    return commit


def stamped(store: PostgresStore, holder: str = "one") -> Stamped:
    """A turn of a stamper that keeps the duty."""
    stamper = PostgresStamper(store.connect, holder)
    done = stamper.stamp(10_000)
    stamper._let_go()
    return done


def aged(store: PostgresStore, age_s: int) -> None:
    """The changes were made so long ago."""
    ask(store, "update unstamped set at = (extract(epoch from clock_timestamp()) * 1000)::bigint - $1", age_s * 1_000)


def writer(db: Db) -> None:
    """A transaction with a number, under way."""
    db.execute("begin")
    db.execute("select pg_current_xact_id()")


# ── transactions under way ───────────────────────────────────────────────────────────────────────────────────────


def test_what_an_older_transaction_may_still_write_is_waited_for_and_comes_first(
    store: PostgresStore, sessions: Sessions, commit: Callable[..., None]
) -> None:
    commit()
    early = sessions("early")
    flushed(early, run(90), entry(90, 1))
    commit()
    assert positions(store) == [1], "what was there before it is seen at once"
    assert look(store, lambda reader: reader.run_by_no(2)) is not None, "only the log waits"
    early.commit()
    assert [one.touched for one in changes(store)] == [f'{{"runs":[[{no},1,1]]}}' for no in (1, 90, 2)]
    assert edges(store) == (0, 3)


def test_what_a_rolled_back_transaction_held_up_is_seen_when_it_ends(
    store: PostgresStore, sessions: Sessions, commit: Callable[..., None]
) -> None:
    early = sessions("early")
    flushed(early, run(90), entry(90, 1))
    commit("main", "b")
    waits_ms = stamped(store).waits_ms
    assert waits_ms is not None
    assert (positions(store), positions(store, "b")) == ([], [])
    early.rollback()
    assert stamped(store) == Stamped(2)
    assert (positions(store), positions(store, "b")) == ([1], [1])


def test_a_long_transaction_that_only_reads_holds_nothing_back(
    store: PostgresStore, commit: Callable[..., None]
) -> None:
    with closing(store.connect()) as db:
        db.execute("begin isolation level repeatable read")
        db.execute("select count(*) from run")
        commit()
        assert positions(store) == [1]


def test_a_writer_in_another_database_holds_it_back_and_is_named(
    store: PostgresStore, commit: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    name = "other" + str(store._address["options"])[-16:]
    with psycopg.connect(postgres.server(), autocommit=True) as db:
        db.execute(f"create database {name}".encode())
    with psycopg.connect(f"{postgres.server()} dbname={name} application_name=nightly", autocommit=True) as db:
        writer(db)
        commit()
        aged(store, 0)
        assert stamped(store).waits_ms is not None
        aged(store, 3_600)
        assert stamped(store).count == 0
        db.execute("rollback")
        assert stamped(store) == Stamped(1)
    with psycopg.connect(postgres.server(), autocommit=True) as db:
        db.execute(f"drop database {name}".encode())
    (told,) = caplog.messages
    assert (f"of database {name} (nightly)" in told, "held back for" in told) == (True, True)


def test_who_holds_it_back_is_named_at_one_minute_at_two_at_four(
    store: PostgresStore, commit: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    stamper = PostgresStamper(store.connect, "one")
    with closing(stamper), closing(store.connect()) as db:
        writer(db)
        commit()
        for age_s in (0, 50, 60, 90, 119, 121, 239, 300):
            aged(store, age_s)
            stamper.stamp(10)
        db.execute("rollback")
        assert stamper.stamp(10) == Stamped(1)
    assert [int(re.findall(r"for (\d+) s", told)[0]) // 60 for told in caplog.messages] == [1, 2, 5]


def test_a_follower_sees_every_commit_of_lanes_that_race_in_order_and_at_once(
    store: PostgresStore, sessions: Sessions
) -> None:
    lanes, over, seen = [sessions(f"lane{number}") for number in range(LANES)], threading.Event(), list[int]()

    def follow() -> None:
        with closing(store.reader()) as reader, closing(store.stamper("one")) as stamper:
            while True:
                last = over.is_set()
                stamper.stamp(3)
                while page := reader.changes("main", after=seen[-1] if seen else 0, limit=7):
                    seen.extend(one.pos for one in page)
                if last and not stamper.stamp(10_000).count:
                    return

    def commit(session: PostgresSession, first: int) -> None:
        for number in range(first, first + 50):
            fill(session, run(number), entry(number, 1))

    with ThreadPoolExecutor(1) as pool:
        follower = pool.submit(follow)
        at_once(*(lambda s=s, n=n: commit(s, 1 + 100 * n) for n, s in enumerate(lanes)))
        over.set()
        follower.result(10)
    assert seen == list(range(1, 50 * LANES + 1))
    assert ask(store, "select count(*) from change") == [(50 * LANES,)]


# ── stampers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_stampers_that_race_give_each_change_one_position(store: PostgresStore, sessions: Sessions) -> None:
    lane, over = sessions("lane"), threading.Event()

    def work(name: str) -> int:
        with closing(store.stamper(name)) as stamper:
            done = 0
            while not over.is_set():
                ask(store, "update stamper set until = 0")  # both think that the duty is theirs
                done += stamper.stamp(2).count
            return done

    def commit() -> None:
        for number in range(1, 101):
            fill(lane, run(number, scope="ab"[number % 2]), entry(number, 1))
        over.set()

    *done, _ = at_once(lambda: work("one"), lambda: work("two"), lambda: work("three"), commit)
    assert min(done) > 0
    assert (positions(store, "a"), positions(store, "b")) == (list(range(1, 51)), list(range(1, 51)))


def test_the_duty_is_one_processs_until_it_stops_doing_it(store: PostgresStore, commit: Callable[..., None]) -> None:
    commit()
    assert stamped(store, "one") == Stamped(1)
    commit()
    refused = stamped(store, "two")
    assert (refused.count, 0 < refused.held_ms <= DUTY_MS) == (0, True)
    ask(store, "update stamper set until = until - $1", DUTY_MS)
    assert stamped(store, "two") == Stamped(1)
    assert stamped(store, "one").held_ms > 0
    with closing(store.stamper("two")) as stamper:
        stamper.stamp(1)
    assert positions(store) == [1, 2], "who ends gives the duty back"


def test_a_duty_of_another_clock_keeps_nobody_away(store: PostgresStore, commit: Callable[..., None]) -> None:
    """The server that was failed over to is behind."""
    commit()
    assert stamped(store, "one") == Stamped(1)
    ask(store, "update stamper set until = until + 600000")
    commit()
    with closing(store.connect()) as db:
        db.execute("begin")
        db.execute("select from stamper for update")
        assert 0 < stamped(store, "two").held_ms <= DUTY_MS, "somebody is at it"
    assert stamped(store, "two") == Stamped(1)
    assert stamped(store, "one").held_ms > 0


def test_one_who_has_nothing_to_do_takes_no_duty(store: PostgresStore) -> None:
    assert stamped(store) == Stamped()
    assert ask(store, "select holder, until from stamper") == [("", 0)]


@pytest.mark.parametrize("survived", range(4))
def test_a_stamper_that_dies_between_any_two_statements_did_all_or_nothing(
    store: PostgresStore, commit: Callable[..., None], survived: int
) -> None:
    for _ in range(3):
        commit("main", "b")
    stamper = PostgresStamper(lambda: Mortal.of(store, survived), "dies")
    with pytest.raises(Unavailable):
        stamper.stamp(10)
    ask(store, "update stamper set until = 0")
    done = stamped(store)
    assert (done.count, done.waits_ms) == (0 if survived == 3 else 6, None), "and nobody waits for it"
    ask(store, "update stamper set until = 0")
    assert (positions(store), positions(store, "b")) == ([1, 2, 3], [1, 2, 3])


class Mortal:
    """A connection whose process is killed by the server before a statement, or in the place of an answer."""

    def __init__(self, db: Db, statements: int, store: PostgresStore) -> None:
        self._db, self._left, self._store = db, statements, store
        self.closed = False

    @classmethod
    def of(cls, store: PostgresStore, statements: int) -> Any:
        return cls(store.connect(), statements, store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
        if self._left == 0:
            self._kill()
        self._left -= 1
        answer = self._db.execute(statement, *args, **options)
        if self._left == 0 and statement == "commit":
            self._kill()
        return answer

    def _kill(self) -> None:
        cut(self._store, self._db)
        self._db.execute("select 1")


def test_only_what_has_a_position_is_pruned(
    store: PostgresStore, sessions: Sessions, commit: Callable[..., None]
) -> None:
    commit()
    stamp(store)
    commit()
    with loading(sessions("other")) as s:
        until = s.prunable_changes(0, 100)
    with writing(sessions("pruner")) as unit:
        unit.pruned_changes = until
    assert (edges(store), positions(store)) == ((1, 2), [2])


def test_pruners_that_race_raise_the_floor_once(
    store: PostgresStore, sessions: Sessions, commit: Callable[..., None]
) -> None:
    for _ in range(6):
        commit("main", "b")
    stamp(store)
    lanes = [sessions("one"), sessions("two")]
    for lane in lanes:
        lane.begin()
    limits = [lane.prunable_changes(6, 100) for lane in lanes]
    for lane in lanes:
        lane.abandon()

    def prune(lane: PostgresSession, until: int) -> None:
        with writing(lane) as unit:
            unit.pruned_changes = until

    at_once(*(lambda lane=lane, until=until: prune(lane, until) for lane, until in zip(lanes, limits, strict=True)))
    assert (edges(store), edges(store, "b")) == ((3, 6), (3, 6))


# ── another server ───────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_from_a_server_with_higher_numbers_keep_their_positions_and_new_ones_follow(
    store: PostgresStore, commit: Callable[..., None]
) -> None:
    for scopes in (["main"], ["main", "b"], ["main"]):
        commit(*scopes)
    stamp(store)
    commit("main", "b")  # the dump was made before it had a position
    before = look(store, lambda reader: reader.changes("main", after=0))
    for table in ("unstamped", "stamper"):
        ask(store, f"update {table} set xid = xid + 1000000000")
    assert positions(store) == [1, 2, 3], "it would wait for a billion transactions"
    for _ in range(2):  # twice is once
        store.migrate()
        assert (changes(store)[:3], positions(store), positions(store, "b")) == (before, [1, 2, 3, 4], [1, 2])
    commit("b", "main")
    assert (positions(store), positions(store, "b")) == ([1, 2, 3, 4, 5], [1, 2, 3])
    assert [one.touched for one in changes(store)][-2:] == ['{"runs":[[5,1,1]]}', '{"runs":[[8,1,1]]}']


def test_rows_of_this_server_wait_as_they_must_when_it_is_opened_again(
    store: PostgresStore, commit: Callable[..., None]
) -> None:
    commit()
    stamp(store)
    before = ask(store, "select xid from stamper")
    with closing(store.connect()) as db:
        writer(db)
        commit()
        store.migrate()
        assert (positions(store), ask(store, "select xid from stamper")) == ([1], before)
        db.execute("rollback")
    assert positions(store) == [1, 2]


def test_on_a_fresh_server_a_dump_goes_on_and_a_prepared_transaction_holds_the_log_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A database as a dump brings it: rows, sequences, and the numbers of a server that had seen more transactions."""
    fresh = postgres.Server(max_prepared_transactions="1")
    store = PostgresStore(fresh.url)
    store.migrate()
    ask(store, "update stamper set xid = 900000000")
    ask(store, "insert into change (scope, pos, at, touched) values ('main', 1, 0, '{}'), ('main', 2, 0, '{}')")
    ask(store, "insert into unstamped values (900000001, 'main', 0, '{}'), (900000002, 'main', 0, '{}')")
    store.migrate()
    with closing(store.session("lane")) as lane, closing(store.connect()) as db:
        fill(lane, run(1), entry(1, 1))
        assert (positions(store), stamped(store)) == ([1, 2, 3, 4, 5], Stamped())
        writer(db)
        db.execute("prepare transaction 'stuck'")
        fill(lane, run(2), entry(2, 1))
        aged(store, 120)
        assert stamped(store).count == 0
        db.execute("rollback prepared 'stuck'")
        assert stamped(store) == Stamped(1)
    assert "the prepared transaction stuck of database postgres" in caplog.text
    fresh.close()
