"""What a body must not do and no audit event shows, or not on every Python: sleep, ask, start threads, read the env."""

import _thread
import builtins
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from stepwell.workflow.seams import Seam, running
from stepwell.workflow.where import caller, is_foreign, owner

_SYSTEM = "the random numbers of the system"
_THREAD = "starting a thread"
_DENIED = (
    (time, "sleep", "time.sleep()"),
    (builtins, "input", "input()"),
    (os, "urandom", _SYSTEM),
    (os, "getrandom", _SYSTEM),
    (random, "_urandom", _SYSTEM),  # also behind `secrets` and `random.SystemRandom`
    (_thread, "start_new_thread", _THREAD),
    (_thread, "start_joinable_thread", _THREAD),
    (threading, "_start_new_thread", _THREAD),
    (threading, "_start_joinable_thread", _THREAD),
)
_READS = ("__getitem__", "__iter__")
#: Through these modules the environment is read for somebody else.
_BETWEEN = ("os", "collections.abc", "_collections_abc")


def seams(loop_type: type[Any]) -> list[Seam]:
    """The replacements that refuse."""
    denied = [Seam(holder, name, _denial(what, loop_type)) for holder, name, what in _DENIED]
    environ = [Seam(type(os.environ), name, lambda original: _reading(original, loop_type)) for name in _READS]
    return denied + environ


def _denial(what: str, loop_type: type[Any]) -> Callable[[Any], Callable[..., Any]]:
    def make(original: Any) -> Callable[..., Any]:
        def denied(_place: Any, *args: Any, **named: Any) -> Any:
            loop = running()
            if type(loop) is loop_type and not is_foreign(sys._getframe(1)):
                raise loop.host.refuse(what)
            return original(*args, **named)

        def denied_plainly(_place: Any, *args: Any) -> Any:
            loop = running()
            if type(loop) is loop_type and not is_foreign(sys._getframe(1)):
                raise loop.host.refuse(what)
            return original(*args)

        return denied_plainly if original.__name__ == "urandom" else denied  # it is called often

    return make


def _reading(original: Any, loop_type: type[Any]) -> Callable[..., Any]:
    def read(self: Any, key: Any) -> Any:
        loop = running()
        if type(loop) is loop_type and _is_asked_for(sys._getframe(1)):
            raise loop.host.refuse("an environment variable")
        return original(self, key)

    def read_all(self: Any) -> Any:
        loop = running()
        if type(loop) is loop_type and _is_asked_for(sys._getframe(1)):
            raise loop.host.refuse("an environment variable")
        return original(self)

    return read_all if original.__name__ == "__iter__" else read


def _is_asked_for(frame: FrameType | None) -> bool:
    """True when somebody but Python itself wants to know: its library reads variables in passing."""
    start = frame
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    if frame is None or owner(frame.f_code.co_filename) == "python":
        return False
    return caller(start) != "stepwell" and not is_foreign(start)
