"""Whose code runs: the user's line in a stack, and what may touch the real world there (source: spec workflow-loop 2).

A stack is read from its innermost frame to the pump of the workflow's loop; what lies beyond is the worker's.
"""

import os
import signal
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal

from stepwell.functions.errors import NondeterministicCall

Owner = Literal["user", "library", "python", "stepwell"]

_PYTHON = str(Path(os.__file__).parent) + os.sep
_PACKAGE = str(Path(__file__).parents[1]) + os.sep
#: What of this package runs in a pump by right. The rest, as a client that a body calls, is a library like others.
_STEPWELL = tuple(_PACKAGE + name + os.sep for name in ("workflow", "functions"))
_LOOP = str(Path(__file__).with_name("loop.py"))
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_PUMPS = ("pump", "inside")
#: Modules of Python that read files or call back for reasons of their own, wherever they are called from.
_INNER = (
    "<frozen importlib",
    "<frozen zipimport",
    "<frozen runpy",
    *(_PYTHON + name for name in ("importlib", "linecache", "traceback", "warnings", "inspect", "weakref", "zoneinfo")),
)
_HINTS = {
    "time.sleep()": "Use `await asyncio.sleep(...)` or `await ctx.sleep(...)`: both are durable.",
    "input()": "Wait for a signal: `await ctx.wait_for_signal(...)`.",
    "the random numbers of the system": "Use ctx.random or ctx.uuid(); put what must stay secret into a step.",
    "the real clock": "Use ctx.now().",
    "the real random generator": "Use ctx.random or ctx.uuid().",
    "an environment variable": "Give the run what it needs as input, or read it in a step.",
}
_HINT = "Put it into a step: `await ctx.step(...)`. What a step returns is recorded, and the same on every replay."


def refusal(what: str) -> NondeterministicCall:
    """The error for something real that was tried in a body just now. It names the user's line, and what to do."""
    return NondeterministicCall(
        f"{what} in the body of a workflow: {user_line(sys._getframe(1))}", hint=_HINTS.get(what, _HINT)
    )


def user_line(frame: FrameType | None) -> str:
    """`file:line in function` of the user's innermost code; that of a library when the user has none there."""
    best: FrameType | None = None
    for one in body_frames(frame):
        kind = owner(one.f_code.co_filename)
        if kind == "user":
            best = one
            break
        if kind == "library" and best is None:
            best = one
    if best is None:
        return "in a callback of the event loop"
    return f"{best.f_code.co_filename}:{best.f_lineno} in {best.f_code.co_name}"


def body_frames(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of a body, innermost first, without the pump and all that lies beyond."""
    while frame is not None and not is_pump(frame):
        yield frame
        frame = frame.f_back


def is_pump(frame: FrameType) -> bool:
    """True for the frame from which the code of a workflow is called."""
    return frame.f_code.co_name in _PUMPS and frame.f_code.co_filename == _LOOP


@lru_cache(maxsize=4_096)
def owner(filename: str) -> Owner:
    """Who wrote a file, told by where it lies."""
    if filename.startswith(_STEPWELL):
        return "stepwell"
    if filename.startswith(_PACKAGE) or any(part in filename for part in _PACKAGES):
        return "library"
    if filename.startswith((_PYTHON, "<frozen ")):
        return "python"
    return "user"


def caller(frame: FrameType | None) -> Owner:
    """Who, outside Python's own library, asked for what happens at a frame. A bare callback of the loop is a user's."""
    for one in body_frames(frame):
        kind = owner(one.f_code.co_filename)
        if kind != "python":
            return kind
    return "user"


def is_foreign(frame: FrameType | None) -> bool:
    """True where code runs inside a pump that is not the body's: imports, finalizers, signal handlers, our own."""
    if caller(frame) == "stepwell":
        return True
    frames = list(body_frames(frame))
    if any(one.f_code.co_name == "__del__" or one.f_code.co_filename.startswith(_INNER) for one in frames):
        return True
    handlers = _signal_handlers()
    return any(one.f_code in handlers for one in frames)


def _signal_handlers() -> set[CodeType]:
    found = (_code(signal.getsignal(number)) for number in signal.valid_signals())
    return {code for code in found if code is not None}


def _code(handler: Any) -> CodeType | None:
    """The code of a function, a method, or a partial of one."""
    handler = getattr(handler, "func", handler)
    handler = getattr(handler, "__func__", handler)
    code = getattr(handler, "__code__", None)
    return code if isinstance(code, CodeType) else None
