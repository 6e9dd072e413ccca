"""Messages between runs: each is handed over once, and one that cannot be handed over holds up nobody else."""

import logging
from typing import Any

import pytest

from stepwell.kernel import internal
from stepwell.model import commands as c
from stepwell.model.entries import ChildStarted, StepCompleted
from stepwell.model.rows import Message
from tests.support import Bench


def parents(bench: Bench, *names: str) -> dict[str, c.Lease]:
    """A leased run of each name, whose only child has ended: two messages wait."""
    leases = {name: bench.turn(name).lease for name in names}
    for name, lease in leases.items():
        bench.record(lease, 1, ChildStarted(f"{name}-kid", "w"))
    for kid in bench.claim():
        bench.do(c.Finish(kid.lease, 1, c.Completed('"done"')))
    return leases


def test_two_deliveries_in_one_batch_hand_each_message_over_once(bench: Bench) -> None:
    parents(bench, "a", "b")
    bench.all(c.Deliver(), c.Deliver())
    for name in ("a", "b"):
        assert bench.kinds(name).count("child.ended") == 1
        assert bench.run(name).open_children == 0
    assert bench.do(c.Deliver()).count == 0


def test_a_message_that_cannot_be_handed_over_holds_its_receiver_and_nobody_behind_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leases = parents(bench, "first", "second")
    real, bad = internal._hand_over, bench.run("first").no

    def hand_over(unit: Any, run: Any, message: Message, now: int) -> None:
        real(unit, run, message, now)
        if message.to_no == bad:
            raise ValueError("not to be taken in")

    monkeypatch.setattr(internal, "_hand_over", hand_over)
    with caplog.at_level(logging.CRITICAL):
        assert bench.do(c.Deliver()).count == 2
    assert (bench.run("first").hold, bench.kinds("first")[-1]) == ("poison", "run.held")
    assert "child.ended" not in bench.kinds("first"), "what was half handed over was taken back"
    assert bench.kinds("second")[-1] == "child.ended"
    assert bench.do(c.Deliver()).count == 0, "it is not tried for ever"
    assert bench.record(leases["second"], 2, StepCompleted()).first == 5
    bench.do(c.Terminate("first"))
