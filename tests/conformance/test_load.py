"""Loading by key, and finding by index, in the order that the rules rely on."""

from collections import Counter
from itertools import pairwise

from stepwell.kernel.needs import need_of
from stepwell.kernel.unit import Unit
from stepwell.model import commands as c
from stepwell.model.rows import Blob, Manifest, Message, Pool, Request
from stepwell.model.settings import RANGES, Settings
from stepwell.model.words import STATUSES, TASK_STATES
from stepwell.store.candidates import MOVED_ASIDE
from stepwell.store.load import load
from stepwell.store.port import Session, Share, Store

from .filling import NOW, ODD, entry, event, fill, loading, look, run, task, writing


def test_nothing_asked_for_is_nothing(session: Session) -> None:
    fill(session, run(1), task(1), event(1))
    with loading(session) as s:
        assert [s.runs([]), s.runs_by_id([]), s.tasks([]), s.open_tasks([]), s.children([])] == [[]] * 5
        assert [s.events([]), s.event_runs([]), s.manifests([]), s.meta([]), s.pools([]), s.requests([])] == [[]] * 6


def test_what_is_missing_is_left_out(session: Session) -> None:
    fill(session, run(1), task(1), event(1))
    with loading(session) as s:
        assert [row.no for row in s.runs([7, 1, 0, -1])] == [1]
        assert [row.id for row in s.runs_by_id([("main", "nobody"), ("main", "r1"), ("b", "r1")])] == ["r1"]
        assert [row.k for row in s.tasks([(1, 2), (1, 1), (2, 1), (0, 0)])] == [1]
        assert [row.id for row in s.events([("main", "e1"), ("b", "e1"), ("main", "E1")])] == ["e1"]
        assert [s.meta(["nothing"]), s.pools([("main", "none")]), s.requests([("main", "none")])] == [[]] * 3


def test_rows_come_back_as_they_went_in(session: Session) -> None:
    full_run = run(3, "all", tags='{"t":1}', pool_key="k", parent_no=1, parent_key="p", event_no=2, hold="paused")
    full_run.deadline, full_run.cancel_at, full_run.result, full_run.waits = 5, 6, '"r"', '["signal:x"]'
    full_task = task(3, 1, state="leased", worker="w", lease_until=9, token_hash="t", details="{}", due_key="d")
    full_event = event(2, "e", source="s", occurred_at="o", extra="{}", misses="[]", matched=3, replays=1)
    rate = Pool("main", "q", 1, 2, 3, 4, 0.5, 6, paused=True)
    manifest, request = Manifest("main", "f", "v", "h", 5, "{}"), Request("main", "k", "h", "[1]", 99)
    fill(session, full_run, full_task, full_event, rate, manifest, request)
    other = type(session).__name__
    with loading(session) as s:
        assert (s.runs([3]), s.runs_by_id([("main", "all")])) == ([full_run], [full_run]), other
        assert (s.tasks([(3, 1)]), s.events([("main", "e")])) == ([full_task], [full_event])
        assert (s.pools([("main", "q")]), s.manifests(["main", "b"])) == ([rate], [manifest])
        assert s.requests([("main", "k")]) == [request]


def test_odd_ids_are_found_and_only_they(session: Session) -> None:
    rows = [run(no, name, scope=name[:64], pool=name[:64], pool_key=name) for no, name in enumerate(ODD, 1)]
    fields = [{"scope": name[:64], "pool": name[:64], "pool_key": name, "state": "leased"} for name in ODD]
    fill(session, *rows, *(task(no, 1, **given) for no, given in enumerate(fields, 1)))
    fill(session, *(event(no, name, scope=name[:64]) for no, name in enumerate(ODD, 1)))
    fill(session, *(Request("main", name, "h", name, 1) for name in ODD))
    with loading(session) as s:
        for no, name in enumerate(ODD, 1):
            assert [row.no for row in s.runs_by_id([(name[:64], name)])] == [no]
            assert [row.no for row in s.events([(name[:64], name)])] == [no]
            assert [row.reply for row in s.requests([("main", name)])] == [name]
            assert s.leased_counts([(name[:64], name[:64], name), (name[:64], name[:64], name + "x")]) == [1, 0]
        assert len(s.runs_by_id([(name[:64], name) for name in ODD])) == len(ODD)
        assert s.runs_by_id([("", name) for name in ODD]) == []


