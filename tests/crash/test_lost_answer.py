"""The answer to a commit is lost, in a real connection to a real file: what happened, happened once.

`after`: the commit happened. `before`: it did not. In both cases SQLite says "disk I/O error" to COMMIT, so that only
the lane's own row can tell. Another process commits in between.
"""

import signal
from pathlib import Path

import pytest

from stepwell.model import commands as c
from tests.crash.support import Died, Puppet, journal, kinds, offences
from tests.crash.workload import claim, event, finish, leases, record, step

pytestmark = pytest.mark.stores("sqlite")

ROUNDS = 8


@pytest.mark.parametrize("how", ["after", "before"])
def test_a_lane_finds_out_what_became_of_a_lost_commit(how: str, tmp_path: Path) -> None:
    """Two lanes in turn; every commit of the first loses its answer. Effects are there once, answers are true."""
    path = tmp_path / "x.sqlite"
    with Puppet(path) as unlucky, Puppet(path) as other:
        run_no = unlucky.one(c.StartRun("r", "wf")).run_no
        lease = leases(other.one(claim("q")))["r"]
        for n in range(1, ROUNDS + 1):
            unlucky.tell("lose", how)
            unlucky.send("submit", (record(lease, n, 100, step(f"s#{n}")), c.Signal("r", "one", str(n))))
            other.one(c.Signal("r", "other", str(n)))
            written, signaled = unlucky.replies(2)
            assert journal(path, run_no)[written.first - 1].key == f"s#{n}"
            assert f'"payload":{n}' in journal(path, run_no)[signaled.seq - 1].data
        assert unlucky.trouble() is None
        other.one(finish(lease, ROUNDS + 1))
        unlucky.close()
        other.close()
    found = kinds(path, run_no)
    assert found.count("step.completed") == ROUNDS
    assert found.count("signal.received") == 2 * ROUNDS
    assert not offences(path)


@pytest.mark.parametrize("how", ["after", "before"])
def test_a_kill_right_after_a_lost_answer_doubles_nothing(how: str, tmp_path: Path) -> None:
    """The process dies before it can ask. Its caller sends the same commands to another process."""
    path = tmp_path / "x.sqlite"
    with Puppet(path) as other:
        other.submit(c.StartRun("r", "wf"), c.StartRun("parked", "wf"))
        mine = leases(other.one(claim("q")))
        for n in range(1, ROUNDS + 1):
            batch = (
                record(mine["r"], n, 100, step(f"s#{n}")),
                c.Signal("r", "one", str(n), dedup=f"d{n}"),
                c.StartRun(f"new-{n}", "wf", pool="apart"),
                event(f"e{n}", c.Match("flow", "step", pool="apart"), manifests_at=0),
                c.Say(mine["parked"], n - 1, (("stdout", f"{n}\n"),)),
                claim(f"q{n}", pools=("apart",)),
            )
            die(path, how, batch)
            other.one(c.Signal("r", "other", str(n)))
            written, signaled, started, accepted, said, claimed = other.submit(*batch)
            assert started.created is (how == "before")
            assert accepted.status == ("duplicate" if how == "after" else "accepted")
            assert (signaled.seq == written.first + 1) or how == "before"
            assert said.next == n
            assert len(claimed.tasks) == (2 if how == "after" or n > 1 else 0)
        other.one(finish(mine["r"], ROUNDS + 1))
        other.close()
    found = kinds(path, 1)
    assert (found.count("step.completed"), found.count("signal.received")) == (ROUNDS, 2 * ROUNDS)
    assert not offences(path)


def die(path: Path, how: str, batch: tuple[c.Command, ...]) -> None:
    """A process sends a batch, loses the answer to its commit and dies at once."""
    with Puppet(path) as unlucky:
        unlucky.tell("lose", how)
        unlucky.fault("lost")
        with pytest.raises(Died) as died:
            unlucky.submit(*batch)
        assert not died.value.answered
        assert unlucky.ended() == -signal.SIGKILL


def test_a_commit_that_keeps_failing_stops_the_lane(tmp_path: Path) -> None:
    """Nobody waits for ever, and readiness says why."""
    path = tmp_path / "x.sqlite"
    with Puppet(path) as unlucky:
        unlucky.one(c.StartRun("r", "wf"))
        unlucky.tell("lose", "before, for ever")
        refused = unlucky.submit(c.StartRun("never", "wf"), c.Signal("r", "never"))
        assert [reply.code for reply in refused] == ["unavailable"] * 2
        assert "lost" in (unlucky.trouble() or "")
        unlucky.close()
    assert kinds(path, 1) == ["run.created"]
    assert not offences(path)
