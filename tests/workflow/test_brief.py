"""A run whose error is too large to be kept fails with as much of it as fits, instead of being tried for ever."""

import logging

import pytest

from stepwell.functions.define import Workflow
from stepwell.model import commands as c
from stepwell.model.errors import TooLarge
from stepwell.model.rows import Run
from stepwell.workflow.context import Context, Facts
from stepwell.workflow.turn import Turn


async def fails(ctx: Context) -> None:
    raise ValueError("\x01" * 5_000)


def test_an_error_that_is_too_large_is_told_in_brief() -> None:
    run = Run(1, "main", "r1", name="m:fails")
    leased = c.Leased(c.Lease(1, 1, 1, "t"), run, "turn", 1, 0, 0, 1, 0, input="{}")
    turn = Turn(
        leased,
        Workflow("m", fails),
        facts=Facts("r1", "m:fails"),
        logger=lambda name, instance: logging.getLogger(name),
    )
    turn.begin()
    whole = turn.next(1_000)
    assert isinstance(whole, c.Fail)
    refusal = TooLarge("too large", what="error")
    turn.refused(refusal)
    brief = turn.next(1_000)
    assert isinstance(brief, c.Fail)
    assert "ValueError" in brief.error
    assert len(brief.error.encode()) <= 1_024 < len(whole.error.encode())
    with pytest.raises(TooLarge):
        turn.refused(refusal)
    turn.close()
