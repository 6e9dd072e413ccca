"""A net for what the replaced names do not catch: the first pumps of each workflow run under a profile function.

It sees every call of a C function, so it finds a `time.time` that was kept somewhere before it could be replaced.
"""

import datetime
import sys
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FrameType
from typing import Any

from stepwell.workflow.chance import real_generators
from stepwell.workflow.seams import Seam, original_of, replaced, running
from stepwell.workflow.where import is_foreign

#: Pumps of one workflow function, in one process, that are watched.
WATCHED_PUMPS = 32


class Net:
    """For the pumps of one thread: `started` and `ended` are called around each."""

    def __init__(self, seams: Iterable[Seam], *, always: bool = False, pumps: int = WATCHED_PUMPS) -> None:
        """`seams` are the replacements that are installed; `always` is for an interpreter that refuses some of them."""
        self._banned = _banned(seams)
        self._pumps, self._always = pumps, always
        self._seen: dict[str, int] = {}
        self.open = False

    def started(self, name: str) -> None:
        """A pump of the workflow function `name` begins. Does nothing while a profiler is at work."""
        seen = self._seen.get(name, 0)
        if (seen < self._pumps or self._always) and sys.getprofile() is None:
            self._seen[name] = seen + 1
            self.open = True
            sys.setprofile(self._look)

    def ended(self) -> None:
        """The pump is over."""
        if self.open:
            self.open = False
            sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call" and type(arg) is BuiltinFunctionType and arg in self._banned:
            self._refuse(frame, arg)

    def _refuse(self, frame: FrameType, function: Any) -> None:
        loop = running()
        if hasattr(loop, "host") and not is_foreign(frame):
            raise loop.host.refuse(self._banned[function])


def _banned(seams: Iterable[Seam]) -> dict[Any, str]:
    """C functions that no body may reach, and what they are."""
    clocks = {original: "the real clock" for original, _ in replaced(seams) if _is_of(original, "time")}
    today: tuple[Callable[..., Any], ...] = (datetime.datetime.now, datetime.datetime.utcnow, datetime.date.today)
    kept = {one: "the real clock" for one in today if isinstance(one, BuiltinFunctionType)}
    chance: dict[Any, str] = {}
    for one in real_generators():
        chance[original_of(one) or one] = "the real random generator"
    return {**clocks, **kept, **chance}


def _is_of(function: Any, module: str) -> bool:
    return isinstance(function, BuiltinFunctionType) and function.__module__ == module
