"""The answers of a lane on their way: from its thread to those who wait, on whatever event loop."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from stepwell.model import commands as c
from stepwell.model.errors import StepwellError

log = logging.getLogger("stepwell.lane")


class Answer(Protocol):
    """Who waits for a reply: a future, or whoever has its methods and wants no more than that."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


class Passed:
    """The answer of a command that one lane passed on to another. `arrived` is called as it is given."""

    __slots__ = ("_answer", "_arrived", "done", "set_exception", "set_result")

    def __init__(self, answer: Answer, arrived: Callable[[], None]) -> None:
        self._answer, self._arrived = answer, arrived
        self.done, self.set_result, self.set_exception = answer.done, answer.set_result, answer.set_exception

    def given(self) -> Answer:
        """The answer itself. On the thread of the lane, since an event loop may be closed by then."""
        self._arrived()
        return self._answer


Item = tuple[c.Command, Answer, asyncio.AbstractEventLoop | None]
Submit = Callable[[c.Command, Answer, asyncio.AbstractEventLoop | None], None]
#: Something to call on an event loop, together with the answers that go there.
Hint = tuple[asyncio.AbstractEventLoop, Callable[[], None]]


def give(answered: list[tuple[Item, Any]], hints: Sequence[Hint] = ()) -> None:
    """Gives every caller its reply, and the hints of the commit: one hop to each event loop."""
    hops: dict[asyncio.AbstractEventLoop, tuple[list[Callable[[], None]], list[tuple[Answer, Any]]]] = {}
    for loop, hint in hints:
        hops.setdefault(loop, ([], []))[0].append(hint)
    for (_, answer, caller), reply in answered:
        if isinstance(answer, Passed):
            answer = answer.given()
        if caller is None:
            _resolve([], [(answer, reply)])
        else:
            hops.setdefault(caller, ([], []))[1].append((answer, reply))
    for loop, (told, pairs) in hops.items():
        try:
            loop.call_soon_threadsafe(_resolve, told, pairs)
        except RuntimeError:
            log.debug("%d answers came after their event loop was closed", len(pairs))


def _resolve(hints: list[Callable[[], None]], pairs: list[tuple[Answer, Any]]) -> None:
    for hint in hints:
        try:
            hint()
        except Exception:
            log.exception("a hint was lost")
    for answer, reply in pairs:
        if answer.done():
            continue
        if isinstance(reply, StepwellError):
            answer.set_exception(reply)
        else:
            answer.set_result(reply)
