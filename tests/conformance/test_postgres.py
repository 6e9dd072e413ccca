"""What only a server can do: many lanes at once, answers that get lost, a change log that skips nothing."""

import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest

from stepwell.kernel.unit import Unit
from stepwell.model import commands as c
from stepwell.model.entries import SignalSent, StepCompleted
from stepwell.model.errors import Invalid, StepwellError, Unavailable
from stepwell.model.rows import Blob, Message, Output, Pool, Request
from stepwell.model.settings import Settings
from stepwell.store.port import Ahead, Broken, Refused, Retry, RunFilter, Unknowable
from stepwell.store.postgres.connection import Db
from stepwell.store.postgres.exchange import KEPT, Exchange
from stepwell.store.postgres.reader import runs_statement
from stepwell.store.postgres.session import PostgresSession
from stepwell.store.postgres.sql import ROWS, columns, migrations, sql
from stepwell.store.postgres.store import PostgresStore
from stepwell.worker.local import open_store
from tests.support import Bench, Clock, assert_lawful, postgres, snapshot
from tests.support.pgbouncer import pooler

from .filling import NOW, entry, event, fill, loading, put, run, task, writing

LANES = 4
Sessions: TypeAlias = Callable[[str], PostgresSession]


@pytest.fixture
def store(tmp_path: Path) -> PostgresStore:
    store = PostgresStore(postgres.address(tmp_path))
    store.migrate()
    return store


@pytest.fixture
def sessions(store: PostgresStore) -> Iterator[Sessions]:
    opened: list[PostgresSession] = []

    def open_session(lane: str) -> PostgresSession:
        opened.append(store.session(lane))
        return opened[-1]

    yield open_session
    for session in opened:
        session.close()


def sent(session: PostgresSession, unit: Unit) -> None:
    """What is flushed goes to the server with the commit."""
    session.flush(unit, NOW)
    session.commit()


def ask(store: PostgresStore, statement: str, *values: Any) -> list[Any]:
    with closing(store.connect()) as db:
        cursor = db.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """What each answers, all begun at the same time."""
    gate = threading.Barrier(len(works))

    def begun(work: Callable[[], Any]) -> Any:
        gate.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begun, works))


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_everything_is_there_after_opening_again(store: PostgresStore) -> None:
    bench = Bench(store)
    lease = bench.turn(input='"' + "x" * 70_000 + '"').lease
    bench.record(lease, 1, StepCompleted())
    bench.do(c.Say(lease, 0, (("stdout", "hi"),)))
    before = snapshot(store)
    bench.close()
    again = Bench(store, clock=bench.clock, name="another")
    assert snapshot(store) == before
    assert again.record(lease, 1, StepCompleted()).first == 3, "a repeat gets the first answer"
    again.start("next")
    assert again.run("next").no > 1
    again.close()


def test_many_may_migrate_at_once_and_each_migration_is_applied_once(tmp_path: Path) -> None:
    stores = [PostgresStore(postgres.address(tmp_path)) for _ in range(LANES)]
    at_once(*(store.migrate for store in stores))
    stores[0].migrate()
    noted = ask(stores[0], "select no, name, length(hash) from migration order by no")
    assert noted == [(no, name, 64) for no, name, _ in migrations()]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("update migration set hash = 'x' where no = 1", "not what migration 1 of this program makes"),
        ("insert into migration values (999, 'future', 'x', now())", "newer than this program"),
    ],
)
def test_a_foreign_schema_is_refused_and_left_alone(store: PostgresStore, statement: str, message: str) -> None:
    ask(store, statement)
    before = ask(store, "select * from migration order by no")
    with pytest.raises(Unavailable, match=message) as caught:
        store.migrate()
    assert caught.value.hint
    assert ask(store, "select * from migration order by no") == before


