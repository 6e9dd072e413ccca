"""The change log, the same on every store: each scope has its own positions, dense, in the order of the commits."""

from contextlib import closing

import msgspec
import pytest

from stepwell.model import commands as c
from stepwell.model.rows import Change, Output, Pool, Touched
from stepwell.store.port import Session, Store
from tests.support import Bench, stamp

from .filling import NOW, entry, event, fill, loading, look, put, run, task, writing


def changes(store: Store, scope: str = "main", after: int = 0, limit: int = 1_000) -> list[Change]:
    stamp(store)
    return look(store, lambda reader: reader.changes(scope, after=after, limit=limit))


def positions(store: Store, scope: str = "main") -> list[int]:
    return [change.pos for change in changes(store, scope)]


def edges(store: Store, scope: str = "main") -> tuple[int, int]:
    """The floor and the head."""
    stamp(store)
    return look(store, lambda reader: (reader.floor(scope), reader.head(scope)))


def commit(session: Session, number: int, *scopes: str) -> None:
    """One commit that touches these scopes."""
    numbers = range(10 * number, 10 * number + len(scopes))
    runs = [run(no, scope=scope) for no, scope in zip(numbers, scopes, strict=True)]
    fill(session, *runs, *(entry(no, 1) for no in numbers))


def test_a_commit_has_a_row_for_each_scope_that_says_what_it_touched_there(store: Store, session: Session) -> None:
    fill(session, run(1), entry(1, 1))
    with writing(session, NOW + 5) as unit:
        put(unit, run(2, scope="b"), entry(1, 2), entry(2, 1), entry(1, 3), Output(1, 1, 1, "stdout", NOW, "x"))
        unit.runs.seed(1, run(1))
        put(unit, event(1), Pool("main", "p", limit=1))
        unit.mutated.append("shop:pay")
    first, second = changes(store)
    assert (first.scope, first.pos, second.pos, second.at) == ("main", 1, 2, NOW + 5)
    touched = msgspec.json.decode(second.touched, type=Touched)
    assert touched == Touched([(1, 2, 3)], ["events", "pools", "output"])
    assert [msgspec.json.decode(one.touched) for one in changes(store, "b")] == [{"runs": [[2, 1, 1]]}]
    assert [msgspec.json.decode(one.touched) for one in changes(store, "")] == [{"tables": ["app"]}]
    assert (edges(store), edges(store, "b"), edges(store, "none")) == ((0, 2), (0, 1), (0, 0))


def test_positions_are_dense_in_each_scope_whoever_commits(store: Store, session: Session) -> None:
    with closing(store.session("other")) as other:
        for number in range(1, 31):
            scopes = [scope for scope, step in (("main", 1), ("b", 2), ("c", 3)) if number % step == 0]
            commit(other if number % 5 == 0 else session, number, *scopes)
            if number % 7 == 0:
                stamp(store)
    assert positions(store) == list(range(1, 31))
    assert positions(store, "b") == list(range(1, 16))
    assert positions(store, "c") == list(range(1, 11))
    runs = [msgspec.json.decode(one.touched, type=Touched).runs[0][0] for one in changes(store)]
    assert runs == sorted(runs), "in the order of the commits"


def test_a_page_goes_on_where_the_last_one_ended(store: Store, session: Session) -> None:
    for number in range(1, 6):
        commit(session, number, "main", "b")
    everything = changes(store)
    assert changes(store, limit=2) == everything[:2]
    assert changes(store, after=2, limit=2) == everything[2:4]
    assert changes(store, after=4) == everything[4:]
    assert (changes(store, after=5), changes(store, after=99)) == ([], [])


def test_a_commit_that_touches_nothing_that_shows_is_no_change(store: Store) -> None:
    bench = Bench(store)
    lease = bench.turn().lease
    before = edges(store)
    bench.clock.tick(5)
    assert bench.do(c.Sync("w", (c.Beat(lease),))).tasks[0].error is None
    assert edges(store) == before
    bench.close()


def test_deleting_a_run_is_a_change(store: Store, session: Session) -> None:
    commit(session, 1, "b")
    with writing(session) as unit:
        unit.runs.seed(10, run(10, scope="b"))
        unit.pruned_runs.append(10)
    assert [msgspec.json.decode(one.touched) for one in changes(store, "b")][1:] == [{"tables": ["pruned"]}]


def test_what_is_pruned_raises_the_floors_in_the_same_commit(store: Store, session: Session) -> None:
    for number in range(1, 7):
        commit(session, number, "main", *(["b"] if number <= 2 else []))
    assert positions(store) == list(range(1, 7))
    with loading(session) as s:
        until = s.prunable_changes(3, 100)
    with writing(session) as unit:
        unit.pruned_changes = until
    assert (positions(store), edges(store)) == ([4, 5, 6], (3, 6))
    assert (positions(store, "b"), edges(store, "b")) == ([], (2, 2)), "a floor outlives the rows"
    commit(session, 7, "main", "b")
    assert (positions(store), positions(store, "b")) == ([4, 5, 6, 7], [3])


def test_positions_go_on_though_all_rows_are_gone(store: Store, session: Session) -> None:
    for number in (1, 2, 3):
        commit(session, number, "main")
    stamp(store)
    with loading(session) as s:
        until = s.prunable_changes(0, 100)
    with writing(session) as unit:
        unit.pruned_changes = until
    assert (positions(store), edges(store)) == ([], (3, 3))
    with writing(session) as unit:
        unit.pruned_changes = until
    assert edges(store) == (3, 3), "twice is once"
    commit(session, 4, "main")
    assert (positions(store), edges(store)) == ([4], (3, 4))


@pytest.mark.parametrize(("keep", "left"), [(0, 0), (3, 3), (9, 9), (10, 10), (50, 10)])
def test_old_changes_may_go_so_that_so_many_stay(store: Store, session: Session, keep: int, left: int) -> None:
    for number in range(1, 11):
        commit(session, number, "main")
    stamp(store)
    for limit, stay in ((2, max(left, 8)), (100, left)):
        with loading(session) as s:
            until = s.prunable_changes(keep, limit)
        with writing(session) as unit:
            unit.pruned_changes = until
        assert len(positions(store)) == stay


def test_a_rolled_back_commit_takes_no_position(store: Store, session: Session) -> None:
    commit(session, 1, "main")
    session.begin()
    with closing(store.reader()):
        session.rollback()
    commit(session, 2, "main")
    assert positions(store) == [1, 2]


def test_tasks_alone_are_no_change(store: Store, session: Session) -> None:
    fill(session, run(1), entry(1, 1))
    before = edges(store)
    fill(session, task(1, 5))
    assert edges(store) == before
