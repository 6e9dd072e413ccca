"""The clocks of Python in a body: all show the workflow's time, which moves when an entry is delivered.

Local time keeps the zone of the machine, as `datetime.fromtimestamp` has it; `ctx.now()` is in UTC. `datetime` is
written in C and cannot be assigned to, so its own dictionary is changed, after a test that the interpreter goes along.
"""

import ctypes
import datetime
import gc
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from stepwell.workflow.seams import Seam, original_of, running

Clock = Callable[[], Any]
_SECONDS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
_UTCNOW_IS_OLD = "datetime.datetime.utcnow() is deprecated: use datetime.datetime.now(datetime.UTC)."


def seams(loop_type: type[Any]) -> list[Seam]:
    """The replacements in module `time`."""
    seconds = [Seam(time, name, lambda original: _seconds(original, loop_type)) for name in _SECONDS]
    nanos = [Seam(time, f"{name}_ns", lambda original: _nanoseconds(original, loop_type)) for name in _SECONDS]
    gets = [
        Seam(time, "clock_gettime", lambda original: _of_a_clock(original, loop_type, float)),
        Seam(time, "clock_gettime_ns", lambda original: _of_a_clock(original, loop_type, _in_ns)),
    ]
    parts = [Seam(time, name, lambda original: _now_if_none(original, loop_type)) for name in _PARTS]
    texts = [
        Seam(time, "asctime", lambda original: _asctime(original, loop_type)),
        Seam(time, "strftime", lambda original: _strftime(original, loop_type)),
    ]
    return [*seconds, *nanos, *gets, *parts, *texts]


_PARTS = ("localtime", "gmtime", "ctime")


def _in_ns(seconds: float) -> int:
    return round(seconds * 1_000_000) * 1_000


def _seconds(original: Clock, loop_type: type[Any]) -> Callable[..., Any]:
    def now(_place: Any) -> Any:
        loop = running()
        if type(loop) is loop_type:
            return loop.host.now_s()
        return original()

    return now


def _nanoseconds(original: Clock, loop_type: type[Any]) -> Callable[..., Any]:
    def now_ns(_place: Any) -> Any:
        loop = running()
        if type(loop) is loop_type:
            return _in_ns(loop.host.now_s())
        return original()

    return now_ns


def _of_a_clock(original: Any, loop_type: type[Any], unit: Callable[[float], Any]) -> Callable[..., Any]:
    def clock_gettime(_place: Any, clock: int, /) -> Any:
        loop = running()
        return unit(loop.host.now_s()) if type(loop) is loop_type else original(clock)

    return clock_gettime


def _now_if_none(original: Any, loop_type: type[Any]) -> Callable[..., Any]:
    def parts(_place: Any, seconds: float | None = None, /) -> Any:
        if seconds is None:
            loop = running()
            if type(loop) is loop_type:
                return original(loop.host.now_s())
        return original(seconds)

    return parts


def _asctime(original: Any, loop_type: type[Any]) -> Callable[..., str]:
    def asctime(_place: Any, *when: Any) -> str:
        if not when and type(running()) is loop_type:
            when = (time.localtime(),)
        return str(original(*when))

    return asctime


def _strftime(original: Any, loop_type: type[Any]) -> Callable[..., str]:
    def strftime(_place: Any, pattern: str, *when: Any) -> str:
        if not when and type(running()) is loop_type:
            when = (time.localtime(),)
        return str(original(pattern, *when))

    return strftime


# ── datetime ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def put_datetime(loop_type: type[Any]) -> bool:
    """Replaces `now`, `utcnow` and `today`; twice does nothing. False when this interpreter does not let us."""
    makes: list[tuple[type, str, Callable[[Any, type], Callable[..., Any]]]] = [
        (datetime.datetime, "now", _now),
        (datetime.datetime, "utcnow", _utcnow),
        (datetime.date, "today", _today),
    ]
    for holder, name, make in makes:
        original = vars(holder)[name]
        if _original(original) is None and not _set(holder, name, _class_method(make(original, loop_type), original)):
            take_datetime_back()
            return False
    return True


def take_datetime_back() -> None:
    """Puts the originals back."""
    for holder, name in ((datetime.datetime, "now"), (datetime.datetime, "utcnow"), (datetime.date, "today")):
        original = _original(vars(holder)[name])
        if original is not None:
            _set(holder, name, original)


def _original(value: Any) -> Any:
    return original_of(value.__func__) if isinstance(value, classmethod) else None


def _class_method(function: Callable[..., Any], original: Any) -> Any:
    function.__doc__ = original.__doc__
    vars(function)["stepwell_original"] = original
    return classmethod(function)


_LOOKS: dict[str, Callable[[], Any]] = {
    "now": lambda: datetime.datetime.now,
    "utcnow": lambda: datetime.datetime.utcnow,
    "today": lambda: datetime.date.today,
}


def _set(holder: type, name: str, value: Any) -> bool:
    """Sets an attribute of an immutable type, and says whether code that has run before sees it."""
    if sys.implementation.name != "cpython":
        return False
    look = _LOOKS[name]
    before = [look() for _ in range(64)]  # the interpreter keeps where it found an attribute
    found = [one for one in gc.get_referents(vars(holder)) if isinstance(one, dict) and name in one]
    if len(found) != 1:
        return False
    found[0][name] = value
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(holder))
    return vars(holder)[name] is value and look() != before[0]


def _now(original: Any, loop_type: type[Any]) -> Callable[..., Any]:
    def now(cls: Any, tz: datetime.tzinfo | None = None) -> Any:
        loop = running()
        if type(loop) is loop_type:
            return cls.fromtimestamp(loop.host.now_s(), tz)
        return original(cls, tz)

    return now


def _utcnow(original: Any, loop_type: type[Any]) -> Callable[..., Any]:
    def utcnow(cls: Any) -> Any:
        loop = running()
        if type(loop) is loop_type:
            return cls.fromtimestamp(loop.host.now_s(), datetime.UTC).replace(tzinfo=None)
        if sys.version_info < (3, 12):
            return original(cls)
        warnings.warn(_UTCNOW_IS_OLD, DeprecationWarning, stacklevel=2)  # the original's would name this line
        return cls.now(datetime.UTC).replace(tzinfo=None)

    return utcnow


def _today(original: Any, loop_type: type[Any]) -> Callable[..., Any]:
    def today(cls: Any) -> Any:
        loop = running()
        if type(loop) is loop_type:
            return cls.fromtimestamp(loop.host.now_s())
        return original(cls)

    return today