def test_addresses_are_refused_in_plain_words_and_without_the_password() -> None:
    with pytest.raises(Invalid, match="no address"):
        open_store("postgresql://host/db?nonsense=1", Settings())
    nobody = open_store("postgresql://me:secret@127.0.0.1:1/db?connect_timeout=1&pooled=true", Settings())
    assert nobody.url == "postgresql://127.0.0.1:1/db"
    for opens in (nobody.migrate, nobody.reader, lambda: nobody.session("lane")):
        with pytest.raises(Unavailable, match="cannot open") as caught:
            opens()
        assert "secret" not in str(caught.value)


def test_without_the_driver_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stepwell.store.postgres.store", None)
    with pytest.raises(Invalid, match="driver") as caught:
        open_store("postgresql://host/db", Settings())
    assert "stepwell[postgres]" in caught.value.hint


@pytest.mark.parametrize("row", ROWS)
def test_columns_are_the_fields(store: PostgresStore, row: str) -> None:
    given = "select attname from pg_attribute where attrelid = $1::regclass and attnum > 0 and attgenerated = ''"
    named = ask(store, given + " order by attnum", row)
    assert [name for (name,) in named][row in ("task", "change") :] == columns(row)


def test_behind_a_pooler_nothing_is_prepared(tmp_path: Path) -> None:
    store = PostgresStore(postgres.address(tmp_path), pooled=True)
    store.migrate()
    session = store.session("lane")
    bench = Bench(store, session=session)
    bench.record(bench.turn().lease, 1, StepCompleted())
    assert session._link.db.execute("select count(*) from pg_prepared_statements").fetchall() == [(0,)]
    bench.close()
    assert_lawful(store)


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


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


def test_one_bad_row_among_many_refuses_them_all(store: PostgresStore, sessions: Sessions) -> None:
    session = sessions("lane")
    fill(session, run(1), entry(1, 50))
    before = snapshot(store)
    session.begin()
    unit = Unit(Settings())
    unit.runs.seed(1, run(1))
    put(unit, *(entry(1, seq) for seq in range(1, 70)))
    with pytest.raises(Refused, match="entry_seq"):
        sent(session, unit)
    session.rollback()
    assert snapshot(store) == before


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


def cut(store: PostgresStore, session: PostgresSession) -> None:
    """Ends the server's side of a session, and waits for it."""
    pid = session._link.db.info.backend_pid
    ask(store, "select pg_terminate_backend($1::int, 5000)", pid)


def test_a_connection_that_was_lost_is_made_anew(store: PostgresStore, sessions: Sessions) -> None:
    session = sessions("lane")
    fill(session, run(1_001))
    cut(store, session)
    with pytest.raises(Broken):
        session.begin()
    session.rollback()
    fill(session, run(1_002))
    cut(store, session)
    bench = Bench(store, session=session)
    assert bench.start("r").created, "the lane tries again by itself"
    reader = store.reader()
    ask(store, "select pg_terminate_backend($1::int, 5000)", reader._link.db.info.backend_pid)
    assert reader.run_by_no(1_001) is not None
    with reader.snapshot():
        ask(store, "select pg_terminate_backend($1::int, 5000)", reader._link.db.info.backend_pid)
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
            ask(self, "select pg_terminate_backend($1::int, 5000)", db.info.backend_pid)
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


def flushed(session: PostgresSession, *rows: Any) -> None:
    session.begin()
    unit = Unit(Settings())
    put(unit, *rows)
    session.flush(unit, NOW)


@pytest.mark.parametrize("first", [True, False])
def test_a_commit_that_never_came_through_did_not_happen(store: PostgresStore, sessions: Sessions, first: bool) -> None:
    session = sessions("lane")
    if not first:
        fill(session, run(1))
    flushed(session, run(2))
    cut(store, session)
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
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%lane%'"
        while ask(store, waiting) == [(0,)]:
            assert not answer.done()
        server_side.execute("commit" if happens else "rollback", prepare=False)
        assert answer.result(5) is happens
    server_side.close()


