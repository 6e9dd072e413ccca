"""Reading a step's `FLOW_RESULT` line while it prints (source: seed, Runners; spec 2.3: the last one decides)."""

from typing import Any, Literal, get_args

from msgspec import Struct

from stepwell.flows.events import parse_event
from stepwell.flows.jsonvalue import Bounds, parse_json
from stepwell.model.errors import Invalid, TooLarge

MARK = "FLOW_RESULT "
MAX_RESULT_BYTES = 1024 * 1024
PIECE_CHARS = 64 * 1024
MAX_NEXT = 100

Status = Literal["skipped", "completed", "changed", "needs_intervention", "blocked", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)


class FlowResult(Struct, frozen=True):
    """What a step answered. `next` holds events in wire form (an id may be absent); `raw` is the whole JSON object."""

    status: Status
    message: str | None
    artifacts: dict[str, Any] | None
    next: tuple[dict[str, Any], ...]
    raw: dict[str, Any]


class ResultFault(Struct, frozen=True):
    """Why there is no usable result."""

    type: Literal["no_result", "bad_result", "too_large"]
    message: str


class ResultScanner:
    """Finds the last line with `FLOW_RESULT ` in chunks of stdout, in flat memory.

    What stands before the mark in its line is ignored, and so are lines without it. One line over `max_bytes`, with a
    mark in it or not, makes the whole answer `too_large`: who reads lines somewhere else could not take it either.
    """

    def __init__(self, max_bytes: int = MAX_RESULT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._piece = max(1, min(PIECE_CHARS, max_bytes // 4))  # 4: no line inside a piece can be over the bound
        self._carry = ""  # the end of the text seen, where a mark may have begun
        self._parts: list[str] | None = None  # the pieces behind the mark, while its line goes on
        self._line = 0  # the bytes of the line that goes on
        self._last: str | None = None  # the last whole result line
        self._over = False

    def feed(self, text: str) -> None:
        """Take the next chunk, of any length."""
        for start in range(0, len(text), self._piece):
            self._take(text[start : start + self._piece])

    def finish(self) -> FlowResult | ResultFault:
        """The answer of the whole output. Call once, after the last chunk."""
        if self._over:
            return ResultFault("too_large", f"a line of stdout is over {self._max_bytes} bytes; no line may be")
        if self._parts is not None:
            self._end_line(self._parts)
        if self._last is None:
            return ResultFault("no_result", "the step did not print a FLOW_RESULT line")
        return read_result(self._last, self._max_bytes)

    def _take(self, piece: str) -> None:
        self._measure(piece)
        if self._over:
            return
        if self._parts is not None:
            piece = self._collect(self._parts, piece)
        if self._parts is None:
            self._seek(self._carry + piece)

    def _measure(self, piece: str) -> None:
        head, newline, _ = piece.partition("\n")
        self._line += _size(head)
        if self._line > self._max_bytes:
            self._over, self._parts = True, None
        if newline:
            self._line = _size(piece.rpartition("\n")[2])

    def _seek(self, text: str) -> None:
        """Take the last whole line with a mark, however many there are, and begin the one that goes on."""
        end = text.rfind("\n") + 1
        found = text.rfind(MARK, 0, end)
        if found >= 0:
            start = text.find(MARK, text.rfind("\n", 0, found) + 1) + len(MARK)  # the first mark of its line
            self._last = text[start : text.index("\n", found)]
        _, mark, begun = text[end:].partition(MARK)
        self._parts = [begun] if mark else None
        self._carry = "" if mark else text[max(end, len(text) - len(MARK) + 1) :]

    def _collect(self, parts: list[str], text: str) -> str:
        piece, newline, rest = text.partition("\n")
        parts.append(piece)
        if newline:
            self._end_line(parts)
        return rest

    def _end_line(self, parts: list[str]) -> None:
        self._last = "".join(parts)
        self._parts = None


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def read_result(text: str, max_bytes: int = MAX_RESULT_BYTES) -> FlowResult | ResultFault:
    """Read the JSON of a result line."""
    try:
        raw = parse_json(text.strip(), what="FLOW_RESULT", bounds=Bounds(max_bytes=max_bytes))
        return _typed(raw)
    except TooLarge as error:
        return ResultFault("too_large", error.message)
    except Invalid as error:
        return ResultFault("bad_result", error.message)


def _typed(raw: Any) -> FlowResult:
    if not isinstance(raw, dict):
        raise Invalid("FLOW_RESULT must be a JSON object")
    if raw.get("status") not in STATUSES:
        raise Invalid(f"FLOW_RESULT status is {raw.get('status')!r:.80}; it must be one of {', '.join(STATUSES)}")
    message, artifacts = raw.get("message"), raw.get("artifacts")
    if not isinstance(message, str | None):
        raise Invalid("FLOW_RESULT message must be a text")
    if not isinstance(artifacts, dict | None):
        raise Invalid("FLOW_RESULT artifacts must be an object")
    return FlowResult(raw["status"], message, artifacts, _next_events(raw.get("next")), raw)


def _next_events(value: Any) -> tuple[dict[str, Any], ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_NEXT:
        raise Invalid(f"FLOW_RESULT next must be an array of at most {MAX_NEXT} events")
    for index, item in enumerate(value):
        _check_next(index, item)
    return tuple(value)


def _check_next(index: int, item: Any) -> None:
    # Checked here, so that an event which cannot be dispatched fails the step that made it, and not somebody later.
    if not isinstance(item, dict):
        raise Invalid(f"FLOW_RESULT next[{index}] must be an object")
    try:
        parse_event(item, now_iso="-", new_id=lambda: "-")
    except Invalid as error:
        raise Invalid(f"FLOW_RESULT next[{index}]: {error.message}") from None
