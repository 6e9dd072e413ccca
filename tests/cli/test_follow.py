"""What the screen shows of output that comes in pieces."""

import pytest

from stepwell.cli.follow import Screen
from stepwell.model.rows import Output, Run

RUN = Run(no=1, scope="main", id="r", name="parcel/pack")


def chunk(n: int, attempt: int, text: str) -> Output:
    return Output(1, n, attempt, "stdout", 0, text)


def test_what_a_killed_attempt_did_not_end_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.take(RUN, [chunk(0, 1, "packed 10 %\npacked 2"), chunk(1, 1, "0 %\npack")])
    screen.take(RUN, [chunk(2, 2, "packed 10 %\nend")])
    screen.rest(RUN)
    screen.rest(RUN)
    assert [line.partition("| ")[2] for line in capsys.readouterr().out.splitlines()] == [
        "packed 10 %", "packed 20 %", "pack", "packed 10 %", "end",
    ]  # fmt: skip
