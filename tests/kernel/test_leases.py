"""Leases: who gets what, in which order; fences, heartbeats, lost leases, poison (laws 3 and 4)."""

import pytest

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionScheduled, StepCompleted
from stepwell.model.ids import lease_token
from tests.support import Bench
from tests.support.bench import LEASE_MS


def ids(leased: list[c.Leased]) -> list[str]:
    return [one.run.id for one in leased]


def test_a_claim_leases_by_priority_and_then_by_order(bench: Bench) -> None:
    for name, priority in (("b", 5), ("c", 5), ("a", 9), ("first", -1)):
        bench.clock.tick(1)
        bench.start(name, priority=priority)
    claimed = bench.do(c.Claim("w", "s", limit=3))
    assert (ids(claimed.tasks), claimed.more) == (["first", "b", "c"], True)
    claimed = bench.do(c.Claim("w", "t", limit=3))
    assert (ids(claimed.tasks), claimed.more) == (["a"], False)
    assert bench.do(c.Claim("w", "u")) == c.Claimed([], bench.clock.now)


def test_who_was_given_back_goes_to_the_end(bench: Bench) -> None:
    first = bench.turn("first").lease
    bench.clock.tick(1)
    bench.start("second")
    bench.clock.tick(1)
    bench.do(c.Release(first, 1))
    assert ids(bench.claim()) == ["second", "first"]


def test_a_claim_takes_what_it_asks_for(bench: Bench) -> None:
    bench.start("plain")
    bench.start("gpu", requires="workflow:wf", pool="g")
    bench.start("far", scope="b")
    assert ids(bench.claim(requires=("none",))) == []
    assert ids(bench.claim(requires=("workflow:wf",), pools=("default",))) == []
    assert ids(bench.claim(requires=("workflow:wf",), pools=("default", "g"))) == ["gpu"]
    assert ids(bench.claim(scope="b")) == ["far"]
    assert ids(bench.claim(scope="c")) == []
    assert ids(bench.claim(requires=("",))) == ["plain"]


def test_scopes_take_turns_however_much_one_of_them_has(bench: Bench) -> None:
    for i in range(20):
        bench.start(f"big{i}", scope="big", priority=-5)
    for i in range(3):
        bench.start(f"small{i}", scope="small", priority=5)
    first = [one.run.scope for one in bench.claim(limit=6)]
    assert sorted(first) == ["big"] * 3 + ["small"] * 3


@pytest.mark.parametrize("between", [0, 1, 2, 3])
def test_claims_one_by_one_are_fair_to_scopes_whatever_comes_between(bench: Bench, between: int) -> None:
    for i in range(20):
        bench.start(f"a{i}", scope="a", priority=-5)
        bench.start(f"b{i}", scope="b")
    firsts = []
    for i in range(16):
        firsts += [one.run.scope for one in bench.claim(limit=1)]
        for k in range(between):
            bench.start(f"more{i}.{k}", scope="c", pool="elsewhere", due_at=bench.clock.now + 1)
    assert 2 <= firsts.count("a") <= 14


def test_the_same_request_gets_the_same_leases_and_tokens(bench: Bench) -> None:
    bench.start("a")
    bench.start("b")
    first = bench.do(c.Claim("w", "secret", limit=1))
    again = bench.do(c.Claim("w", "secret", limit=1))
    assert [one.lease for one in again.tasks] == [one.lease for one in first.tasks]
    (task,) = first.tasks
    assert task.lease.token == lease_token("secret", task.run.no, task.lease.k, 1)
    assert task.lease.token not in str(bench.tasks("a"))
    twice = bench.all(c.Claim("w", "new", limit=5), c.Claim("w", "new", limit=5))
    assert ids(twice[0].tasks) == ids(twice[1].tasks) == ["b"]
    assert bench.journal("b")[-1].seq == 2
    bench.do(c.Finish(task.lease, 1, c.Completed()))
    assert bench.do(c.Claim("w", "secret", limit=1)).tasks == []


@pytest.mark.parametrize(
    "bad",
    [
        c.Claim("w", "s", limit=0),
        c.Claim("w", "s", limit=1_001),
        c.Claim("w", "s", lease_ms=999),
        c.Claim("w", "s", lease_ms=1_800_001),
        c.Claim("", "s"),
        c.Claim("w", ""),
        c.Claim("a\nb", "s"),
    ],
)
def test_a_claim_out_of_bounds_is_invalid(bench: Bench, bad: c.Claim) -> None:
    bench.start()
    bench.refused(bad, errors.Invalid)
    assert bench.task().state == "ready"