def test_tasks_of_the_longest_journal_are_not_taken_for_those_of_the_next_run(store: Store, session: Session) -> None:
    """Stores pack the run and the number of a task, which is that of an entry, into one."""
    last = RANGES["journal_entries"][1]
    fill(session, task(2, 1), task(2, last), task(3, 1))
    with loading(session) as s:
        assert sorted((one.run_no, one.k) for one in s.open_tasks([2])) == [(2, 1), (2, last)]
    assert [one.k for one in look(store, lambda reader: reader.tasks_of(2))] == [1, last]


def test_open_tasks_and_children_of_runs(session: Session) -> None:
    states = [task(1, k, state=state) for k, state in enumerate(TASK_STATES, 1)]
    kids = [run(no, status=status, parent_no=1) for no, status in enumerate(STATUSES, 10)]
    for kid in kids:
        kid.ended_at = NOW if kid.terminal else None
    fill(session, run(1), run(2), *states, task(2), *kids, run(30, parent_no=2), run(31))
    with loading(session) as s:
        assert sorted(row.state for row in s.open_tasks([1])) == sorted(set(TASK_STATES) - {"done"})
        assert sorted({row.run_no for row in s.open_tasks([1, 2, 3])}) == [1, 2]
        assert s.children([1]) == [(1, no) for no in (10, 11, 12, 13)]
        assert sorted(s.children([1, 2])) == [*s.children([1]), (2, 30)]


def test_runs_of_an_event_in_the_order_they_were_made(session: Session) -> None:
    fill(session, event(1), event(2), run(3, event_no=1), run(1, event_no=2), run(4, event_no=1), run(2, event_no=1))
    with loading(session) as s:
        assert s.event_runs([1]) == [(1, "r2"), (1, "r3"), (1, "r4")]
        assert s.event_runs([2, 1, 9]) == [(2, "r1"), (1, "r2"), (1, "r3"), (1, "r4")]


def test_meta_holds_revisions_and_floors(session: Session) -> None:
    with writing(session) as unit:
        unit.revisions.put("main", 3)
        unit.floors.put("main", 7)
        unit.floors.put("b:c", 8)
    with loading(session) as s:
        assert sorted(s.meta(["floor:main", "revision:main", "floor:b:c", "x"])) == [
            ("floor:b:c", 8),
            ("floor:main", 7),
            ("revision:main", 3),
        ]


def test_ready_tasks_by_group_priority_and_order(session: Session) -> None:
    fill(
        session,
        task(1, 1, priority=1, order=1),
        task(2, 1, priority=0, order=9),
        task(3, 1, priority=0, order=2),
        task(4, 2, priority=0, order=2),
        task(4, 1, priority=0, order=2),
        task(5, 1, priority=-3, order=50),
        task(6, 1, state="due", due_at=1),
        task(7, 1, requires="gpu"),
        task(8, 1, scope="b"),
        task(9, 1, pool="q"),
    )
    with loading(session) as s:
        assert [(row.run_no, row.k) for row in s.ready({("p", "", "main"): 10})] == [
            (5, 1),
            (3, 1),
            (4, 1),
            (4, 2),
            (2, 1),
            (1, 1),
        ]
        assert [row.run_no for row in s.ready({("p", "", "main"): 2})] == [5, 3]
        some = s.ready({("p", "", "main"): 1, ("p", "", "b"): 3, ("none", "", "main"): 1, ("q", "", "main"): 9})
        assert sorted(row.run_no for row in some) == [5, 8, 9]
        assert s.ready({}) == []
        everything = [("p", "", "b"), ("p", "", "main"), ("p", "gpu", "main"), ("q", "", "main")]
        assert s.ready_groups([]) == everything
        assert s.ready_groups(["p"]) == everything[:3]
        assert s.ready_groups(["q", "p", "none"]) == everything
        assert (s.any_ready("b", "p"), s.any_ready("b", "q"), s.any_ready("main", "q")) == (True, False, True)


