"""What the processes on one store tell each other of their commits: hints, which may be lost, late or doubled."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct

from stepwell.engine.clock import steady_s
from stepwell.engine.committed import Committed, Wake
from stepwell.store.port import SAID_BYTES, Store

#: Whoever has more runs than that to tell of tells the others to look at everything.
MOST = 5_000
#: How often claims follow what others say at the most.
READY_S = 0.1


class Text(Struct, array_like=True, gc=False):
    """What is said. Runs by number: all that were touched, those that ended, and those with news for their bodies.

    The news are (number, seq of the last). `ready`: tasks may be claimed.
    """

    runs: list[int] = []
    ended: list[int] = []
    woken: list[tuple[int, int]] = []
    ready: bool = False


_text = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Text).decode


class Said:
    """What this process has to tell others. Threads of lanes put in, another one takes out. Bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._runs, self._ended, self._woken = set[int](), set[int](), dict[int, int]()
        self._ready = self._much = False

    def put(self, committed: Committed) -> bool:
        """A commit was made; answers whether there is anything in it for others."""
        if not (committed.runs or committed.ready):
            return False
        with self._lock:
            self._ready |= committed.ready
            self._runs |= committed.runs
            self._ended |= committed.ended.keys()
            for number, wake in committed.wakes.items():
                self._woken[number] = max(wake.seq, self._woken.get(number, 0))
            if len(self._runs) > MOST:
                self._begin()
                self._much = True
        return True

    def texts(self) -> Sequence[str]:
        """All that was put in, in as few texts as can be; "" stands for everything."""
        with self._lock:
            text = Text(sorted(self._runs), sorted(self._ended), sorted(self._woken.items()), self._ready)
            much = self._much
            self._begin()
        if much:
            return ("",)
        return _split(text) if text.runs or text.ready else ()


def _split(text: Text) -> list[str]:
    said = _text(text)
    if len(said) <= SAID_BYTES:
        return [said.decode()]
    runs, ended, woken = len(text.runs) // 2, len(text.ended) // 2, len(text.woken) // 2
    first = Text(text.runs[:runs], text.ended[:ended], text.woken[:woken], text.ready)
    return [*_split(first), *_split(Text(text.runs[runs:], text.ended[ended:], text.woken[woken:]))]


def understood(text: str) -> Committed | None:
    """What another process said, as if it had been committed here; None: whatever there is may have changed."""
    if not text:
        return None
    try:
        said = _read(text)
    except msgspec.DecodeError:  # of a newer version
        return None
    wakes = {number: Wake(0, seq=seq) for number, seq in said.woken}
    return Committed(frozenset(said.runs), wakes, dict.fromkeys(said.ended), ready=said.ready)


class Others:
    """The other processes. `told` hears of each commit of theirs, and `missed` when there may have been any.

    Both are called on the event loop.
    """

    def __init__(self, told: Callable[[Committed], None], missed: Callable[[], None]) -> None:
        self.heard = 0
        self._told, self._missed = told, missed
        self._said = Said()
        self._ring: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready_soon: asyncio.TimerHandle | None = None
        self._ready_at = float("-inf")

    def join(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        """From now on, until the store is closed."""
        self._loop = loop
        self._ring = store.listen(self._overheard, self._said.texts)

    def tell(self, committed: Committed) -> None:
        """This process has committed. From any thread."""
        if self._ring is not None and self._said.put(committed):
            self._ring()

    def _overheard(self, text: str) -> None:
        """Called on a thread of the store."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._hear, understood(text))

    def _hear(self, committed: Committed | None) -> None:
        self.heard += 1
        if committed is None:
            self._missed()
            return
        if committed.ready:
            committed.ready = False
            self._tell_ready_soon()
        self._told(committed)

    def _tell_ready_soon(self) -> None:
        """At once, or a while after the last time: tasks of another process are for its own workers first."""
        if self._ready_soon is None and self._loop is not None:
            self._ready_soon = self._loop.call_later(max(0.0, self._ready_at + READY_S - steady_s()), self._tell_ready)

    def _tell_ready(self) -> None:
        self._ready_soon, self._ready_at = None, steady_s()
        self._told(Committed(ready=True))
