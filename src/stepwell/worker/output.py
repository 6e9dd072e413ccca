"""Streams a step's output into the store while it runs: in order, bounded, in few commits."""

import asyncio
import contextlib
import logging
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
    """Takes chunks at any speed; holds no more than the run may say at all, drops the rest, and says so once."""

    def __init__(self, held: Held, limit_bytes: int, chunk_chars: int = CHUNK_CHARS) -> None:
        self._held, self._left, self._chunk = held, limit_bytes, min(chunk_chars, CHUNK_CHARS)
        self._at = held.leased.output_n
        self._waiting: list[tuple[Stream, str]] = []
        self._more, self._closing = asyncio.Event(), asyncio.Event()
        self._cut = False
        self._task = asyncio.create_task(self._pump(), name="stepwell-output")

    def take(self, stream: Stream, text: str) -> None:
        """Queues what a step said."""
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
        self._more.set()

    async def close(self) -> None:
        """Sends what is left, and ends. A lost lease drops it."""
        self._closing.set()
        self._more.set()
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
            chunks = tuple(self._waiting[:CHUNKS_PER_COMMAND])
            del self._waiting[: len(chunks)]
            said: c.Said = await self._held.send(c.Say(self._held.lease, self._at, chunks))
            self._at, self._cut = said.next, said.cut
        if self._cut:
            self._waiting.clear()