def test_the_first_ready_task_of_a_key_is_found_behind_any_number_of_others(session: Session) -> None:
    big = [task(no, 1, pool_key="big", order=no) for no in range(1, 40)]
    few = [task(100 + no, 1, pool_key=key, order=100 - no) for no, key in enumerate("abca")]
    fill(
        session,
        *big,
        *few,
        task(200),
        task(201, 1, pool_key="b", requires="gpu"),
        task(202, 1, pool_key="z", scope="b"),
        *(task(300 + no, 1, pool_key=key, state="leased") for no, key in enumerate(("b", "b", "big"))),
        task(310, 1, pool_key="a", state="leased", scope="b"),
    )
    with loading(session) as s:
        of_main, of_gpu, of_none = ("p", "", "main"), ("p", "gpu", "main"), ("q", "", "main")
        assert s.ready_keys([of_main, of_gpu, of_none]) == {
            of_main: {"a": 0, "b": 2, "big": 1, "c": 0},
            of_gpu: {"b": 2},
            of_none: {},
        }
        assert s.ready_keys([]) == {}
        no_first = {of_main: Share(0, {"a": 1, "b": 5, "none": 1, "big": 2}, 9)}
        assert [row.run_no for row in s.ready_shares(no_first)] == [1, 2, 103, 101]
        assert [row.run_no for row in s.ready_shares({of_main: Share(0, {"a": 2, "c": 1}, 2)})] == [103, 102]
        both = {of_main: Share(2, {"big": 3, "c": 1}, 3), of_gpu: Share(2, {}, 9), of_none: Share(2, {"b": 1}, 9)}
        assert sorted(row.run_no for row in s.ready_shares(both)) == [1, 2, 3, 200, 201]
        assert s.ready_shares({}) == []


def test_of_very_many_keys_each_look_takes_others_in_turn(session: Session) -> None:
    fill(session, *(task(no, 1, pool_key=f"k{no:04}") for no in range(1, 501)))
    with loading(session) as s:
        group = ("p", "", "main")
        looks = [s.ready_keys([group])[group] for _ in range(3)]
        assert set().union(*looks) == {f"k{no:04}" for no in range(1, 501)}
        assert max(map(len, looks)) < 500 or looks[0] == looks[1]


def test_leases_are_counted_by_pool_and_key(session: Session) -> None:
    keyed = [task(no, 1, state="leased", pool_key=key) for no, key in enumerate(("a", "a", "b", None), 1)]
    fill(session, *keyed, task(9, pool_key="a"), task(10, 1, state="leased", scope="b", pool_key="a"))
    with loading(session) as s:
        assert s.leased_counts([("main", "p", key) for key in (None, "a", "b", "c")]) == [4, 2, 1, 0]
        assert s.leased_counts([("b", "p", None)]) == [1]
        assert s.leased_counts([]) == []


def test_time_finds_what_has_expired_or_is_due(session: Session) -> None:
    leased = [task(no, 1, state="leased", lease_until=NOW + at) for no, at in enumerate((5, 0, -1, -1, -9), 1)]
    due = [task(no, 1, state="due", due_at=NOW + at) for no, at in enumerate((1, 0, -1, -1), 11)]
    fill(session, *leased, *due)
    with loading(session) as s:
        assert [row.run_no for row in s.expired(NOW, 10)] == [5, 3, 4]
        assert [row.run_no for row in s.expired(NOW, 2)] == [5, 3]
        assert [row.run_no for row in s.due(NOW, 10)] == [13, 14, 12]
        assert [row.run_no for row in s.due(NOW, 1)] == [13]


def test_what_a_worker_holds_is_found_but_for_steps_of_flows(session: Session) -> None:
    leased = [
        task(no, 1, state="leased", worker=worker, lease_until=NOW - no, kind=kind)
        for no, (worker, kind) in enumerate((("w", "turn"), ("v", "turn"), ("w", "action"), ("w", "step")), 1)
    ]
    fill(session, *leased, task(9))
    with loading(session) as s:
        assert [row.run_no for row in s.leased_by("w", 10)] == [3, 1]
        assert [row.run_no for row in s.leased_by("w", 1)] == [3]
        assert s.leased_by("nobody", 10) == []


