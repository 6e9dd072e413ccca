"""What waits, as a mutation meets it: a sleep, a condition (an event, a queue, a future's result), a thread's start.

Older Pythons have no audit event for these.

They are replaced for the whole process, once, since functions run on threads beside others; elsewhere they do what they
did. `swap` does the same for a name that a module imported before.
"""

import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

Refuse = Callable[[str], None]


class Waits:
    """The originals, and who is asked before one is called. Replacements are its methods: they bind to nothing else."""

    def __init__(self) -> None:
        self.refuse: Refuse | None = None
        self._sleep: Callable[[float], None] = time.sleep
        self._start: Callable[..., int] | None = vars(threading).get("_start_new_thread")

    def __reduce__(self) -> tuple[Any, ...]:
        return kept, ()  # sent to another process, it stands for the one there

    def sleep(self, seconds: float, /) -> None:
        """Waits, but not in a mutation."""
        if self.refuse is not None:
            self.refuse("sleep")
        self._sleep(seconds)

    def start_new_thread(self, *given: Any) -> int:
        """Starts a thread, but not in a mutation."""
        if self.refuse is not None:
            self.refuse("start_new_thread")
        assert self._start is not None, "it stands where the original stood"
        return self._start(*given)

    def install(self, refuse: Refuse) -> None:
        """Puts them in place. Twice does nothing."""
        if self.refuse is None:
            self.refuse = refuse
            vars(time)["sleep"] = self.sleep
            setattr(threading.Condition, "wait", _waiting(threading.Condition.wait, refuse))  # noqa: B010 - no assignment for mypy
            if self._start is not None:
                vars(threading)["_start_new_thread"] = self.start_new_thread

    def swap(self, names: dict[str, Any]) -> None:
        """Replaces the names that a module imported before."""
        for name, value in list(names.items()):
            under = getattr(getattr(value, "__self__", None), "original", value)  # another replacement's original
            if under is self._sleep:
                names[name] = self.sleep


def _waiting(original: Callable[..., bool], refuse: Refuse) -> Callable[..., bool]:
    @wraps(original)
    def wait(condition: threading.Condition, timeout: float | None = None) -> bool:
        refuse("waiting for a lock")
        return original(condition, timeout)

    return wait


_WAITS = Waits()


def kept() -> Waits:
    """The one of this process."""
    return _WAITS
