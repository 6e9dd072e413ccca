"""The app-server as a child of ours, in our process group, and the pipes to it (source: spec codex-flows 3.2).

Its stderr is ours. Its group is ours, so that a timeout, a cancel, and the guard of the step reach it, too.
"""

import asyncio
from collections.abc import Sequence
from typing import cast

from stepwell.flows.codemode.failure import CodeModeFailure
from stepwell.flows.codemode.peer import MAX_LINE_BYTES

# After it exited: how long to read on when somebody else still holds the pipe.
DRAIN_S = 0.5
# How long it may take to go when its stdin is closed, and again after TERM.
CLOSE_S = 1.0


class StdioTransport:
    """Newline-delimited messages."""

    def __init__(self, process: "_Process") -> None:
        self._process = process

    async def send(self, text: str) -> None:
        """Not held up by a server that does not read yet; one that never does is given up at `MAX_LINE_BYTES`."""
        pipe = self._process.stdin
        if pipe.get_write_buffer_size() > MAX_LINE_BYTES:
            raise CodeModeFailure("the app-server does not read what it is sent")
        if not pipe.is_closing():
            pipe.write(text.encode() + b"\n")

    async def receive(self) -> bytes:
        try:
            line = await self._process.reader.readline()
        except ValueError:
            raise CodeModeFailure(f"the app-server sent a line of more than {MAX_LINE_BYTES} bytes") from None
        if not line:
            raise CodeModeFailure(await self._process.end())
        return line

    async def close(self) -> None:
        self._process.stdin.close()
        await asyncio.wait({self._process.exited}, timeout=CLOSE_S)
        if not self._process.exited.done():
            self._process.transport.terminate()
            await asyncio.wait({self._process.exited}, timeout=CLOSE_S)
        self._process.transport.close()  # kills it if it is still there


async def start(command: Sequence[str]) -> StdioTransport:
    """Start the app-server in our working directory and environment. Raises `CodeModeFailure`."""
    loop = asyncio.get_running_loop()
    try:
        _, process = await loop.subprocess_exec(lambda: _Process(loop), *command, stderr=None)
    except OSError as error:
        raise CodeModeFailure(f"cannot start {command[0]}: {error.strerror}") from None
    return StdioTransport(process)


class _Process(asyncio.SubprocessProtocol):
    """Its end counts, not that of its pipes: a grandchild may hold them for ever (fault 15)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.reader = asyncio.StreamReader(limit=MAX_LINE_BYTES, loop=loop)
        self.exited: asyncio.Future[None] = loop.create_future()
        self._is_read = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.SubprocessTransport", transport)
        self.stdin = cast("asyncio.WriteTransport", self.transport.get_pipe_transport(0))
        stdout = self.transport.get_pipe_transport(1)
        if stdout is not None:
            self.reader.set_transport(stdout)  # makes a server that says too much wait

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if not self._is_read:
            self.reader.feed_data(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._end_reading()

    def process_exited(self) -> None:
        self.exited.set_result(None)
        self._loop.call_later(DRAIN_S, self._end_reading)

    async def end(self) -> str:
        """How it ended, after its last line."""
        await asyncio.wait({self.exited}, timeout=DRAIN_S)
        code = self.transport.get_returncode()
        if code is None:
            return "the app-server closed its stdout"
        return f"the app-server was ended by signal {-code}" if code < 0 else f"the app-server exited with {code}"

    def _end_reading(self) -> None:
        self._is_read = True
        self.reader.feed_eof()
