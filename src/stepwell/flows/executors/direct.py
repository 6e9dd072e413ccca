"""Runs a process group of this machine: streamed, bounded, and ended for certain (spec, faults 14 and 16).

By this, executor `direct` runs a step itself, and `systemd-run` the client that waits for the step's unit.
"""

import asyncio
import codecs
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, cast

from msgspec import Struct

from stepwell.flows.executors.base import Job, Launch, temporary_place
from stepwell.flows.executors.guard import Late, Post
from stepwell.flows.runners.base import Tools

Stream = Literal["stdout", "stderr"]
OnOutput = Callable[[Stream, str], None]
Stop = Callable[[], Awaitable[None]]

MAX_CHUNK_CHARS = 64 * 1024
# After the group was killed: how long to read on when somebody who left the group still holds the pipes.
DRAIN_MS = 500
# How long the kernel may take to end a killed process (one that waits for a dead disk cannot be killed at all).
REAP_MS = 5_000
_POLL_S = 0.01


class Exit(Struct, frozen=True):
    """How a process ended. `code` is negative for a signal, None when it never ran; then `spawn_error` is set."""

    code: int | None = None
    timed_out: bool = False
    canceled: bool = False
    spawn_error: str | None = None


class DirectExecutor:
    """The step's own program, ended by signals to its process group."""

    def place(self, environ: Mapping[str, str]) -> Path:
        """The machine's own."""
        return temporary_place()

    @contextmanager
    def launch(self, job: Job, tools: Tools, environ: Mapping[str, str]) -> Iterator[Launch]:
        """The job as it is."""
        yield Launch(job.argv, job.env)


async def execute(
    argv: Sequence[str],
    *,
    cwd: str | Path,
    env: Mapping[str, str],
    stdin: bytes,
    timeout_ms: int,
    kill_grace_ms: int,
    on_output: OnOutput,
    cancel: asyncio.Event,
    post: Post,
    stop: Stop | None = None,
) -> Exit:
    """Run `argv` in a session of its own and wait for its end.

    `on_output` gets text in pieces of at most `MAX_CHUNK_CHARS`, in order per stream, while the process runs. Nothing
    is read while it works, so a process that prints faster has to wait. What it raises ends the process, and is raised
    here. At the timeout, or when `cancel` is set, `stop` is awaited, which is bounded itself; without one, the group
    gets TERM and, `kill_grace_ms` later, KILL. When the process ends by itself, what is left of its group is killed.
    Pipes that others still hold are read for `DRAIN_MS` more, not longer. `post` is relieved at the end. Raises `Late`
    when nothing was started since it is too late to begin.
    """
    with post:
        try:
            way = post.way(Path(cwd))
            if post.late:
                raise Late
            child = await _start(argv, way, {**env, **post.environ}, on_output)
        except (OSError, ValueError) as error:  # ValueError: a NUL in an argument or a variable
            if post.late:
                raise Late from None
            return Exit(spawn_error=_reason(error, argv, cwd))
        try:
            post.watch(child.group)
            child.send(stdin)
            return await _supervise(child, timeout_ms, kill_grace_ms, cancel, stop)
        finally:
            await child.dispose(stop)


async def _start(argv: Sequence[str], cwd: Path, env: Mapping[str, str], on_output: OnOutput) -> "_Child":
    loop = asyncio.get_running_loop()
    _, child = await loop.subprocess_exec(
        lambda: _Child(loop, on_output), *argv, cwd=cwd, env=dict(env), start_new_session=True
    )
    return child


def _reason(error: Exception, argv: Sequence[str], cwd: str | Path) -> str:
    if not Path(cwd).is_dir():
        return f"the working directory {cwd} does not exist"
    text = error.strerror if isinstance(error, OSError) else str(error)
    return f"cannot start {argv[0]}: {text}"


async def _supervise(
    child: "_Child", timeout_ms: int, kill_grace_ms: int, cancel: asyncio.Event, stop: Stop | None
) -> Exit:
    why = await _first(child, timeout_ms, cancel)
    if why != "ended":
        await (child.terminate(kill_grace_ms) if stop is None else stop())
    await child.finish()
    # Again, for what was being started meanwhile; and when the process was killed that waited for the step.
    if stop is not None and (why != "ended" or (child.code or 0) < 0):
        await stop()
    if child.failure is not None:
        raise child.failure
    return Exit(code=child.code, timed_out=why == "timeout", canceled=why == "cancel")


