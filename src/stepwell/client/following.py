"""Following what a run says, without I/O: Server-Sent Events in, chunks out, and where to go on after a loss.

Source: HTML standard, 9.2 Server-sent events; the frames: `output` with the chunk's number as id, `end` with the run.
"""

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from stepwell.client.calls import segment
from stepwell.client.exchange import Answer, Ask, Backoff, Lost, may_repeat, refusal
from stepwell.client.reading import chunk_of, run_of
from stepwell.client.views import OutputChunk, RunView
from stepwell.model.errors import Malformed, TooLarge, Unavailable

EVENTS = "text/event-stream"
#: A server says something each 15 s; one that is silent for this long is lost. Seconds.
SILENT_S = 60.0
MAX_FRAME_BYTES = 128 << 20
_HINT = "Check base_url: is that a Stepwell server?"


class Frame(Struct, frozen=True):
    """One event of a stream."""

    event: str
    data: str


class Frames:
    """Cuts bytes into frames; holds one unfinished frame at most."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes, self._size = max_bytes, 0
        self._lines: list[bytes] = []
        self._rest: list[bytes] = []  # pieces of a line that goes on

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that end in these bytes. Raises `TooLarge`."""
        self._size += len(data)
        *lines, rest = data.split(b"\n")
        for line in lines:
            whole = b"".join((*self._rest, line)).removesuffix(b"\r")
            self._rest = []
            if whole:
                self._lines.append(whole)
            else:
                yield from self._ended()
        self._rest.append(rest)
        if self._size > self._max_bytes:
            hint = "Read the output in pages instead."
            raise TooLarge("the stream has too large a frame", hint=hint, what="frame", limit=self._max_bytes)

    def _ended(self) -> Iterator[Frame]:
        event, data = "message", list[str]()
        for line in self._lines:
            name, _, value = line.decode(errors="replace").partition(":")
            if name == "event":
                event = value.removeprefix(" ")
            elif name == "data":
                data.append(value.removeprefix(" "))
        self._lines, self._size = [], 0
        if data:
            yield Frame(event, "\n".join(data))


class Following:
    """One run that is followed, over as many connections as it takes."""

    def __init__(self, run_id: str, after: int, backoff: Backoff, timeout_s: float) -> None:
        self._path = f"/runs/{segment('run_id', run_id)}/output"
        self._last, self._backoff, self._timeout_s = after, backoff, timeout_s
        self._failures, self._pause_s = 0, 0.0
        self._frames = Frames()
        self.ended = False

    def ask(self) -> Ask:
        """The request that opens the stream where it was lost. Its timeout is that of a silence."""
        self._frames = Frames()
        return Ask(
            path=self._path,
            query=(("after", str(self._last)),),
            headers=(("accept", EVENTS), ("last-event-id", str(self._last))),
            timeout_s=max(SILENT_S, self._timeout_s),
            pause_s=self._pause_s,
        )

    def check(self, content_type: str) -> None:
        """Raises `Malformed` for an answer that is no stream."""
        if content_type.partition(";")[0].strip().lower() != EVENTS:
            raise Malformed(f"the server answered with {content_type!r:.80}, not with a stream", hint=_HINT)

    def took(self, data: bytes) -> Iterator[OutputChunk | RunView]:
        """What these bytes tell: chunks that are new, and at last the run."""
        for frame in self._frames.feed(data):
            item = _item(frame)
            self._failures = 0
            if isinstance(item, RunView):
                self.ended = True
                yield item
                return
            if item is not None and item.n > self._last:
                self._last = item.n
                yield item

    def lost(self, got: Answer | Lost | None = None) -> None:
        """The stream ended before the run did, or was refused: sets the pause before the next, or raises."""
        got = got or Lost(Unavailable("the stream ended before the run did", hint="Follow it again."))
        self._failures += 1
        if not may_repeat(self.ask(), got) or self._failures >= self._backoff.tries:
            raise refusal(got) if isinstance(got, Answer) else got.error
        self._pause_s = self._backoff.pause_s(self._failures, got)


def _item(frame: Frame) -> OutputChunk | RunView | None:
    if frame.event not in ("output", "end"):
        return None
    try:
        data = msgspec.json.decode(frame.data)
    except (ValueError, RecursionError):
        raise Malformed("the stream has an event that is no JSON", hint=_HINT) from None
    if frame.event == "output":
        return chunk_of(data)
    return run_of(data.get("run") if isinstance(data, dict) else None)
