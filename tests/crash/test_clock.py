"""The wall clock jumps: an hour back, a day forward. Journals go forward, and leases outlive a jump backward."""

import time
from itertools import pairwise
from pathlib import Path

from stepwell.model import commands as c
from tests.crash.support import T0, Puppet, journal, kinds, offences
from tests.crash.workload import claim, event, finish, leases, record, step

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
SWEEPS_S = 0.3  # the sweeper works every 50 ms


def times_go_forward(path: Path, run: str) -> bool:
    return all(one.at <= two.at for one, two in pairwise(journal(path, run)))


def test_an_hour_back_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with Puppet(path, roles=True, now=T0) as puppet:
        puppet.submit(c.StartRun("r", "wf"), c.StartRun("other", "wf"))
        mine = leases(puppet.one(claim("q")))
        puppet.one(record(mine["r"], 1, 100, step("before#1")))
        puppet.clock(T0 - HOUR_MS)
        time.sleep(SWEEPS_S)
        puppet.one(record(mine["r"], 2, 100, step("after#1")))
        puppet.one(c.Signal("other", "s"))
        beats = puppet.one(c.Sync("w", tuple(c.Beat(lease) for lease in mine.values())))
        assert [beat.error for beat in beats.tasks] == [None, None]
        assert all(beat.lease_until >= T0 + 120_000 for beat in beats.tasks), "a heartbeat shortened a lease"
        puppet.submit(*(finish(lease, n) for lease, n in ((mine["r"], 3), (mine["other"], 1))))
        puppet.close()
    assert kinds(path, "r") == ["run.created", "attempt.started", *["step.completed"] * 2, "run.completed"]
    assert all(times_go_forward(path, run) for run in ("r", "other"))
    assert not offences(path)


def test_an_hour_back_while_the_process_is_restarted(tmp_path: Path) -> None:
    """The new process knows nothing of the time before; the journal does."""
    path = tmp_path / "x.sqlite"
    with Puppet(path, roles=True, now=T0) as puppet:
        puppet.submit(c.StartRun("r", "wf"), c.StartRun("parked", "wf"))
        mine = leases(puppet.one(claim("q")))
        puppet.one(c.Park(mine["parked"], 1, 100, ("timer:t#1",), due_at=T0 + 1_000, due_key="t#1"))
        puppet.kill()
    with Puppet(path, roles=True, now=T0 - HOUR_MS) as puppet:
        time.sleep(SWEEPS_S)
        puppet.one(record(mine["r"], 1, 100, step("after#1")))
        puppet.one(c.Signal("parked", "s"))
        more = leases(puppet.one(claim("q2")))
        assert list(more) == ["parked"]
        time.sleep(SWEEPS_S)
        puppet.submit(finish(mine["r"], 2), finish(more["parked"], 1))
        puppet.close()
    assert kinds(path, "r") == ["run.created", "attempt.started", "step.completed", "run.completed"]
    assert all(times_go_forward(path, run) for run in ("r", "parked"))
    assert not offences(path)


def test_a_day_forward_and_back(tmp_path: Path) -> None:
    """What is due by then fires once, leases end once and their late writes are stale: nothing is doubled."""
    path = tmp_path / "x.sqlite"
    with Puppet(path, roles=True, now=T0) as puppet:
        puppet.submit(c.StartRun("r", "wf"), c.StartRun("parked", "wf"))
        mine = leases(puppet.one(claim("q")))
        puppet.one(record(mine["r"], 1, 100, step("before#1")))
        puppet.one(c.Park(mine["parked"], 1, 100, ("timer:t#1",), due_at=T0 + HOUR_MS, due_key="t#1"))
        puppet.clock(T0 + DAY_MS)
        time.sleep(SWEEPS_S)
        assert puppet.submit(record(mine["r"], 2, 100, step("late#1")))[0].code == "stale"
        puppet.clock(T0)
        more = leases(puppet.one(claim("q2")))
        assert sorted(more) == ["parked", "r"]
        time.sleep(SWEEPS_S)
        puppet.one(record(more["r"], 1, 100, step("again#1")))
        puppet.submit(finish(more["r"], 2), finish(more["parked"], 1))
        puppet.close()
    assert [entry.key for entry in journal(path, "r") if entry.key] == ["before#1", "again#1"]
    assert kinds(path, "parked").count("timer.fired") == 1
    assert all(times_go_forward(path, run) for run in ("r", "parked"))
    assert not offences(path)


def test_what_begins_after_a_jump_back_keeps_time(tmp_path: Path) -> None:
    """A back-off of a second takes a second of the new time, and not the hour that the clock went back."""
    path = tmp_path / "x.sqlite"
    with Puppet(path, roles=True, now=T0) as puppet:
        puppet.one(event("e", c.Match("f", "s", retry='{"max_attempts":2,"initial_ms":1000}'), manifests_at=0))
        lease = puppet.one(claim("q")).tasks[0].lease
        puppet.clock(T0 - HOUR_MS)
        assert puppet.one(c.Fail(lease, 1, "{}")).state == "due"
        puppet.clock(T0 - HOUR_MS + 2_000)
        time.sleep(SWEEPS_S)
        assert len(puppet.one(claim("q2")).tasks) == 1
        puppet.close()
    assert not offences(path)


def test_an_hour_back_between_two_processes(tmp_path: Path) -> None:
    """One process lived through the jump, the other began after it: neither takes the other's leases."""
    path = tmp_path / "x.sqlite"
    with Puppet(path, roles=True, now=T0) as old, Puppet(path, roles=True, now=T0 - HOUR_MS) as young:
        old.one(c.StartRun("r", "wf"))
        old.clock(T0 - HOUR_MS)
        mine = leases(young.one(claim("q")))
        time.sleep(SWEEPS_S)
        written = young.submit(record(mine["r"], 1, 100, step("a#1")))[0]
        assert isinstance(written, c.Recorded), written
        young.one(finish(mine["r"], 2))
        old.close()
        young.close()
    assert times_go_forward(path, "r")
    assert not offences(path)
