"""Chance in a body: the functions of `random` and `uuid` use the run's own generator, so a replay repeats them.

What must not repeat cannot be had there: the random numbers of the system are refused.
"""

import os
import random
import uuid
from collections.abc import Callable
from typing import Any

from stepwell.workflow.seams import Seam, original_of, running

_UUIDS = ("uuid1", "uuid4", "uuid6", "uuid7")


def seams(loop_type: type[Any]) -> list[Seam]:
    """The replacements in modules `random` and `uuid`, and the seed of generators that are given none."""
    shared = [name for name, value in vars(random).items() if _is_shared(value)]
    numbers = [Seam(random, name, _drawing(name, loop_type)) for name in shared]
    uuids = [Seam(uuid, name, lambda original: _uuid(original, loop_type)) for name in _UUIDS if hasattr(uuid, name)]
    return [*numbers, *uuids, Seam(random.Random, "seed", lambda original: _seed(original, loop_type))]


def _is_shared(value: Any) -> bool:
    """True for the methods of the generator that module `random` shares, and for what replaces them."""
    return isinstance(getattr(original_of(value) or value, "__self__", None), random.Random)


def _drawing(name: str, loop_type: type[Any]) -> Callable[[Any], Callable[..., Any]]:
    def make(original: Any) -> Callable[..., Any]:
        def draw(_place: Any, *args: Any, **named: Any) -> Any:
            loop = running()
            if type(loop) is loop_type:
                return getattr(loop.host.random, name)(*args, **named)
            return original(*args, **named)

        def draw_plainly(_place: Any) -> Any:
            loop = running()
            return loop.host.random.random() if type(loop) is loop_type else original()

        return draw_plainly if name == "random" else draw

    return make


def _uuid(original: Any, loop_type: type[Any]) -> Callable[..., Any]:
    def make_uuid(_place: Any, *args: Any, **named: Any) -> Any:
        loop = running()
        return loop.host.uuid() if type(loop) is loop_type else original(*args, **named)

    def uuid4(_place: Any) -> Any:
        loop = running()
        return loop.host.uuid() if type(loop) is loop_type else original()

    return uuid4 if original.__name__ == "uuid4" else make_uuid


def _seed(original: Any, loop_type: type[Any]) -> Callable[..., Any]:
    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        if a is None:
            loop = running()
            if type(loop) is loop_type:
                a = loop.host.random.getrandbits(256)
        original(self, a, version)

    return seed


def real_generators() -> list[Any]:
    """The C functions behind the shared generator and the system's, as they are without replacements."""
    shared = [vars(random)["_inst"].random, vars(random)["_inst"].getrandbits]
    return [*shared, *(vars(os)[name] for name in ("urandom", "getrandom") if name in vars(os))]