def test_of_two_workers_the_later_lease_writes_and_the_earlier_is_stale(bench: Bench) -> None:
    first = bench.turn().lease
    bench.clock.tick(LEASE_MS + 1)
    bench.do(c.Sweep())
    (second,) = bench.claim(worker="w2")
    assert second.lease.epoch == first.epoch + 1
    drafts = (c.Draft(StepCompleted(), "s"),)
    for command in (
        c.Record(first, 1, 9, drafts),
        c.Park(first, 1, 9, ("signal:x",)),
        c.Finish(first, 1, c.Completed()),
        c.Fail(first, 1, "{}"),
        c.Release(first, 1),
        c.Say(first, 0, (("stdout", "x"),)),
        c.Record(c.Lease(first.run_no, first.k, second.lease.epoch, "guess"), 1, 9, drafts),
    ):
        bench.refused(command, errors.Stale)
    assert bench.do(c.Sync("w", (c.Beat(first),))).tasks[0].error == "stale"
    assert bench.run().head_seq == 4
    bench.record(second.lease, 1, StepCompleted())


def test_a_lease_of_nothing_is_unknown(bench: Bench) -> None:
    bench.turn()
    for lease in (c.Lease(99, 1, 1, "t"), c.Lease(1, 7, 1, "t"), c.Lease(-1, 0, 0, "")):
        bench.refused(c.Finish(lease, 1, c.Completed()), errors.Unknown)
        bench.refused(c.Say(lease, 0, ()), errors.Unknown)
        assert bench.do(c.Sync("w", (c.Beat(lease),))).tasks[0].error == "unknown"


def test_sync_extends_and_never_shortens_and_answers_each(bench: Bench) -> None:
    one, two = bench.turn("one"), bench.turn("two")
    bench.do(c.Terminate("two"))
    bench.clock.tick(1_000)
    beats = (c.Beat(one.lease, one.seen, '{"at":5}'), c.Beat(two.lease), c.Beat(one.lease))
    synced = bench.do(c.Sync("w", beats, lease_ms=LEASE_MS)).tasks
    assert [(one.error, one.lease_until) for one in synced] == [
        (None, bench.clock.now + LEASE_MS),
        ("ended", 0),
        (None, bench.clock.now + LEASE_MS),
    ]
    assert bench.do(c.Sync("w", beats, lease_ms=1_000)).tasks[0].lease_until == bench.clock.now + LEASE_MS
    bench.clock.tick(LEASE_MS)
    bench.do(c.Sweep())
    assert bench.task("one").state == "leased"
    bench.do(c.Release(one.lease, 1))
    assert [task.details for task in bench.claim()] == ['{"at":5}']


def test_a_lost_lease_is_free_after_its_end_and_an_entry_says_so(bench: Bench) -> None:
    bench.turn()
    bench.clock.tick(LEASE_MS)
    bench.do(c.Sweep())
    assert bench.task().state == "leased"
    bench.clock.tick(1)
    assert bench.do(c.Sweep()) == c.Worked(1, more=False)
    assert bench.task().state == "ready"
    assert '"reason":"expired"' in bench.journal()[-1].data
    assert bench.do(c.Sweep()).count == 0


def test_the_sweep_takes_all_expired_leases_of_every_kind_and_run(bench: Bench) -> None:
    for i in range(12):
        bench.start(f"r{i}")
    lease = bench.turn("owner", pool="own").lease
    bench.record(lease, 1, *(ActionScheduled("m:f") for _ in range(3)))
    assert len(bench.claim()) == 15
    bench.clock.tick(LEASE_MS + 1)
    assert bench.do(c.Sweep(limit=10)) == c.Worked(10, more=True)
    assert bench.do(c.Sweep(limit=10)) == c.Worked(6, more=False)
    with bench.reader() as reader:
        assert reader.counts() == {"run.queued": 13, "task.ready": 16}


def test_what_a_dead_worker_held_is_free_at_once_and_what_others_hold_is_not(bench: Bench) -> None:
    bench.start("mine")
    bench.claim(worker="dead")
    lease = bench.turn("others").lease
    bench.record(lease, 1, ActionScheduled("m:f"))
    bench.claim(worker="dead")
    bench.clock.tick(5)
    assert bench.do(c.Bury("dead")) == c.Worked(2, more=False)
    assert [bench.task(name).state for name in ("mine", "others")] == ["ready", "leased"]
    assert [task.state for task in bench.tasks("others")] == ["leased", "ready"]
    last = bench.journal("mine")[-1]
    assert (last.kind, last.at) == ("attempt.ended", bench.clock.now)
    assert '"reason":"expired"' in last.data
    assert [bench.task("mine").lost, bench.task("others").lost] == [1, 0]
    before = bench.commits[-1]
    assert bench.do(c.Bury("dead")) == c.Worked(0, more=False)
    assert bench.commits[-1] is before, "nothing is committed where nothing is left"
    assert len(bench.claim()) == 2


def test_a_burial_is_bounded_and_goes_on(bench: Bench) -> None:
    for i in range(5):
        bench.start(f"r{i}")
    bench.claim(worker="dead")
    replies = [bench.do(c.Bury("dead", limit=2)) for _ in range(3)]
    assert replies == [c.Worked(2, more=True), c.Worked(2, more=True), c.Worked(1, more=False)]
    for bad in (c.Bury(""), c.Bury("a\nb"), c.Bury("w", limit=0), c.Bury("w", limit=1_001)):
        bench.refused(bad, errors.Invalid)


def test_a_step_of_a_flow_outlives_its_worker_until_its_lease_ends(bench: Bench) -> None:
    """Its process may, and two attempts must not overlap."""
    bench.do(c.AcceptEvent(c.NewEvent("e", "t", "2026", "h"), (c.Match("f", "s"),)))
    (step,) = bench.claim(worker="dead")
    assert bench.do(c.Bury("dead")).count == 0
    assert bench.task(step.run.id).state == "leased"
    bench.clock.tick(LEASE_MS + 1)
    assert bench.do(c.Sweep()).count == 1


def test_workers_that_die_on_it_in_a_row_poison_a_run(bench: Bench) -> None:
    bench.start()
    states = []
    for _ in range(5):
        while not bench.claim(worker="dead"):
            bench.clock.tick(5_000)
            bench.do(c.Fire())
        bench.do(c.Bury("dead"))
        states.append(bench.task().state)
    assert states == ["ready", "due", "due", "due", "held"]
    assert bench.run().hold == "poison"


def lose(bench: Bench, times: int) -> None:
    for _ in range(times):
        while not bench.claim():
            bench.clock.tick(5_000)
            bench.do(c.Fire())
        bench.clock.tick(LEASE_MS + 1)
        bench.do(c.Sweep())


def test_leases_lost_in_a_row_back_off_and_then_hold_as_poison(bench: Bench) -> None:
    bench.start()
    lose(bench, 1)
    assert bench.task().state == "ready"
    waits = []
    for _ in range(3):
        lose(bench, 1)
        task = bench.task()
        assert task.state == "due"
        waits.append((task.due_at or 0) - bench.clock.now)
    assert waits == sorted(waits)
    assert 500 <= waits[0] < 1_500
    lose(bench, 1)
    run = bench.run()
    assert (run.hold, run.status, bench.task().state, run.needs_attention) == ("poison", "waiting", "held", True)
    bench.do(c.ReleaseRun("r"))
    assert (bench.task().lost, bench.task().state) == (0, "ready")


def test_a_lease_that_wrote_something_is_not_poisonous(bench: Bench) -> None:
    bench.start()
    for i in range(8):
        lose(bench, 0)
        (task,) = bench.claim()
        bench.record(task.lease, 1, StepCompleted(), key=f"s{i}")
        bench.clock.tick(LEASE_MS + 1)
        bench.do(c.Sweep())
    assert (bench.run().hold, bench.task().state) == (None, "ready")


