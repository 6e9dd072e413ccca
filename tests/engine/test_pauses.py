"""A lane that stood still costs nobody a lease: the sweep waits as long, and heartbeats are decided before it."""

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from stepwell.engine.lane import Lane
from stepwell.model import commands as c
from stepwell.model.errors import StepwellError
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from tests.support import Clock

from .faulty import Gate, wait_until

LEASE_MS = 120_000
QUARTER_S = LEASE_MS // 4_000


class Driven:
    """A lane on its own thread, under a clock that the test moves; `pause` is a process that was stopped."""

    def __init__(self) -> None:
        self.clock, self.gate, self._steady = Clock(), Gate(), 1_000.0
        self.store = MemoryStore()
        self.lane = Lane(
            self.store.session("lane"),
            settings=Settings(lease_ms=LEASE_MS),
            clock_ms=self.clock,
            on_commit=lambda committed: None,
            fault=self.gate,
            monotonic=lambda: self._steady,
        )
        self.lane.start()

    def send(self, command: c.Command) -> "Future[Any]":
        answer: Future[Any] = Future()
        self.lane.submit(command, answer, None)
        return answer

    def do(self, command: c.Command) -> Any:
        return self.send(command).result(timeout=10)

    def pause(self, seconds: float) -> None:
        self.clock.tick(int(seconds * 1_000))
        self._steady += seconds

    def pass_by(self, seconds: int) -> None:
        """Time in which the lane works as always."""
        for _ in range(seconds):
            self.pause(1)
            self.do(c.SyncManifests(()))

    def leased(self) -> c.Leased:
        fused = c.ClaimFor("w", LEASE_MS, "secret")
        started: c.Started = self.do(c.StartRun("r", "wf", claim_for=fused))
        assert started.claim is not None
        return started.claim

    def state(self) -> str:
        return self.store.reader().tasks_of(1)[0].state


@pytest.fixture
def driven() -> Iterator[Driven]:
    driven = Driven()
    yield driven
    driven.gate.open()
    driven.lane.close()


def test_without_a_pause_a_lease_that_ran_out_is_swept(driven: Driven) -> None:
    driven.leased()
    driven.pass_by(LEASE_MS // 1_000 + 1)
    assert driven.do(c.Sweep()).count == 1
    assert driven.state() == "ready"


@pytest.mark.parametrize("seconds", [QUARTER_S + 2, 121, 10_000])
def test_after_a_pause_the_sweep_waits_as_long_and_workers_catch_up(driven: Driven, seconds: int) -> None:
    task = driven.leased()
    driven.pass_by(LEASE_MS // 1_000 - QUARTER_S)
    driven.pause(seconds)
    assert driven.do(c.Sweep()).count == 0
    assert driven.state() == "leased"
    beat = driven.do(c.Sync("w", (c.Beat(task.lease),), LEASE_MS)).tasks[0]
    assert beat.error is None
    driven.pass_by(100)
    assert driven.do(c.Sweep()).count == 0
    assert driven.do(c.Finish(task.lease, 1, c.Completed())).state == "done"


def test_a_worker_that_does_not_catch_up_is_swept_in_the_end(driven: Driven) -> None:
    driven.leased()
    driven.pause(200)
    assert driven.do(c.Sweep()).count == 0
    driven.pass_by(201)
    assert driven.do(c.Sweep()).count == 1


def test_a_long_batch_is_a_pause_too(driven: Driven) -> None:
    driven.leased()
    driven.gate.close()
    slow = driven.send(c.SyncManifests(()))
    assert driven.gate.reached.wait(10)
    sweep = driven.send(c.Sweep())
    driven.pause(200)
    driven.gate.open()
    slow.result(timeout=10)
    assert sweep.result(timeout=10).count == 0
    assert driven.state() == "leased"


def test_heartbeats_in_the_queue_are_decided_before_the_sweep(driven: Driven) -> None:
    task = driven.leased()
    driven.pass_by(LEASE_MS // 1_000)
    driven.gate.close()
    busy = driven.send(c.SyncManifests(()))
    assert driven.gate.reached.wait(10)
    driven.pause(1)
    sweep = driven.send(c.Sweep())
    beat = driven.send(c.Sync("w", (c.Beat(task.lease),), LEASE_MS))
    wait_until(lambda: driven.lane.depth == 2)
    driven.gate.open()
    busy.result(timeout=10)
    assert beat.result(timeout=10).tasks[0].error is None
    assert sweep.result(timeout=10).count == 0
    assert driven.state() == "leased"


def test_answers_keep_the_order_of_their_commands_whatever_is_decided_first(driven: Driven) -> None:
    task = driven.leased()
    driven.gate.close()
    busy = driven.send(c.SyncManifests(()))
    assert driven.gate.reached.wait(10)
    sent = [c.Prune(), c.Sweep(), c.HoldRun("r"), c.Sync("w", (c.Beat(task.lease),)), c.Signal("x", "s")]
    answers = [driven.send(command) for command in sent]
    driven.gate.open()
    busy.result(timeout=10)
    kinds = [type(answer.exception(timeout=10) or answer.result()).__name__ for answer in answers]
    assert kinds == ["Worked", "Worked", "RunState", "Beats", "Unknown"]
    assert answers[3].result().tasks[0].error is None, "the heartbeat came before what ends its lease"
    assert issubclass(type(answers[4].exception()), StepwellError)