def test_a_failed_transaction_is_no_commit(sessions: Sessions) -> None:
    session = sessions("lane")
    session.begin()
    with pytest.raises(Refused):
        session._all("find/ready", ["p"], [""], ["main"], ["many"])
    with pytest.raises(Retry):
        session.commit()
    session.rollback()


# ── lanes beside each other ──────────────────────────────────────────────────────────────────────────────────────


def test_work_that_another_lane_holds_is_left_out_and_not_waited_for(
    sessions: Sessions,
) -> None:
    one, two = sessions("one"), sessions("two")
    due = [task(no, 1, state="due", due_at=1) for no in (11, 12)]
    sent = [Message(0, "main", to, 9, 1, "cancel", f"k{to}", NOW, "{}") for to in (1, 2)]
    fill(one, task(1), task(2), task(3), *due, *sent, run(21, deadline=1), run(22, deadline=1))
    one.begin()
    assert [row.run_no for row in one.ready({("p", "", "main"): 1})] == [1]
    assert [row.run_no for row in one.due(5, 1)] == [11]
    assert [row.no for row in one.runs([21])] == [21]
    with loading(two) as s:
        assert [row.run_no for row in s.ready({("p", "", "main"): 1})] == [2], "the first that is free"
        assert [row.run_no for row in s.due(5, 9)] == [12]
        assert ([row.key for row in s.messages(9)], s.left_out) == (["k2"], True)
        assert [row.no for row in s.overdue(5, 0, 9)] == [22]
        assert [row.no for row in s.runs_by_no([1, 21])] == [1, 21], "to look at"
    one.abandon()
    with loading(two) as s:
        assert [row.run_no for row in s.ready({("p", "", "main"): 9})] == [1, 2, 3]
        assert ([row.key for row in s.messages(9)], s.left_out) == (["k1", "k2"], False)


def test_a_run_that_a_batch_names_is_waited_for_and_read_as_it_is_then(
    store: PostgresStore, sessions: Sessions
) -> None:
    one, two = sessions("one"), sessions("two")
    fill(one, run(1), task(1))
    one.begin()
    (loaded,) = one.runs([1])
    unit = Unit(Settings())
    unit.runs.seed(1, loaded)
    unit.runs.edit(1).status = "failed"
    with ThreadPoolExecutor(1) as pool:
        two.begin()
        answer = pool.submit(two.runs, [], [("main", "r1")])
        while ask(store, "select count(*) from pg_locks where not granted") == [(0,)]:
            assert not answer.done()
        one.flush(unit, NOW)
        one.commit()
        assert [row.status for row in answer.result(5)] == ["failed"]
    two.abandon()


def test_lanes_give_different_numbers_whatever_they_do_at_once(sessions: Sessions) -> None:
    lanes = [sessions(f"lane{number}") for number in range(LANES)]

    def take(session: PostgresSession) -> list[int]:
        taken: list[int] = []
        chance = random.Random(session._lane)
        for _ in range(40):
            with writing(session) as unit:
                unit.next_no.seed("run", session.numbers("run", chance.randrange(1, 50)))
                numbers = [unit.take_no("run") for _ in range(chance.randrange(0, 5))]
                put(unit, *map(run, numbers))
            taken += numbers
        return taken

    taken = [number for one in at_once(*(lambda s=s: take(s) for s in lanes)) for number in one]
    assert len(taken) == len(set(taken))


def test_numbers_that_do_not_come_in_a_row_are_not_taken_for_it(store: PostgresStore, sessions: Sessions) -> None:
    """As if another lane took one after each of ours."""
    ask(store, "alter sequence run_no increment by 2")
    session = sessions("lane")
    with loading(session) as s:
        assert s.numbers("run", 1) == 1
        with pytest.raises(Retry, match="other lanes"):
            s.numbers("run", 3)