def test_overdue_runs_are_past_a_deadline_or_a_cancel_that_a_lease_ignores(session: Session) -> None:
    asked = NOW - 50
    runs = [
        run(1, deadline=NOW),
        run(2, deadline=NOW + 1),
        run(3, deadline=NOW - 1, status="failed", ended_at=NOW),
        run(4, cancel_at=asked),
        run(5, cancel_at=asked),
        run(6, cancel_at=asked),
        run(7, cancel_at=NOW - 10),
        run(8, cancel_at=asked, status="canceled", ended_at=NOW),
        run(9, cancel_at=asked, updated_at=NOW - 40),
        run(10, cancel_at=asked, updated_at=NOW - 10),
        run(11, cancel_at=asked, updated_at=NOW - 40),
        run(12, cancel_at=asked, updated_at=NOW - 40),
    ]
    late = {4: NOW - 50, 5: NOW - 10, 7: NOW - 90}
    rests = {9: "parked", 10: "parked", 11: "due", 12: "due"}
    tasks = [
        task(
            row.no,
            1,
            state=rests.get(row.no, "leased" if row.no in late else "ready"),
            leased_at=late.get(row.no),
            due_at=NOW if rests.get(row.no) == "due" else None,
            due_key="t#1" if row.no == 11 else None,  # 12 is given back for a while: it may not know
        )
        for row in runs
    ]
    fill(session, *runs, *tasks)
    with loading(session) as s:
        assert [row.no for row in s.overdue(NOW, NOW - 30, 10)] == [1, 4, 9, 11]
        assert [row.no for row in s.overdue(NOW, NOW - 10, 10)] == [1, 4, 5, 7, 9, 10, 11]
        assert [row.no for row in s.overdue(NOW, NOW - 10, 1)] == [1]


def looked_at(session: Session, *batch: c.Command) -> Counter[str]:
    """How many ready tasks of each pool a batch would load."""
    unit = Unit(Settings())
    with loading(session) as s:
        load(s, unit, need_of(batch)[0], NOW)
    return Counter(one.pool for one in unit.tasks.rows.values() if one.state == "ready")


def test_a_claim_looks_at_no_more_tasks_than_their_pools_let_be_leased(session: Session) -> None:
    """Whoever is looked at is locked: a thousand that wait for a slot cost nobody anything."""
    pools = {
        "full": Pool("main", "full", limit=1),
        "paused": Pool("main", "paused", limit=9, paused=True),
        "slow": Pool("main", "slow", rate=10, tokens=0.5, refilled_at=NOW),
        "some": Pool("main", "some", limit=9, rate=10, tokens=2.5, refilled_at=NOW),
        "few": Pool("main", "few", limit=4, key_limit=9),
    }
    places = [*pools, "free"]
    ready = [task(10 * place + n, pool=pool) for place, pool in enumerate(places) for n in range(1, 9)]
    leased = [task(100 + n, pool="few" if n else "full", state="leased") for n in range(3)]
    fill(session, *pools.values(), *ready, *leased)

    claim = c.Claim("w", "secret", limit=50)
    assert looked_at(session, claim) == {"some": 2, "few": 8, "free": 8}  # of keys, all are looked at: some may be full
    assert looked_at(session, claim, c.Finish(c.Lease(100, 1, 1, "t"), 1, c.Completed("1")))["full"] == 1
    assert looked_at(session, claim, c.SetPool(Pool("main", "full", limit=2)))["full"] == 8


def test_a_claim_looks_at_few_tasks_where_some_have_to_be_moved_aside(session: Session) -> None:
    """One of many keys is full, and has most of what is ready; without it, a claim gets what it asks for."""
    fill(session, Pool("main", "keyed", key_limit=2), task(1, pool="keyed", pool_key="big", state="leased"))
    fill(session, *(task(100 + n, pool="keyed", pool_key=f"k{n}", order=5) for n in range(150)))
    assert looked_at(session, c.Claim("w", "secret", limit=140)) == {"keyed": 140}
    fill(session, *(task(1_000 + n, pool="keyed", pool_key="big", order=1) for n in range(500)))
    assert looked_at(session, c.Claim("w", "secret", limit=140)) == {"keyed": 140 + MOVED_ASIDE - 1}


def test_blocked_tasks_by_key(session: Session) -> None:
    order = {1: ("b", 5), 2: ("a", 5), 3: ("a", 1), 4: ("a", 5)}
    fill(session, *(task(no, 1, state="blocked", pool_key=key, order=at) for no, (key, at) in order.items()), task(9))
    fill(session, task(5, 1, state="blocked", pool="q", pool_key="z", scope="b"))
    with loading(session) as s:
        assert s.blocked_keys(("", "", ""), 10) == [("b", "q", "z"), ("main", "p", "a"), ("main", "p", "b")]
        assert s.blocked_keys(("", "", ""), 2) == [("b", "q", "z"), ("main", "p", "a")]
        assert s.blocked_keys(("main", "p", "a"), 2) == [("main", "p", "b")]
        assert [row.run_no for row in s.blocked({("main", "p", "a"): 10})] == [3, 2, 4]
        assert [row.run_no for row in s.blocked({("main", "p", "a"): 1})] == [3]
        assert s.blocked({("main", "q", "z"): 5}) == s.blocked({}) == []
        some = s.blocked({("main", "p", "b"): 3, ("main", "p", "a"): 2, ("b", "q", "z"): 1, ("main", "p", "none"): 1})
        assert [row.run_no for row in some] == [1, 3, 2, 5]
        every = s.blocked({("main", "p", "a"): 3, ("main", "p", "b"): 1})
        keys = [("main", "p", "b"), ("main", "p", "a"), ("main", "p", "none")]
        assert s.blocked_besides(keys, every[1:]) == [("main", "p", "a")]
        assert s.blocked_besides(keys, every) == s.blocked_besides([], []) == []
        assert s.blocked_besides(keys, []) == keys[:2]


