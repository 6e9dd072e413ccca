"""The two state machines as one table: each command in each state, what comes of it, or the refusal."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import msgspec
import pytest

from stepwell.kernel.tasks import move
from stepwell.kernel.unit import Unit
from stepwell.model import commands as c
from stepwell.model.entries import StepCompleted, raw
from stepwell.model.errors import Internal, StepwellError
from stepwell.model.rows import Pool, Task
from stepwell.model.settings import Settings
from stepwell.model.words import TASK_STATES, TaskState
from stepwell.store.memory import MemoryStore
from tests.support import Bench, assert_lawful, snapshot

HOUR = 3_600_000
OPEN = ("ready", "leased", "parked", "due", "blocked", "held")
ENDED = ("completed", "failed", "canceled")

#: command: (state after it in each open state, for the ended ones). A word that is no state is the refusal.
TABLE: dict[str, tuple[str, str]] = {
    #            ready   leased parked  due     blocked held  | completed, failed, canceled
    "claim": ("   leased leased parked  due     blocked held", "done"),
    "record": ("  stale  leased stale   stale   stale   stale", "ended"),
    "park": ("    stale  parked stale   stale   stale   stale", "ended"),
    "sleep": ("   stale  due    stale   stale   stale   stale", "ended"),
    "finish": ("  stale  done   stale   stale   stale   stale", "ended"),
    "fail": ("    stale  done   stale   stale   stale   stale", "ended"),
    "release": (" stale  ready  stale   stale   stale   stale", "ended"),
    "later": ("   stale  due    stale   stale   stale   stale", "ended"),
    "say": ("     stale  leased stale   stale   stale   stale", "ended"),
    "sync": ("    stale  leased stale   stale   stale   stale", "ended"),
    "hold": ("    held   held   held    held    held    held", "ended"),
    "free": ("    ready  leased parked  due     blocked ready", "ended"),
    "signal": ("  ready  leased ready   ready   blocked held", "ended"),
    "cancel": ("  ready  leased ready   ready   blocked ready", "ended"),
    "terminate": ("done  done   done    done    done    done", "ended"),
    "restart": (" open   open   open    open    open    open", "ready"),
    "start": ("   ready  leased parked  due     blocked held", "done"),
    "replace": (" ready  ready  ready   ready   ready   ready", "ready"),
    "sweep": ("   ready  ready  parked  due     ready   held", "done"),
    "bury": ("    ready  ready  parked  due     ready   held", "done"),
    "fire": ("    ready  leased parked  ready   blocked held", "done"),
    "promote": (" ready  leased parked  due     blocked held", "done"),
}
CELLS = [
    (state, command, expected)
    for command, (row, ended) in TABLE.items()
    for state, expected in [*zip(OPEN, row.split(), strict=True), *((end, ended) for end in ENDED)]
]
STATUS_OF = {"ready": "queued", "blocked": "queued", "leased": "running", "parked": "waiting", "held": "waiting"}
STATUS_AFTER = {"finish": "completed", "fail": "failed", "terminate": "canceled"}


def in_state(bench: Bench, state: str) -> c.Lease:
    """Brings run r there; answers its last lease, whose next write is number 1."""
    lease = bench.turn(pool_key="k").lease
    if state in ("ready", "blocked"):
        bench.start("other", pool_key="k")
        bench.do(c.SetPool(Pool("main", "default", key_limit=1)))
        bench.clock.tick(1)
        bench.do(c.Release(lease, 1))
    if state == "blocked":
        assert [one.run.id for one in bench.claim()] == ["other"]
    elif state == "ready":
        bench.do(c.Terminate("other"))
    elif state == "parked":
        bench.do(c.Park(lease, 1, 10, ("signal:go",)))
    elif state == "due":
        bench.do(c.Park(lease, 1, 10, ("timer:t",), bench.clock.now + HOUR, "t"))
    elif state == "held":
        bench.do(c.HoldRun("r"))
    elif state in ENDED:
        end(bench, lease, state)
    return lease


def end(bench: Bench, lease: c.Lease, status: str) -> None:
    how: dict[str, c.Command] = {
        "completed": c.Finish(lease, 1, c.Completed()),
        "failed": c.Fail(lease, 1, "{}"),
        "canceled": c.Terminate("r"),
    }
    bench.do(how[status])


def commands(bench: Bench, lease: c.Lease, n: int) -> dict[str, Callable[[], c.Command]]:
    """Every command of the table; those that look at the clock are made when it is time."""
    tick, result = bench.clock.tick, StepCompleted(raw("1"))
    return {
        "claim": lambda: c.Claim("w", "again", limit=10),
        "record": lambda: c.Record(lease, n, 10, (c.Draft(result, "s"),)),
        "park": lambda: c.Park(lease, n, 10, ("signal:go",)),
        "sleep": lambda: c.Park(lease, n, 10, ("timer:t",), bench.clock.now + HOUR, "t"),
        "finish": lambda: c.Finish(lease, n, c.Completed()),
        "fail": lambda: c.Fail(lease, n, "{}"),
        "release": lambda: c.Release(lease, n),
        "later": lambda: c.Release(lease, n, delay_ms=5),
        "say": lambda: c.Say(lease, 0, (("stdout", "hi"),)),
        "sync": lambda: c.Sync("w", (c.Beat(lease),)),
        "hold": lambda: c.HoldRun("r"),
        "free": lambda: c.ReleaseRun("r"),
        "signal": lambda: c.Signal("r", "go"),
        "cancel": lambda: c.Cancel("r"),
        "terminate": lambda: c.Terminate("r"),
        "restart": lambda: c.Restart("r"),
        "start": lambda: c.StartRun("r", "wf"),
        "replace": lambda: c.StartRun("r", "wf", reuse="replace", pool_key="k"),
        "sweep": lambda: (tick(200_000), c.Sweep())[1],
        "bury": lambda: c.Bury("w"),
        "fire": lambda: (tick(2 * HOUR), c.Fire())[1],
        "promote": lambda: c.Promote(),
    }


@pytest.mark.parametrize(("state", "command", "expected"), CELLS)
def test_each_command_in_each_state(state: str, command: str, expected: str) -> None:
    bench = Bench(MemoryStore())
    lease = in_state(bench, state)
    # A lease that was given back has used its number 1; a lease taken away has used none.
    n = 2 if state in ("ready", "blocked", "parked", "due", "completed", "failed") else 1
    before, status_before = snapshot(bench.store), bench.run().status
    reply = bench.all(commands(bench, lease, n)[command]())[0]
    if isinstance(reply, c.Beats) and reply.tasks[0].error is not None:
        assert reply.tasks[0].error == expected
        assert snapshot(bench.store) == before
    elif expected not in TASK_STATES:
        assert isinstance(reply, StepwellError), reply
        assert reply.code == expected
        assert snapshot(bench.store) == before
    else:
        if command in ("sweep", "bury") and state == "blocked":
            bench.settle()
        assert bench.task().state == expected, reply
        assert bench.run().status == status_after(state, command, expected, status_before)
    assert_lawful(bench.store)


def status_after(state: str, command: str, after: str, status_before: str) -> str:
    """What a list shows next to a task in this state: a timer sleeps, another `due` is still queued."""
    if after == "done":
        return STATUS_AFTER.get(command, status_before)
    if after == "due":
        return "queued" if command == "later" else "sleeping"
    return STATUS_OF[after]


ALLOWED = {
    "ready": "leased blocked held done",
    "leased": "done parked due ready held",
    "parked": "ready held done",
    "due": "ready held done",
    "blocked": "ready held done",
    "held": "ready due done",
    "done": "",
}


@pytest.mark.parametrize("before", TASK_STATES)
@pytest.mark.parametrize("after", TASK_STATES)
def test_a_task_moves_along_the_table_and_no_other_way(before: TaskState, after: TaskState) -> None:
    unit = Unit(Settings())
    unit.tasks.seed((1, 1), Task(1, 1, "main", "turn", before, "default"))
    unit.mark()
    if after in ALLOWED[before].split():
        assert move(unit, (1, 1), after, 5).state == after
    else:
        with pytest.raises(AssertionError, match=f"{before} -> {after}"):
            move(unit, (1, 1), after, 5)
        assert unit.tasks.rows[(1, 1)].state == before


def leave(bench: Bench, **fields: Any) -> c.Lease:
    """Ends a run, and leaves its task open, as no rule does; a lease of it. Run `other` is in the same state."""
    other, lease = bench.turn("other"), bench.turn("r").lease
    task = bench.task()
    bench.do(c.Terminate("r"))
    if fields["state"] != "leased":
        at_once = fields["state"] == "ready"
        bench.do(c.Release(other.lease, 1, 0 if at_once else 1))
        task.worker = task.leased_at = task.lease_until = None
    for name, value in fields.items():
        setattr(task, name, value)
    with closing(bench.store.session("none")) as session:
        session.begin()
        unit = Unit(bench.settings)
        unit.tasks.seed((task.run_no, task.k), task)
        unit.tasks.put((task.run_no, task.k), task)
        session.flush(unit, bench.clock.now)
        session.commit()
    bench.clock.tick(HOUR)
    return lease


def test_nothing_is_written_after_the_end_whatever_the_tasks_say() -> None:
    with closing(Bench(MemoryStore())) as bench:
        lease = leave(bench, state="leased")
        before = snapshot(bench.store)
        written = (c.Draft(StepCompleted(raw("1")), "k"),)
        for command in (c.Release(lease, 1), c.Finish(lease, 1, c.Completed()), c.Record(lease, 1, 9, written)):
            bench.refused(command, Internal)
        assert snapshot(bench.store) == before


@pytest.mark.parametrize(
    ("command", "fields", "after"),
    [
        (c.Sweep(), {"state": "leased"}, "queued"),
        (c.Bury("w"), {"state": "leased"}, "queued"),
        (c.Sweep(), {"state": "ready", "deadline": 1}, "queued"),
        (c.Fire(), {"state": "due", "due_at": 1, "due_key": "timer#1"}, "queued"),
        (c.Claim("w", "s", limit=1), {"state": "ready", "priority": -1}, "running"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, c.Command) else "",
)
def test_a_task_that_outlived_its_run_is_closed_and_holds_up_no_other(
    command: c.Command, fields: dict[str, Any], after: str
) -> None:
    with closing(Bench(MemoryStore())) as bench:
        leave(bench, **fields)
        bench.do(command)
        assert (bench.task("r").state, bench.run("r").status) == ("done", "canceled")
        bench.all(msgspec.structs.replace(command, request="t") if isinstance(command, c.Claim) else command)
        assert bench.run("other").status == after
        assert_lawful(bench.store)