def test_what_changed_before_its_run_was_locked_is_left_out(sessions: Sessions) -> None:
    session = sessions("lane")
    fill(session, task(1), task(2, 1, priority=9))
    with loading(session):
        found = session._taken(lambda one: one.priority == 9, "find/ready", ["p"], [""], ["main"], [5])
        assert [one.run_no for one in found] == [2]


def deadlocks(store: PostgresStore) -> int:
    ask(store, "select pg_stat_clear_snapshot()")
    return int(ask(store, "select deadlocks from pg_stat_database where datname = current_database()")[0][0])


class Racer:
    """One lane among others: batches on few runs, in any order, with claims, messages and roles."""

    def __init__(self, bench: Bench, seed: str) -> None:
        self._bench, self._seed, self._chance = bench, seed, random.Random(seed)
        self._secrets = count()
        self.leases: list[tuple[int, int, int]] = []
        self.surprises: list[StepwellError] = []

    def _secret(self) -> str:
        return f"{self._seed} {next(self._secrets)}"

    def _command(self) -> c.Command:
        pick = self._chance.randrange
        name, pool = f"r{pick(12)}", ("tight", "wide")[pick(2)]
        fused = c.ClaimFor(self._seed, 120_000, self._secret()) if pick(3) == 0 else None
        commands: tuple[Callable[[], c.Command], ...] = (
            lambda: c.StartRun(name, "wf", pool=pool, claim_for=fused),
            lambda: c.Signal(name, "s", dedup=f"d{pick(3)}"),
            lambda: c.Claim(self._seed, self._secret(), limit=3),
            lambda: c.Cancel(name),
            c.Sweep,
            c.Deliver,
            c.Promote,
            lambda: c.AcceptEvent(c.NewEvent(f"e{pick(4)}", "t", "2026", "h")),
        )
        return commands[pick(len(commands))]()

    def _work(self, leased: c.Leased) -> None:
        """Tells another run something, and ends."""
        self.leases.append((leased.lease.run_no, leased.lease.k, leased.lease.epoch))
        signal = SignalSent(f"r{self._chance.randrange(12)}", "s", dedup=f"d{self._chance.randrange(3)}")
        self._bench.all(c.Record(leased.lease, 1, 1_000, (c.Draft(signal, "signal"),)))
        self._bench.all(c.Finish(leased.lease, 2, c.Completed("1")))

    def live(self) -> None:
        for _ in range(25):
            replies = self._bench.all(*(self._command() for _ in range(self._chance.randrange(1, 6))))
            for reply in replies:
                if isinstance(reply, StepwellError) and reply.code in ("internal", "unavailable"):
                    self.surprises.append(reply)
                if isinstance(reply, c.Started) and reply.claim is not None:
                    self._work(reply.claim)
                for leased in reply.tasks if isinstance(reply, c.Claimed) else ():
                    self._work(leased)


@pytest.mark.parametrize("seed", range(3))
def test_lanes_that_race_for_the_same_runs_come_to_a_lawful_end(store: PostgresStore, seed: int) -> None:
    """No deadlock, nothing twice, no answer but those that the rules give."""
    before, clock = deadlocks(store), Clock()
    benches = [Bench(store, clock=clock, name=f"lane{number}") for number in range(LANES)]
    benches[0].do(c.SetPool(Pool("main", "tight", limit=2)))
    racers = [Racer(bench, f"{seed} {bench.lane.name}") for bench in benches]
    at_once(*(racer.live for racer in racers))
    benches[0].settle()
    for bench in benches:
        bench.close()
    leases = [lease for racer in racers for lease in racer.leases]
    assert [racer.surprises for racer in racers] == [[]] * LANES
    assert len(leases) == len(set(leases)) > 0
    assert deadlocks(store) == before
    assert_lawful(store)


