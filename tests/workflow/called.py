"""What the body of `player` calls: steps, an action, a query, mutations; and the trace of what it saw."""

import asyncio
from asyncio import events
from dataclasses import dataclass
from typing import Any

from stepwell.functions.define import Action, Mutation, Query
from stepwell.functions.errors import StepError

Seen = tuple[str, float, str, str]


class Trace:
    """What one life of a body saw. It is the body's log, too."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.closed = False

    def note(self, op: str, what: str) -> None:
        task, loop = asyncio.current_task(), events.get_running_loop()
        if not self.closed:
            self.seen.append(("" if task is None else task.get_name(), loop.time(), op, what))

    def warning(self, message: str, *args: object) -> None:
        self.note("warning", message % args)


@dataclass(frozen=True)
class Price:
    """A result that JSON does not give back by itself."""

    cents: int
    tags: tuple[str, ...]


#: More than one payload may have here.
HUGE = "x" * 70_000


class Boom(Exception):
    """What steps fail with."""


def text(nonce: int = 0) -> str:
    return f"text {nonce}"


def price(nonce: int = 0) -> Price:
    return Price(nonce, ("a", "b"))


plain = lambda nonce=0: [nonce, None, {"deep": [nonce]}]  # noqa: E731 - a step without annotations


def flaky(nonce: int = 0) -> str:
    return f"at last {nonce}"


def huge(nonce: int = 0) -> str:
    return HUGE


def fail(nonce: int = 0) -> str:
    raise Boom(f"boom {nonce}")


async def _act(nonce: str) -> str:
    return f"acted {nonce}"


def _look(ctx: Any) -> int:
    return 0


def _effect(ctx: Any, token: str) -> str:
    ctx.db.execute("INSERT INTO effect (token) VALUES (?)", token)
    return token


def _broken(ctx: Any, token: str) -> str:
    ctx.db.execute("INSERT INTO effect (token) VALUES (?)", token)
    raise Boom("the mutation is broken")


act: Action[..., str] = Action("replay", _act, {"name": "replay:act"})
look: Query[..., int] = Query("replay", _look, {"name": "replay:look"})
effect: Mutation[..., str] = Mutation("replay", _effect, {"name": "replay:effect"})
broken: Mutation[..., str] = Mutation("replay", _broken, {"name": "replay:broken"})


def told(error: BaseException) -> str:
    """An exception, as far as it must be the same in every life."""
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__}[{', '.join(told(one) for one in error.exceptions)}]"
    if isinstance(error, StepError):
        return f"{type(error).__name__}({error.type}, {error.message}, {error.attempts})"
    return f"{type(error).__name__}({error})"
