"""Attributes of Python's modules that are replaced while workers run: in a body they act for it, elsewhere as before.

A replacement knows its original, so nothing is remembered anywhere else, and it can be taken back.
"""

import inspect
import sys
from asyncio import events
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from random import Random
from types import MethodType, ModuleType
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from stepwell.functions.errors import NondeterministicCall


class Ambient(Protocol):
    """What a body has in place of the real world. `loop.host` of a workflow's loop is one."""

    @property
    def random(self) -> Random:
        """The run's own generator."""
        ...

    @property
    def replaying(self) -> bool:
        """True while the body only repeats what the journal has: it says nothing then."""
        ...

    @property
    def run_id(self) -> str: ...

    def now_s(self) -> float:
        """Seconds since the epoch, as the body has them."""
        ...

    def uuid(self) -> UUID: ...

    def step_path(self) -> str:
        """Where the running task stands; empty for the root."""
        ...

    def refuse(self, what: str) -> NondeterministicCall:
        """The error to raise for something real that was tried: see `where.refusal`."""
        ...


#: The loop that runs in this thread, or None: a workflow's loop while it is pumped. Typed by what its reader needs.
running: Callable[[], Any] = events._get_running_loop
_set_running: Callable[[Any], None] = events._set_running_loop


@contextmanager
def outside() -> Iterator[None]:
    """Leaves the body for a moment: what runs within has the real clock, and may do I/O."""
    loop = running()
    _set_running(None)
    try:
        yield
    finally:
        _set_running(loop)


class Seam(NamedTuple):
    """One attribute and how its replacement is made: `make(original)` gives a function.

    In a module it is called as a method of its `Place`: unlike a function it stays itself as an attribute of a class.
    """

    holder: Any
    name: str
    make: Callable[[Any], Callable[..., Any]]


class Place:
    """Where something was replaced. Pickled, as in `pool.submit(time.sleep, 1)`, it stands for what is there then."""

    __slots__ = ("module", "name", "original")

    def __init__(self, module: str, name: str, original: Any = None) -> None:
        self.module, self.name, self.original = module, name, original

    def __reduce__(self) -> tuple[Any, ...]:
        return Place, (self.module, self.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.module), self.name)


def original_of(value: Any) -> Any:
    """What a replacement replaces; None for anything else."""
    if type(value) is MethodType:
        return value.__self__.original if type(value.__self__) is Place else None
    return getattr(value, "__dict__", {}).get("stepwell_original")


def put(seams: Iterable[Seam]) -> None:
    """Replaces each; twice does nothing."""
    for holder, name, make in seams:
        present = vars(holder).get(name)
        if present is not None and original_of(present) is None:
            setattr(holder, name, _stand_in(holder, name, present, make(present)))


def _stand_in(holder: Any, name: str, original: Any, function: Any) -> Any:
    """The replacement, which looks like the original."""
    function.__name__, function.__doc__ = name, getattr(original, "__doc__", None)
    if not isinstance(holder, ModuleType):
        function.__module__, function.__qualname__ = original.__module__, original.__qualname__
        vars(function)["stepwell_original"] = original
        return function
    with suppress(ValueError, TypeError):  # not all that is written in C tells its parameters
        known = inspect.signature(original)
        place = inspect.Parameter("_place", inspect.Parameter.POSITIONAL_ONLY)
        vars(function)["__signature__"] = known.replace(parameters=[place, *known.parameters.values()])
    return MethodType(function, Place(holder.__name__, name, original))


def take_back(seams: Iterable[Seam]) -> None:
    """Puts each original back."""
    for seam in seams:
        original = original_of(vars(seam.holder).get(seam.name))
        if original is not None:
            setattr(seam.holder, seam.name, original)


def replaced(seams: Iterable[Seam]) -> list[tuple[Any, Any]]:
    """What is replaced now in modules: pairs of original and replacement."""
    present = (vars(seam.holder).get(seam.name) for seam in seams if isinstance(seam.holder, ModuleType))
    return [(original_of(one), one) for one in present if original_of(one) is not None]


def swap_closure(function: Any, seams: Iterable[Seam]) -> None:
    """Replaces what a workflow's function closes over, and the names of its own module."""
    by_id = _by_id(seams)
    function = inspect.unwrap(function)
    for cell in getattr(function, "__closure__", None) or ():
        found = by_id.get(id(_content(cell)))
        if found is not None:
            cell.cell_contents = found[1]
    _swap(getattr(function, "__globals__", {}), by_id)


def swap_modules(seams: Iterable[Seam]) -> None:
    """For `from time import time` done earlier: replaces such names in every module that is there but Python's own."""
    by_id = _by_id(seams)
    for name, module in list(sys.modules.items()):
        if type(module) is ModuleType and _is_users(name):
            _swap(vars(module), by_id)


def _by_id(seams: Iterable[Seam]) -> dict[int, tuple[Any, Any]]:
    return {id(original): (original, other) for original, other in replaced(seams)}


def _swap(names: dict[str, Any], by_id: dict[int, tuple[Any, Any]]) -> None:
    for name, value in list(names.items()):
        found = by_id.get(id(value))
        if found is not None:
            names[name] = found[1]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _is_users(module: str) -> bool:
    root = module.partition(".")[0]
    return root not in sys.stdlib_module_names and root not in {"", "stepwell", "builtins"}