def test_a_limited_pool_is_never_over_its_limit(store: PostgresStore) -> None:
    benches = [Bench(store, name=f"lane{number}") for number in range(LANES)]
    benches[0].do(c.SetPool(Pool("main", "tight", limit=3)))
    benches[0].all(*(c.StartRun(f"r{number}", "wf", pool="tight") for number in range(200)))
    done: list[int] = []

    def work(bench: Bench) -> int:
        most = 0
        for turn in range(30):
            leased = bench.do(c.Claim(bench.lane.name, f"{bench.lane.name}.{turn}", limit=5)).tasks
            most = max(most, ask(store, "select count(*) from task where state = 'leased'")[0][0])
            for one in leased:
                bench.do(c.Finish(one.lease, 1, c.Completed("1")))
                done.append(one.run.no)
        return most

    assert max(at_once(*(lambda b=b: work(b) for b in benches))) <= 3
    assert len(done) == len(set(done)) > 30
    for bench in benches:
        bench.close()
    assert_lawful(store)


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────

#: Statements that may look at all rows of a table, and why.
WHOLE = {
    "list/task_counts": "a metric that counts every open task",
    "list/run_counts": "a metric that counts every open run",
    "list/orphans": "the doctor looks at everything",
    "list/others": "a row for each lane",
}
ROOT = Path(__file__).parents[2] / "src/stepwell/store/postgres/sql"
ACTS = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix()
    for name in ("find", "load", "list")
    for path in (ROOT / name).iterdir()
)
MANY = 5_000
BUSY: tuple[dict[str, Any], ...] = (
    {"state": "leased", "lease_until": NOW, "worker": "w", "deadline": NOW},
    {"state": "due", "due_at": NOW},
    {"state": "blocked", "pool_key": "k"},
    {"state": "ready"},
)
SAMPLES = {"bigint": "1", "text": "'a'", "bigint[]": "'{1,2}'", "text[]": "'{a}'", "json": "'[]'", "regclass": "'run'"}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A store where most rows are none that anybody looks for: parked tasks, waiting runs, old events."""
    store = PostgresStore(postgres.address(tmp_path_factory.mktemp("plans")))
    store.migrate()
    numbers = range(1, MANY + 1)
    with closing(store.session("lane")) as session:
        fill(
            session,
            *(run(no, status="waiting", event_no=no, parent_no=no) for no in numbers),
            *(task(no, 1, state="parked") for no in numbers),
            *(task(no, k, **some) for k, some in enumerate(BUSY, 2) for no in numbers[:: MANY // 500]),
            *(entry(no, 1) for no in numbers),
            *(event(no, matched=1) for no in numbers),
            *(Output(no, 1, 1, "stdout", NOW, "x") for no in numbers),
            *(Blob(no, 0, "h", "x") for no in numbers),
            *(Message(0, "main", no, 1, 1, "signal", None, NOW, "{}") for no in numbers),
            *(Request("main", f"k{no}", "h", "1", NOW) for no in numbers),
        )
    db = store.connect()
    db.execute(
        b"insert into change (scope, pos, at, touched) select 'main', no, 1, '' from generate_series(1, 5000) as no"
    )
    db.execute(b"analyze run, task, entry, event, output, blob, message, request, change")
    yield db
    db.close()


def plan(db: psycopg.Connection[tuple[Any, ...]], statement: str) -> str:
    """How the server would run it, with values of the types that it asks for."""
    db.execute(f"prepare looked_at as {statement}".encode(), prepare=False)
    types = "select parameter_types::text[] from pg_prepared_statements where name = 'looked_at'"
    try:
        values = ", ".join(SAMPLES[kind] for kind in db.execute(types.encode()).fetchall()[0][0])
        call = f"explain execute looked_at{f'({values})' if values else ''}"
        steps = db.execute(call.encode(), prepare=False).fetchall()
    finally:
        db.execute(b"deallocate looked_at", prepare=False)
    return "\n".join(step for (step,) in steps)


@pytest.mark.parametrize("act", [act for act in ACTS if act not in WHOLE and act != "list/runs"])
def test_every_statement_uses_an_index(grown: psycopg.Connection[tuple[Any, ...]], act: str) -> None:
    steps = plan(grown, sql(act))
    scanned = set(re.findall(r"Seq Scan on (\w+)", steps))
    assert scanned <= {"pool", "manifest", "meta", "lane"}, steps


@pytest.mark.parametrize(
    ("act", "index"),
    [
        ("find/ready", "task_ready"),
        ("find/ready_keys", "task_ready_key"),
        ("find/ready_of_keys", "task_ready_key"),
        ("find/groups", "task_ready"),
        ("find/blocked", "task_blocked"),
        ("find/blocked_keys", "task_blocked"),
        ("find/due", "task_due"),
        ("find/expired", "task_leased"),
        ("find/leased_by", "task_(leased|used)"),
        ("find/late", "task_deadline"),
        ("find/leased_counts", "task_used"),
        ("find/entries_of", "entry_seq"),
        ("find/prunable_requests", "request_expires"),
        ("load/children", "run_child"),
        ("load/event_runs", "run_event"),
        ("list/entries", "entry_seq"),
        ("list/output", "output_n"),
        ("list/changes", "change_pos"),
    ],
)
def test_it_is_the_index_that_was_made_for_it(grown: psycopg.Connection[tuple[Any, ...]], act: str, index: str) -> None:
    steps = plan(grown, sql(act))
    assert re.search(rf"\b{index}\b", steps), steps


@pytest.mark.parametrize("act", ["advance_run", "update_run_status", "update_run", "update_task", "update_event"])
def test_many_rows_are_changed_by_their_numbers(grown: psycopg.Connection[tuple[Any, ...]], act: str) -> None:
    steps = plan(grown, sql(f"flush/{act}"))
    assert "Seq Scan" not in steps, steps


@pytest.mark.parametrize(
    "where",
    [RunFilter(event_no=3), RunFilter(status="failed"), RunFilter(hold="paused"), RunFilter(result_status="x")],
    ids=str,
)
def test_lists_of_runs_use_the_index_of_their_filter(
    grown: psycopg.Connection[tuple[Any, ...]], where: RunFilter
) -> None:
    statement, values = runs_statement(where, None, 50)
    steps = "\n".join(
        step for (step,) in grown.execute(f"explain {statement}".encode(), values, prepare=False).fetchall()
    )
    assert re.search("run_(event|bad|held|result)", steps), steps


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


def test_numbers_that_are_wanted_in_the_middle_of_a_batch_are_given_once(sessions: Sessions) -> None:
    """As a mutation does that starts a run: the batch has used what it was promised before."""
    one, two = sessions("one"), sessions("two")
    one.begin()
    two.begin()
    first = one.numbers("run", 1)
    assert one.numbers("run", 1) == first + 1
    theirs = two.numbers("run", 1)
    with pytest.raises(Retry):
        one.numbers("run", 1)
    one.rollback()
    one.begin()
    again = one.numbers("run", 1)
    assert [one.numbers("run", 1), one.numbers("run", 1)] == [again + 1, again + 2]
    assert theirs not in range(again, again + 3)
    one.rollback()
    two.rollback()


def test_a_task_is_read_again_when_its_run_was_busy_at_first(store: PostgresStore, sessions: Sessions) -> None:
    session, named = sessions("one"), frozenset({1})
    fill(session, run(1), task(1))
    with closing(store.connect()) as other:
        other.execute("begin")
        other.execute("select no from run for update")
        session.begin(Ahead(named, tasks=frozenset({(1, 1)})))
        assert [one.no for one in session.take(named)[1]] == [1], "busy"
        other.execute("update task set state = 'done'")
        other.execute("commit")
    session.runs([1])
    assert [one.state for one in session.tasks([(1, 1)])] == ["done"]
    session.rollback()
