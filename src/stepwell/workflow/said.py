"""What a body says, by `print` and `logging`: silent on a replay, and live with the run's id and the step's path.

It is written outside the body, so that a handler may do what it likes: open a file, send a request, ask for the time.
"""

import builtins
import io
import logging
import sys
from collections.abc import Callable
from typing import Any

from stepwell.workflow.seams import Ambient, Seam, outside, running


def seams(loop_type: type[Any]) -> list[Seam]:
    """The replacements of `print` and of what every logger passes its records through."""
    return [
        Seam(builtins, "print", lambda original: _print(original, loop_type)),
        Seam(logging.Logger, "handle", lambda original: _handle(original, loop_type)),
    ]


def workflow_logger(name: str, host: Ambient) -> "logging.LoggerAdapter[logging.Logger]":
    """`ctx.log` of a run: logger `stepwell.workflow.<name>`, silent while `host` is replaying."""
    return BodyLog(logging.getLogger(f"stepwell.workflow.{name}"), host)


class BodyLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that tells run and step, in a body as well as where the environment is not replaced."""

    def __init__(self, logger: logging.Logger, host: Ambient) -> None:
        super().__init__(logger, {})
        self._host = host

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's own name
        """False on a replay, whatever the level."""
        return not self._host.replaying and super().isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **named: Any) -> None:
        """As every logger's; nothing on a replay. The user's `extra` is kept."""
        if self.isEnabledFor(level):
            extra = {**(named.pop("extra", None) or {}), **_attributes(self._host)}
            named["stacklevel"] = named.get("stacklevel", 1) + 1
            self.logger.log(level, _prefixed(msg, args, self._host), *args, extra=extra, **named)


def _attributes(host: Ambient) -> dict[str, str]:
    return {"run_id": host.run_id, "step": host.step_path()}


def _prefix(host: Ambient) -> str:
    step = host.step_path()
    return f"[{host.run_id} {step}]" if step else f"[{host.run_id}]"


def _print(original: Any, loop_type: type[Any]) -> Callable[..., None]:
    def print_(_place: Any, *values: object, **how: Any) -> None:
        loop = running()
        if type(loop) is not loop_type or not _is_screen(how.get("file")):
            original(*values, **how)
        elif not loop.host.replaying:
            text = io.StringIO()
            original(*values, **{**how, "file": text, "end": "", "flush": False})
            with outside():
                original(_prefix(loop.host), text.getvalue(), **{**how, "sep": " "})

    return print_


def _is_screen(file: Any) -> bool:
    """Text printed into a buffer is a value like others, on a replay, too."""
    return file is None or file in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)


def _handle(original: Any, loop_type: type[Any]) -> Callable[..., Any]:
    def handle(self: logging.Logger, record: logging.LogRecord) -> Any:
        loop = running()
        if type(loop) is not loop_type:
            return original(self, record)
        host: Ambient = loop.host
        if host.replaying:
            return None
        _dress(record, host)
        with outside():
            _stamp(record)
            return original(self, record)

    return handle


def _dress(record: logging.LogRecord, host: Ambient) -> None:
    if vars(record).get("run_id") != host.run_id:  # `ctx.log` has done it
        vars(record).update(_attributes(host))
        record.msg = _prefixed(record.msg, record.args, host)


def _prefixed(msg: object, args: object, host: Ambient) -> Any:
    """A message that tells run and step; one that is data and no text stays as it is."""
    if isinstance(msg, dict):
        return msg
    prefix = _prefix(host)
    return f"{prefix.replace('%', '%%') if args else prefix} {msg}"


def _stamp(record: logging.LogRecord) -> None:
    """A log has the real time."""
    now = logging.LogRecord("", 0, "", 0, "", (), None)
    record.created, record.msecs, record.relativeCreated = now.created, now.msecs, now.relativeCreated