def test_messages_come_in_the_order_they_were_sent(session: Session) -> None:
    sent = [Message(0, "main", to, 9, 1, "cancel", f"k{i}", NOW, "{}") for i, to in enumerate((5, 4, 5))]
    fill(session, *sent)
    with loading(session) as s:
        found, left_out = s.messages(10)
        assert [row.key for row in found] == ["k0", "k1", "k2"]
        assert all(before.no < after.no for before, after in pairwise(found))
        assert not left_out
        assert len(s.messages(2)[0]) == 2
    with writing(session) as unit:
        unit.delivered.append(found[1].no)
    with loading(session) as s:
        assert [row.key for row in s.messages(10)[0]] == ["k0", "k2"]


def test_retention_finds_the_oldest_and_only_what_may_go(session: Session) -> None:
    ended = [run(no, status="failed", ended_at=NOW + at) for no, at in enumerate((-1, -5, 0, -3), 1)]
    fill(
        session,
        *ended,
        run(9),
        event(1),
        event(2),
        event(3, created_at=NOW - 5),
        event(4, created_at=NOW - 9, matched=1),
    )
    fill(session, run(10, event_no=4), *(Request("main", f"k{at}", "h", "1", NOW + at) for at in (-1, 0, -2)))
    with loading(session) as s:
        assert [row.no for row in s.prunable_runs(NOW, 10)] == [2, 4, 1]
        assert [row.no for row in s.prunable_runs(NOW, 1)] == [2]
        assert [row.no for row in s.prunable_events(NOW, [], 10)] == [3]
        assert [row.no for row in s.prunable_events(NOW, s.runs([10]), 10)] == [3, 4]
        assert [row.no for row in s.prunable_events(NOW, s.runs([10]), 0)] == [4], "their last chance"
        assert [row.key for row in s.prunable_requests(NOW, 10)] == ["k-2", "k-1"]
        assert [row.key for row in s.prunable_requests(NOW, 1)] == ["k-2"]


def test_late_tasks_are_open_ones_past_their_deadline_in_its_order(session: Session) -> None:
    states = [{"state": state, "deadline": 10 + k} for k, state in enumerate(TASK_STATES, 1)]
    leased = {"worker": "w", "lease_until": 99, "token_hash": "t"}
    tasks = [
        task(1, k, **{**fields, **(leased if fields["state"] == "leased" else {})})
        for k, fields in enumerate(states, 1)
    ]
    fill(session, run(1), *tasks, task(1, 20), task(1, 21, deadline=5), task(1, 22, deadline=99))
    open_ = [one.k for one in tasks if one.state != "done"]
    with loading(session) as s:
        assert [one.k for one in s.late(17, 100)] == [21, *open_]
        assert [one.k for one in s.late(17, 2)] == [21, open_[0]]
        assert [one.k for one in s.late(4, 100)] == []


def test_entries_of_some_kinds_come_in_full_and_with_all_restarts(session: Session) -> None:
    kinds = ("action.scheduled", "step.completed", "action.scheduled", "run.restarted", "action.scheduled")
    rows = [entry(1, seq, kind, data="@d" if seq == 1 else "{}") for seq, kind in enumerate(kinds, 1)]
    fill(
        session, run(1), run(2), *rows, entry(2, 1, "action.scheduled"), Blob(1, 0, "d", "large"), Blob(2, 0, "d", "no")
    )
    with loading(session) as s:
        found = s.entries_of(1, ["action.scheduled", "run.restarted"], 3)
        assert [(one.seq, one.data) for one in found] == [(1, "large"), (3, "{}"), (4, "{}")]
        assert [one.data for one in s.blobs([(1, "d"), (1, "e"), (3, "d")])] == ["large"]
