"""The environment of workflow bodies: nothing in them may differ on a replay, and nothing real may happen there.

Clocks, random numbers and ids are the run's; `print` and `logging` are silent on a replay; real I/O is refused
(source: spec workflow-loop 2 and 6, orchestrator B.9). All of it is in place from the first worker of a process on, and
outside of bodies everything is as before.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stepwell.workflow import audit, chance, clocks, denials, said
from stepwell.workflow.seams import Ambient, Seam, outside, put, swap_closure, swap_modules, take_back
from stepwell.workflow.watchdog import Watchdog

__all__ = ["Ambient", "Environment", "install", "outside", "uninstall"]

log = logging.getLogger("stepwell.workflow")


def install(loop_type: type[Any]) -> "Environment":
    """Makes the environment of bodies deterministic: code is in one while a loop of this type is the thread's running
    loop, and `loop.host` is its `Ambient`. Twice changes nothing more. Make one for each thread that pumps.
    """
    seams = _seams(loop_type)
    put(seams)
    whole = clocks.put_datetime(loop_type)
    if not whole:
        log.warning("datetime.now() cannot be replaced on this Python: in a workflow's body use ctx.now()")
    audit.install(loop_type)
    return Environment(seams)


def uninstall(loop_type: type[Any]) -> None:
    """Puts everything back but the audit hook, which cannot be removed and refuses nothing any more."""
    audit.disarm()
    clocks.take_datetime_back()
    take_back(_seams(loop_type))


def _seams(loop_type: type[Any]) -> list[Seam]:
    return [*clocks.seams(loop_type), *chance.seams(loop_type), *denials.seams(loop_type), *said.seams(loop_type)]


class Environment:
    """What surrounds the pumps of one thread. `close` ends its watchdog."""

    def __init__(self, seams: list[Seam]) -> None:
        self._seams = seams
        self._modules = 0
        self.watchdog = Watchdog()

    def prepare(self, function: Any) -> None:
        """Call it with the function of each workflow: names that were imported before are replaced, in all modules."""
        if len(sys.modules) != self._modules:
            swap_modules(self._seams)
            self._modules = len(sys.modules)
        swap_closure(function, self._seams)

    def pump_started(self, workflow: str, run_id: str) -> None:
        """A pump begins, in this thread."""
        self.watchdog.pump_started(workflow, run_id)

    def pump_ended(self) -> None:
        """The pump is over, however it ended."""
        self.watchdog.pump_ended()

    @contextmanager
    def pump(self, workflow: str, run_id: str) -> Iterator[None]:
        """Both around a pump."""
        self.pump_started(workflow, run_id)
        try:
            yield
        finally:
            self.pump_ended()

    def close(self) -> None:
        """Ends the watchdog's thread."""
        self.watchdog.close()
