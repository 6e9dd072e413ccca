"""Sessions beside each other: what one has locked the others leave out, wait for or read again; numbers are unique."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from stepwell.engine.committed import Committed
from stepwell.kernel.needs import need_of
from stepwell.kernel.unit import Unit
from stepwell.model import commands as c
from stepwell.model.rows import Message, Pool
from stepwell.model.settings import Settings
from stepwell.store.candidates import MOVED_ASIDE
from stepwell.store.load import load
from stepwell.store.port import Ahead, Retry
from stepwell.store.postgres.session import FIRST, PostgresSession
from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench
from tests.support.crowd import at_once
from tests.support.postgres import ask

from ..filling import NOW, fill, loading, put, run, task, writing
from .support import Sessions, until_it_waits

LANES = 4

# ── locks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_work_that_another_lane_holds_is_left_out_and_not_waited_for(
    sessions: Sessions,
) -> None:
    one, two = sessions("one"), sessions("two")
    due = [task(no, 1, state="due", due_at=1) for no in (11, 12)]
    sent = [Message(0, "main", to, 9, 1, "cancel", f"k{to}", NOW, "{}") for to in (1, 2)]
    blocked = [task(no, 1, state="blocked", pool_key="k") for no in (31, 32)]
    fill(one, task(1), task(2), task(3), *due, *sent, *blocked, run(21, deadline=1), run(22, deadline=1))
    one.begin()
    assert [row.run_no for row in one.ready({("p", "", "main"): 1})] == [1]
    assert [row.run_no for row in one.due(5, 1)] == [11]
    assert [row.no for row in one.runs([21])] == [21]
    assert [row.run_no for row in one.blocked({("main", "p", "k"): 1})] == [31]
    with loading(two) as s:
        assert [row.run_no for row in s.ready({("p", "", "main"): 1})] == [2], "the first that is free"
        assert [row.run_no for row in s.due(5, 9)] == [12]
        free = s.blocked({("main", "p", "k"): 2, ("main", "p", "l"): 1})
        assert [row.run_no for row in free] == [32]
        assert s.blocked_besides([("main", "p", "k"), ("main", "p", "l")], free) == [("main", "p", "k")]
        messages, left_out = s.messages(9)
        assert ([row.key for row in messages], left_out) == (["k2"], True)
        assert [row.no for row in s.overdue(5, 0, 9)] == [22]
        assert [row.no for row in s.runs_by_no([1, 21])] == [1, 21], "to look at"
    one.abandon()
    with loading(two) as s:
        assert [row.run_no for row in s.ready({("p", "", "main"): 9})] == [1, 2, 3]
        messages, left_out = s.messages(9)
        assert ([row.key for row in messages], left_out) == (["k1", "k2"], False)


def test_a_claim_of_one_locks_no_more_of_a_key_than_one(sessions: Sessions) -> None:
    """Besides the first of all, some of which may be moved aside."""
    one, two = sessions("one"), sessions("two")
    ready = (task(no, pool_key="a" if no <= 60 else "b", order=no) for no in range(1, 121))
    fill(one, Pool("main", "p", key_limit=9), *ready)
    batch = [c.Claim("w", "secret", limit=1)]
    one.begin()
    load(one, Unit(Settings()), need_of(batch)[0], NOW)
    with loading(two) as s:
        assert len(s.ready({("p", "", "main"): 200})) == 120 - MOVED_ASIDE - 1
    one.abandon()


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
        until_it_waits(store, answer)
        one.flush(unit, NOW)
        one.commit()
        assert [row.status for row in answer.result(5)] == ["failed"]
    two.abandon()


def test_what_changed_before_its_run_was_locked_is_left_out(sessions: Sessions) -> None:
    session = sessions("lane")
    fill(session, task(1), task(2, 1, priority=9))
    with loading(session):
        group = (["p"], [""], ["main"], [5], *([part] for part in FIRST))
        found = session._taken(lambda one: one.priority == 9, "find/ready", *group)
        assert [one.run_no for one in found] == [2]


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


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lanes_give_different_numbers_whatever_they_do_at_once(sessions: Sessions) -> None:
    lanes = [sessions(f"lane{number}") for number in range(LANES)]

    def take(session: PostgresSession) -> list[int]:
        taken: list[int] = []
        chance = random.Random(session._lane)
        for _ in range(40):
            with writing(session) as unit:
                wanted = chance.randrange(1, 50)
                unit.next_no.seed("run", session.numbers("run", wanted))
                numbers = [unit.take_no("run") for _ in range(min(wanted, chance.randrange(0, 5)))]
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


@pytest.mark.parametrize("changes", [True, False])
def test_what_a_batch_left_over_is_not_used_below_newer_numbers(changes: bool, sessions: Sessions) -> None:
    """As with an event that was there already: lists go by numbers, so a later one would stand below others."""
    one, two = sessions("one"), sessions("two")
    if changes:
        with writing(one) as unit:
            unit.next_no.seed("run", one.numbers("run", 3))
            put(unit, run(unit.take_no("run")))
    else:
        one.begin()
        one.numbers("run", 3)
        one.abandon()
    with loading(one) as s:
        assert s.numbers("run", 1) == 1 + changes, "nobody took a newer one"
    with loading(two) as s:
        theirs = s.numbers("run", 1)
    with loading(one) as s:
        assert s.numbers("run", 1) > theirs


def two_claims(store: PostgresStore, *starts: c.StartRun) -> tuple[list[c.Claimed], list[Committed]]:
    """Of a lane, and of another one before the first has committed: what they get, and what the commits tell."""
    others: list[c.Claimed] = []
    with closing(Bench(store, name="two")) as two:

        def meanwhile(point: str) -> None:
            if point == "decided":
                others.append(two.do(c.Claim("w", "two", limit=1)))

        two.all(*starts)
        with closing(Bench(store, name="one", fault=meanwhile, clock=two.clock)) as one:
            return [one.do(c.Claim("w", "one", limit=1)), *others], one.commits


def test_a_claim_keeps_from_others_what_it_leases_and_not_one_more(store: PostgresStore) -> None:
    claims, _ = two_claims(store, *(c.StartRun(name, "wf") for name in "ab"))
    assert [[one.run.id for one in claimed.tasks] for claimed in claims] == [["a"], ["b"]]
    assert claims[0].more, "for all that it knows"


def test_who_was_passed_over_hears_of_it_with_the_commit(store: PostgresStore) -> None:
    """To have a turn for each flow, a claim looks at more than it leases, and others find nothing meanwhile."""
    claims, commits = two_claims(store, *(c.StartRun(name, "wf", requires=name) for name in "ab"))
    assert [len(claimed.tasks) for claimed in claims] == [1, 0]
    assert [one.ready for one in commits] == [True]
