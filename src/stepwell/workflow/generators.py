"""Async generators that are begun on a thread: those of bodies belong to their loops, all others to whose they were.

Python has one pair of hooks for all that a thread runs, and setting them for each pump is dear. So these are set once,
and stay as long as the loop runs that pumps; whoever ends that loop puts back what was before.
"""

import sys
from asyncio import events
from collections.abc import AsyncGenerator, Callable
from typing import Any

Generator = AsyncGenerator[Any, Any]
Hook = Callable[[Generator], None]


class Hooks:
    """What was `before` is asked for everything that no body has begun. Loops of type `keeper` keep those of bodies."""

    def __init__(self, keeper: type[Any], before: tuple[Hook | None, Hook | None]) -> None:
        self.keeper = keeper
        self._began, self._ended = before
        self._kept: set[int] = set()

    def __call__(self, generator: Generator) -> None:
        """One was begun."""
        loop: Any = events._get_running_loop()
        if isinstance(loop, self.keeper):
            self._kept.add(id(generator))
            loop.keep_generator(generator)
            return
        self._kept.discard(id(generator))  # of one that is gone, whose place this one has
        if self._began is not None:
            self._began(generator)

    def ended(self, generator: Generator) -> None:
        """Nobody has it any more, and it is not at its end."""
        if id(generator) in self._kept:
            self._kept.discard(id(generator))
        elif self._ended is not None:
            self._ended(generator)


def hook(keeper: type[Any]) -> tuple[Hook | None, Hook | None] | None:
    """Sees to it that generators of bodies on this thread get to their loops. What was before, if that was changed."""
    before = sys.get_asyncgen_hooks()
    if type(before.firstiter) is Hooks and before.firstiter.keeper is keeper:
        return None
    hooks = Hooks(keeper, (before.firstiter, before.finalizer))
    sys.set_asyncgen_hooks(firstiter=hooks, finalizer=hooks.ended)
    return before.firstiter, before.finalizer


def unhook(before: tuple[Hook | None, Hook | None]) -> None:
    """Puts back what was before."""
    sys.set_asyncgen_hooks(*before)
