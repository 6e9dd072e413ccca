"""Streams a step's output into the store while it runs: in order, bounded, in few commits."""

import asyncio
import contextlib
import logging
import threading
from typing import Literal

from stepwell.model import commands as c
from stepwell.model.errors import StepwellError
from stepwell.worker.held import Held, LeaseLost

log = logging.getLogger("stepwell.worker")
Stream = Literal["stdout", "stderr", "agent"]
EVERY_S = 0.05
CHUNK_CHARS = 16_384
CHUNKS_PER_COMMAND = 16


class OutputPump:
    """Takes chunks at any speed; holds no more than the run may say at all, drops the rest, and says so once.

    Made on the event loop; `take` may be called from any thread.
    """

    def __init__(self, held: Held, limit_bytes: int, chunk_chars: int = CHUNK_CHARS) -> None:
        self._held, self._left, self._chunk = held, limit_bytes, min(chunk_chars, CHUNK_CHARS)
        self._at = held.leased.output_n
        self._waiting: list[tuple[Stream, str]] = []
        self._more, self._closing = asyncio.Event(), asyncio.Event()
        self._cut = self._told = False
        self._lock, self._loop = threading.Lock(), asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None  # most actions say nothing

    def take(self, stream: Stream, text: str) -> None:
        """Queues what a step said."""
        with self._lock:
            self._queue(stream, text)
            told, self._told = self._told, True
        if not told:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing more is kept
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        with self._lock:
            self._told = False
        if self._task is None and not self._closing.is_set():
            self._task = asyncio.create_task(self._pump(), name="stepwell-output")
        self._more.set()

    def _queue(self, stream: Stream, text: str) -> None:
        if self._cut or self._left < 0:
            return
        self._left -= len(text)
        for start in range(0, len(text), self._chunk):
            piece = text[start : start + self._chunk]
            last = self._waiting[-1] if self._waiting else None
            if last is not None and last[0] == stream and len(last[1]) + len(piece) <= self._chunk:
                self._waiting[-1] = (stream, last[1] + piece)
            else:
                self._waiting.append((stream, piece))

    async def close(self) -> None:
        """Sends what is left, and ends. A lost lease drops it."""
        if self._waiting:
            self._wake()
        self._closing.set()
        self._more.set()
        if self._task is not None:
            await self._task

    async def _pump(self) -> None:
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                await self._send_all()
                if self._closing.is_set():
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_S):
                        await self._closing.wait()
        except LeaseLost:
            self._cut = True
        except StepwellError:
            log.exception("run %s: what it says is not kept from here on", self._held.leased.run.id)
            self._cut = True

    async def _send_all(self) -> None:
        while self._waiting and not self._cut:
            with self._lock:
                chunks = tuple(self._waiting[:CHUNKS_PER_COMMAND])
                del self._waiting[: len(chunks)]
            said: c.Said = await self._held.send(c.Say(self._held.lease, self._at, chunks))
            self._at, self._cut = said.next, said.cut
        if self._cut:
            with self._lock:
                self._waiting.clear()
