"""A process that stands still: what it held goes on elsewhere, and what it writes when it wakes is refused."""

import os
import queue
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from stepwell.model import commands as c
from stepwell.model.errors import Stale, StepwellError, Unavailable
from tests.crash.support import Puppet, journal, kinds, offences
from tests.crash.workload import finish, record, step

LEASE_MS = 2_000
LONG_MS = 60_000


def claim(worker: str, request: str, limit: int = 1, lease_ms: int = LEASE_MS) -> c.Claim:
    return c.Claim(worker=worker, request=request, limit=limit, lease_ms=lease_ms)


def claimed(puppet: Puppet, worker: str, lease_ms: int = LEASE_MS, patience_s: float = 10.0) -> c.Leased:
    """The first task that becomes ready, claimed."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        got = puppet.one(claim(worker, os.urandom(16).hex(), lease_ms=lease_ms))
        if got.tasks:
            task: c.Leased = got.tasks[0]
            return task
        time.sleep(0.05)
    raise AssertionError("nothing became ready")


def test_what_a_frozen_process_held_goes_on_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with Puppet(path, roles=True) as frozen, Puppet(path, roles=True) as alive:
        frozen.one(c.StartRun("r", "wf"))
        old = claimed(frozen, "frozen")
        frozen.one(record(old.lease, 1, old.seen, step("a#1", '"frozen"')))
        frozen.stop()
        new = claimed(alive, "alive", LONG_MS)
        assert [entry.kind for entry in new.journal][2:] == ["step.completed", "attempt.ended", "attempt.started"]
        alive.one(record(new.lease, 1, new.seen, step("b#1", '"alive"')))
        frozen.go_on()
        refused = frozen.submit(
            record(old.lease, 2, old.seen, step("b#1", '"frozen"')),
            c.Park(old.lease, 2, 100, ("signal:x",)),
            c.Say(old.lease, 0, (("stdout", "late"),)),
            c.Fail(old.lease, 2, "{}"),
            c.Release(old.lease, 2),
            finish(old.lease, 2, '"frozen"'),
        )
        assert [type(reply) for reply in refused] == [Stale] * 6
        assert frozen.one(c.Sync("frozen", (c.Beat(old.lease),), LEASE_MS)).tasks[0].error == "stale"
        alive.one(finish(new.lease, 2, '"alive"'))
        frozen.close()
        alive.close()
    steps = [(entry.key, entry.data) for entry in journal(path, new.lease.run_no) if entry.kind == "step.completed"]
    assert steps == [("a#1", '{"result":"frozen"}'), ("b#1", '{"result":"alive"}')]
    assert not offences(path)


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("point", ["flushed", "committed"])
def test_a_process_that_freezes_inside_a_batch_holds_the_others_up_but_breaks_nothing(
    point: str, tmp_path: Path
) -> None:
    """SQLite has one writer: while it stands still inside its turn, the others wait. Killed or awake, all goes on."""
    path = tmp_path / "x.sqlite"
    with Puppet(path) as frozen, Puppet(path) as alive:
        frozen.one(c.StartRun("before", "wf"))
        stopped = stop_inside(frozen, point, c.StartRun("frozen", "wf"))
        if point == "committed":  # its turn is over: nobody waits
            assert alive.one(c.StartRun("alive", "wf")).created
        else:
            alive.send("submit", (c.StartRun("alive", "wf"),))
            with pytest.raises(queue.Empty):
                alive.read(patience_s=0.5)
        frozen.go_on()
        assert frozen.replies(stopped)[0].created
        if point == "flushed":
            assert alive.replies(1)[0].created
        stop_inside(frozen, point, c.StartRun("killed", "wf"))
        alive.send("submit", (c.StartRun("after", "wf"),))
        frozen.kill()
        assert alive.replies(1)[0].created
        assert alive.one(c.StartRun("killed", "wf")).created is (point == "flushed")
        alive.close()
    assert not offences(path)


@pytest.mark.stores("sqlite")
def test_nobody_waits_without_bound_for_a_process_that_froze_in_its_turn(tmp_path: Path) -> None:
    """Those who wait are told `unavailable`, what they sent was not done, and all goes on with the frozen one."""
    path = tmp_path / "x.sqlite"
    with Puppet(path) as frozen, Puppet(path, busy_ms=100, roles=True) as alive:
        alive.one(c.StartRun("before", "wf"))
        stop_inside(frozen, "flushed", c.StartRun("frozen", "wf"))
        for n in range(2):
            refused = alive.submit(c.StartRun(f"refused-{n}", "wf"), c.Signal("before", "refused"))
            assert [type(reply) for reply in refused] == [Unavailable] * 2
        assert alive.trouble() is None, "it is not the disk"
        frozen.go_on()
        assert frozen.replies(1)[0].created
        assert alive.one(c.StartRun("refused-0", "wf")).created
        frozen.one(c.Signal("before", "go"))
        alive.one(c.Signal("before", "go"))
        assert alive.longest_wait_s < 5
        frozen.close()
        alive.close()
    assert kinds(path, 1) == ["run.created", "signal.received", "signal.received"]
    assert not offences(path)


@pytest.mark.stores("sqlite")
def test_a_process_that_waits_for_its_turn_can_be_closed(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with Puppet(path) as frozen, Puppet(path, busy_ms=100) as alive:
        stop_inside(frozen, "flushed", c.StartRun("frozen", "wf"))
        assert isinstance(alive.submit(c.StartRun("refused", "wf"))[0], Unavailable)
        alive.close()
        frozen.go_on()
        assert frozen.replies(1)[0].created
        frozen.close()
    assert not offences(path)


def stop_inside(puppet: Puppet, point: str, command: c.Command) -> int:
    """Sends a command in whose batch the process stops itself; how many replies are to come."""
    puppet.fault(point, number=signal.SIGSTOP)
    puppet.send("submit", (command,))
    puppet.stands()
    return 1


def test_a_lone_process_keeps_its_leases_over_a_pause(tmp_path: Path) -> None:
    """KERNEL: pauses are not deaths. After it went on, its heartbeats have as long as the pause was, to come."""
    path = tmp_path / "x.sqlite"
    with Puppet(path, roles=True) as lone:
        lone.submit(*(c.StartRun(f"r{n}", "wf") for n in range(3)))
        tasks = lone.one(claim("lone", "q", limit=3)).tasks
        assert len(tasks) == 3
        lone.stop()
        time.sleep(4.2)  # a second of idling is no pause, and a pause is more than a quarter of lease_ms
        lone.go_on()
        time.sleep(0.7)  # the sweeper works every 50 ms
        beats = lone.one(c.Sync("lone", tuple(c.Beat(task.lease) for task in tasks), LONG_MS))
        assert [one.error for one in beats.tasks] == [None] * 3
        replies: list[Any] = lone.submit(*(finish(task.lease, 1) for task in tasks))
        assert not [reply for reply in replies if isinstance(reply, StepwellError)]
        lone.close()
    assert {tuple(kinds(path, task.lease.run_no)) for task in tasks} == {
        ("run.created", "attempt.started", "run.completed")
    }
    assert not offences(path)


def test_a_lone_process_still_sweeps_what_nobody_wants_after_a_pause(tmp_path: Path) -> None:
    """The grace after a pause has an end: a lease that nobody extends is swept."""
    path = tmp_path / "x.sqlite"
    with Puppet(path, roles=True) as lone:
        lone.one(c.StartRun("r", "wf"))
        lease = claimed(lone, "gone").lease
        lone.stop()
        time.sleep(3.8)
        lone.go_on()
        assert claimed(lone, "lone").lease.epoch == lease.epoch + 1
        lone.close()
    assert not offences(path)