@pytest.mark.parametrize("ending", ["park", "fail"])
def test_a_lease_that_came_to_an_end_starts_the_count_again(bench: Bench, ending: str) -> None:
    bench.do(c.AcceptEvent(c.NewEvent("e", "t", "2026", "h"), (c.Match("f", "s", retry='{"max_attempts":9}'),)))
    if ending == "park":
        bench.do(c.Terminate(bench.claim()[0].run.id))
        bench.start()
    lose(bench, 4)
    while not (claimed := bench.claim()):
        bench.clock.tick(5_000)
        bench.do(c.Fire())
    (task,) = claimed
    if ending == "park":
        bench.do(c.Park(task.lease, 1, 99, ("signal:s",)))
        bench.do(c.Signal("r", "s"))
    else:
        bench.do(c.Fail(task.lease, 1, "{}"))
    lose(bench, 1)
    assert bench.run(task.run.id).hold is None
    assert bench.task(task.run.id).lost == 1


def test_a_poisonous_action_holds_its_run(bench: Bench) -> None:
    turn = bench.turn()
    head = bench.record(turn.lease, 1, ActionScheduled("m:f")).head
    bench.do(c.Park(turn.lease, 2, head, ("action:k",)))
    lose(bench, 5)
    assert bench.run().hold == "poison"
    assert [task.state for task in bench.tasks()] == ["held", "held"]


def test_release_counts_as_no_failure_and_may_wait(bench: Bench) -> None:
    task = bench.turn()
    done = bench.do(c.Release(task.lease, 1, delay_ms=500))
    assert (done.state, done.next_at) == ("due", bench.clock.now + 500)
    bench.clock.tick(500)
    bench.do(c.Fire())
    (again,) = bench.claim()
    assert (again.attempt, again.failures, bench.task().lost) == (2, 0, 0)


def test_a_claim_brings_the_journal_to_whom_it_is_news(bench: Bench) -> None:
    task = bench.turn()
    assert task.journal == []
    bench.record(task.lease, 1, StepCompleted())
    bench.do(c.Release(task.lease, 2))
    (again,) = bench.claim()
    assert [entry.seq for entry in again.journal] == [1, 2, 3, 4, 5]
    assert again.seen == again.run.head_seq == 5


def test_details_that_are_too_large_cost_no_lease_its_time(bench: Bench) -> None:
    leases = [bench.turn(name).lease for name in ("a", "b", "c")]
    bench.clock.tick(1_000)
    big = '"' + "x" * bench.settings.payload_bytes + '"'
    beats = tuple(c.Beat(lease, details=details) for lease, details in zip(leases, ('"1"', big, '"3"'), strict=True))
    synced = bench.do(c.Sync("w", beats)).tasks
    assert [one.lease_until for one in synced] == [bench.clock.now + LEASE_MS] * 3
    assert [bool(one.dropped) for one in synced] == [False, True, False]
    assert [bench.task(name).details for name in ("a", "b", "c")] == ['"1"', None, '"3"']


def test_a_fused_start_repeated_with_its_secret_gets_its_lease_again(bench: Bench) -> None:
    start = c.StartRun("r", "wf", claim_for=c.ClaimFor("w", LEASE_MS, "secret"))
    first = bench.do(start).claim
    again = bench.do(start)
    assert (again.created, again.claim.lease, again.claim.attempt) == (False, first.lease, 1)
    assert bench.do(c.StartRun("r", "wf", claim_for=c.ClaimFor("w", LEASE_MS, "other"))).claim is None
    assert bench.do(c.StartRun("r", "wf")).claim is None
    assert bench.kinds() == ["run.created", "attempt.started"]
    bench.do(c.Release(first.lease, 1))
    assert bench.do(start).claim is None, "it is over"


def test_a_heartbeat_that_gains_little_writes_nothing(bench: Bench) -> None:
    lease = bench.turn().lease
    before = bench.task().lease_until
    bench.clock.tick(LEASE_MS // 10)
    (told,) = bench.do(c.Sync("w", (c.Beat(lease),), LEASE_MS)).tasks
    assert (told.lease_until, bench.task().lease_until) == (before, before)
    bench.clock.tick(LEASE_MS // 10)
    (told,) = bench.do(c.Sync("w", (c.Beat(lease),), LEASE_MS)).tasks
    assert told.lease_until == bench.task().lease_until == bench.clock.now + LEASE_MS


def test_a_claim_brings_a_bounded_number_of_entries(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.kernel.leases.MAX_ENTRIES", 30)
    for lease in [bench.turn(name).lease for name in ("a", "b", "c")]:
        bench.record(lease, 1, *[StepCompleted() for _ in range(20)])
        bench.do(c.Release(lease, 2))
    assert [len(bench.claim()), len(bench.claim())] == [2, 1]