async def _first(child: "_Child", timeout_ms: int, cancel: asyncio.Event) -> Literal["ended", "timeout", "cancel"]:
    """Wait for the end, the timeout or the cancel, whichever comes first; the end wins a draw."""
    canceling: asyncio.Future[Any] = asyncio.ensure_future(cancel.wait())
    ended: asyncio.Future[Any] = child.ended
    try:
        await asyncio.wait({ended, canceling}, timeout=timeout_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
    finally:
        canceling.cancel()
    if child.ended.done():
        return "ended"
    return "cancel" if cancel.is_set() else "timeout"


class _Child(asyncio.SubprocessProtocol):
    """One process and its pipes. Works on the loop's callbacks, so nothing lies between the pipe and `on_output`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_output: OnOutput) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        self.failure: BaseException | None = None
        self._drained: asyncio.Future[None] = loop.create_future()
        self._decoders = {fd: codecs.getincrementaldecoder("utf-8")("replace") for fd in (1, 2)}
        self._on_output = on_output

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self.group = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        decoder = self._decoders.get(fd)  # None after `dispose`
        if decoder is not None:
            self._emit(fd, decoder.decode(data))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        decoder = self._decoders.pop(fd, None)  # stdin has none
        if decoder is not None:
            self._emit(fd, decoder.decode(b"", final=True))
        if not self._decoders:
            _resolve(self._drained)

    def process_exited(self) -> None:
        _resolve(self.ended)

    @property
    def code(self) -> int | None:
        return self._transport.get_returncode()

    def send(self, data: bytes) -> None:
        """Hand over stdin and close it. A process that does not read it, or closes it, is no error."""
        pipe = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))
        with suppress(RuntimeError):  # what uvloop says when the process has closed it already
            pipe.write(data)
            pipe.write_eof()

    def kill_group(self, number: signal.Signals) -> bool:
        """Signal the group; false when nobody is left in it."""
        try:
            os.killpg(self.group, number)
        except (ProcessLookupError, PermissionError):  # the second is what macOS says of a group of zombies
            return False
        return True

    async def terminate(self, grace_ms: int) -> None:
        """TERM, and time for the whole group to go; what is left is killed by `finish`."""
        self.kill_group(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_ms / 1000
        # Polled, since the kernel has no event for "this group is empty".
        while loop.time() < deadline and self._group_lives():  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    async def finish(self) -> None:
        """Kill what is left of the group, take in its end, and read the pipes out as far as that is bounded."""
        self.kill_group(signal.SIGKILL)
        await _within(REAP_MS, self.ended)
        await _within(DRAIN_MS, self._drained)

    async def dispose(self, stop: Stop | None) -> None:
        """Leave nothing behind, whatever happened before: also when our own task is canceled."""
        if not self.ended.done():
            self.kill_group(signal.SIGKILL)
            await _within(REAP_MS, self.ended)
            if stop is not None:
                await stop()
        self._decoders.clear()
        stdin = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))
        with suppress(RuntimeError):  # what uvloop says of a pipe that is closed already
            if stdin.get_write_buffer_size():  # else the loop would hold it until somebody reads it, and nobody does
                stdin.abort()
        self._transport.close()

    def _group_lives(self) -> bool:
        # A zombie leader still counts as a member until it is reaped, hence both questions.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, 0)
            return True
        return not self.ended.done()

    def _emit(self, fd: int, text: str) -> None:
        try:
            for start in range(0, len(text) if self.failure is None else 0, MAX_CHUNK_CHARS):
                self._on_output("stdout" if fd == 1 else "stderr", text[start : start + MAX_CHUNK_CHARS])
        except Exception as error:
            # Raised by our caller's code inside a callback of the loop: kept, and raised from `execute`.
            self.failure = error
            self.kill_group(signal.SIGKILL)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def _within(limit_ms: int, future: "asyncio.Future[None]") -> None:
    await asyncio.wait({future}, timeout=limit_ms / 1000)
