"""The turn in which a script runs: what is told of it, and when it is over (source: spec codex-flows 3.2; fault 15)."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from stepwell.flows.codemode.failure import CodeModeFailure
from stepwell.flows.codemode.messages import Notification, shorten
from stepwell.flows.result import MARK, FlowResult, ResultFault, ResultScanner, read_result

AGENT_DELTA = "item/agentMessage/delta"
COMMAND_DELTA = "item/commandExecution/outputDelta"
_BROKEN = {"turn/failed": "failed", "thread/closed": "was closed with its thread", "thread/deleted": "lost its thread"}


class Turn:
    """Takes the notifications of one thread; those of others are not for us. Keeps no text, only results."""

    def __init__(self, on_text: Callable[[str], None], note: Callable[[str], None]) -> None:
        self._on_text, self._note = on_text, note
        self._agent, self._command = ResultScanner(), ResultScanner()
        self._item: Any = None
        self._has_agent_text = False
        self.thread_id: str | None = None
        self.id: str | None = None
        self.is_over = False

    def take(self, notification: Notification) -> None:
        """Take one in. Raises `CodeModeFailure` when it says that the turn came to nothing."""
        method, params = notification.method, notification.params
        if params.get("threadId", self.thread_id) != self.thread_id:
            return
        if method in (AGENT_DELTA, COMMAND_DELTA):
            self._take_delta(method, params)
        elif self.is_over:
            return
        elif method == "turn/started":
            self.id = _text(_member(params, "turn"), "id")
        elif method == "turn/completed":
            self._complete(_member(params, "turn"))
        elif method == "error":
            self._take_error(params)
        elif method in _BROKEN:
            raise _broken(_BROKEN[method], _member(params, "turn") or params)

    def said(self) -> FlowResult | ResultFault:
        """The result in what was streamed. What commands printed counts only if Codex itself said nothing at all."""
        return (self._agent if self._has_agent_text else self._command).finish()

    def _take_delta(self, method: str, params: dict[str, Any]) -> None:
        delta = _text(params, "delta")
        if not delta:
            return
        self._on_text(delta)
        if method == COMMAND_DELTA:
            self._command.feed(delta)
            return
        if params.get("itemId") != self._item:  # another message is another line
            self._agent.feed("\n")
        self._item, self._has_agent_text = params.get("itemId"), True
        self._agent.feed(delta)

    def _complete(self, turn: dict[str, Any]) -> None:
        status = turn.get("status", "completed")
        if status != "completed":
            raise _broken("was interrupted" if status == "interrupted" else "failed", turn)
        self.is_over = True

    def _take_error(self, params: dict[str, Any]) -> None:
        if params.get("willRetry") is not True:
            raise _broken("failed", params)
        self._note(f"Codex tries again: {_reason(params)}")


def thread_result(answer: Any) -> FlowResult | ResultFault:
    """The result in the messages of the agent that `thread/read` gives."""
    lines = (line for text in _agent_messages(answer) for line in text.split("\n") if MARK in line)
    last = deque(lines, maxlen=1)
    if not last:
        return ResultFault("no_result", "Codex did not say a FLOW_RESULT line")
    return read_result(last[0].partition(MARK)[2])


def _agent_messages(answer: Any) -> Iterator[str]:
    for turn in _members(_member(answer, "thread"), "turns"):
        for item in _members(turn, "items"):
            if item.get("type") == "agentMessage":
                yield _text(item, "text") or ""


def _broken(what: str, about: dict[str, Any]) -> CodeModeFailure:
    return CodeModeFailure(f"the turn {what}: {_reason(about)}", hint="See what Codex said before.")


def _reason(about: dict[str, Any]) -> str:
    error = _member(about, "error")
    parts = (_text(error, "message"), _text(error, "additionalDetails"))
    return shorten("; ".join(part for part in parts if part)) or "no reason was given"


def _member(value: Any, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _members(value: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = value.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _text(value: dict[str, Any], name: str) -> str | None:
    found = value.get(name)
    return found if isinstance(found, str) else None
