"""Each kind of client in front of real steps, all to be awaited; and a line in the middle that can be cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pytest

from stepwell.client import BlockingFlowClient, EmbeddedFlowClient, FlowClient, OutputChunk, RunView, open_flow_client
from stepwell.model.errors import StepwellError
from tests.server.support import Server, serving

Kind = str
KINDS: tuple[Kind, ...] = ("async", "blocking", "embedded")
OVER_HTTP: tuple[Kind, ...] = ("async", "blocking")
_END = object()


class Threaded:
    """A blocking client as an async one: each call in a thread."""

    def __init__(self, client: BlockingFlowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        async def call(*args: Any, **keys: Any) -> Any:
            return await asyncio.to_thread(method, *args, **keys)

        return self._watch if name == "watch" else call

    async def _watch(self, *args: Any) -> AsyncIterator[OutputChunk | RunView]:
        found = self._client.watch(*args)
        while (item := await asyncio.to_thread(next, found, _END)) is not _END:
            assert isinstance(item, get_args(OutputChunk | RunView))
            yield item


Flows = Any  # one of the three: what they have in common is what these tests are about


@asynccontextmanager
async def dialed(kind: Kind, url: str, **options: Any) -> AsyncIterator[Flows]:
    """A client over HTTP."""
    if kind == "async":
        async with FlowClient(url, **options) as flows:
            yield flows
    else:
        with BlockingFlowClient(url, **options) as blocking:
            yield Threaded(blocking)


@asynccontextmanager
async def opened(kind: Kind, cwd: Path, *args: str, **options: Any) -> AsyncIterator[Flows]:
    """A client of the flows in a folder."""
    if kind == "embedded":
        async with open_flow_client(cwd, **options) as flows:
            assert isinstance(flows, EmbeddedFlowClient)
            yield flows
    else:
        with serving(cwd, *args) as server:
            async with dialed(kind, server.url, **options) as flows:
                yield flows


async def refused(call: Awaitable[Any], kind: type[StepwellError], *texts: str) -> StepwellError:
    """The error of a call, which has a hint, and these texts in what it says."""
    with pytest.raises(kind) as caught:
        await call
    error = caught.value
    assert error.hint, error
    for text in texts:
        assert text in f"{error.message}\n{error.hint}"
    return error


class Line:
    """A port that passes bytes on to a server. `cut` ends what is open; `deaf` swallows the answers."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[asyncio.StreamWriter] = set()
        self.deaf = False
        self.dialed = self.swallowed = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, server: Server) -> AsyncIterator["Line"]:
        line = cls(server.port)
        listener = await asyncio.start_server(line._pass, "127.0.0.1", 0)
        line.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            yield line
        finally:
            listener.close()
            line.cut()

    url = ""

    def cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialed += 1
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._to)
        self._open |= {writer, there}
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, there), self._answers(there_reader, writer))
        for one in (writer, there):
            self._open.discard(one)
            one.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()

    async def _answers(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            if self.deaf:
                self.deaf = False
                self.swallowed += 1
                raise ConnectionResetError
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError
