"""Servers that are away, restart, refuse, or answer nonsense; lines that break (source: spec codex-flows 6.1)."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stepwell.client import BlockingFlowClient, FlowClient, OutputChunk, RunView
from stepwell.client.options import ClientOptions
from stepwell.model.errors import (
    Forbidden,
    Internal,
    Invalid,
    Limited,
    Malformed,
    StepwellError,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unknown,
)
from tests.client.support import OVER_HTTP, Line, dialed, refused
from tests.server.support import OK, Server, flow, serving

EVENT = {"id": "e", "type": "demo", "payload": None}
SAYS = """echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; """ + OK


@pytest.fixture(params=OVER_HTTP)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


class Fake:
    """A server that says what it is told to, one answer a request, the last for ever; and keeps the requests."""

    def __init__(self, *answers: bytes) -> None:
        self._answers, self.requests = list(answers), list[bytes]()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(one[15:]) for one in head.lower().split(b"\r\n") if one.startswith(b"content-length:")), 0)
        self.requests.append(head + await reader.readexactly(length))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        writer.write(answer)
        await writer.drain()
        writer.close()


def says(status: int, body: Any = b"", **headers: str) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} x\r\ncontent-length: {len(text)}\r\nconnection: close\r\n{more}\r\n".encode() + text


@asynccontextmanager
async def fake(*answers: bytes) -> AsyncIterator[Fake]:
    made = Fake(*answers)
    listener = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield made


def test_a_server_that_is_not_there_is_unavailable(kind: str) -> None:
    async def main() -> None:
        async with fake(b"") as gone:
            url = gone.url
        async with dialed(kind, url, tries=2) as flows:
            await refused(flows.list_runs(), Unavailable, url, "stepwell serve")
            await refused(flows.cancel("r"), Unavailable, url)
            await refused(anext(aiter(flows.watch("r"))), Unavailable, url)

    asyncio.run(main())


def test_a_server_that_says_nothing_is_given_up_in_time(kind: str) -> None:
    async def main() -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()  # the kernel takes connections, and nobody answers them
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            async with dialed(kind, url, timeout_s=0.3) as flows:
                started = asyncio.get_running_loop().time()
                await refused(flows.list_runs(), Unavailable, "did not answer in time")
                error = await refused(flows.cancel("r"), Unavailable)
                assert "may have been carried out" in error.hint
                assert asyncio.get_running_loop().time() - started < 3

    asyncio.run(main())


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(kind: str, status: int) -> None:
    async def main() -> None:
        busy, well = says(status, {"error": "busy", "code": "unavailable", "hint": "later"}), says(200, {"runs": []})
        async with fake(busy, busy, well) as server, dialed(kind, server.url) as flows:
            assert len(await flows.list_runs()) == 0
            assert len(server.requests) == 3
        async with fake(busy) as server, dialed(kind, server.url, tries=3) as flows:
            await refused(flows.list_runs(), Unavailable, "busy", "later")
            assert len(server.requests) == 3
        async with fake(busy) as server, dialed(kind, server.url, timeout_s=0.05) as flows:
            await refused(flows.list_runs(), Unavailable)
            assert len(server.requests) == 1  # the time does not reach for another

    asyncio.run(main())


def test_what_may_have_been_carried_out_is_not_sent_again(kind: str) -> None:
    calls: list[Callable[[Any], Awaitable[Any]]] = [
        lambda flows: flows.replay("e"), lambda flows: flows.cancel("r"), lambda flows: flows.retry("r"),
    ]  # fmt: skip

    async def main() -> None:
        for answer in (b"", says(503, {"error": "away", "code": "unavailable", "hint": "later"})):
            async with fake(answer) as server, dialed(kind, server.url) as flows:
                for n, call in enumerate(calls, 1):
                    await refused(call(flows), Unavailable)
                    assert len(server.requests) == n
        async with fake(says(429), says(202, {"run": {"id": "r"}})) as server, dialed(kind, server.url) as flows:
            assert (await flows.cancel("r")).id == "r"  # it said that it did nothing

    asyncio.run(main())


def test_a_pause_that_the_server_asks_for_is_kept(kind: str) -> None:
    async def main() -> None:
        busy, well = says(503, b"", retry_after="1"), says(200, {"runs": []})
        for asked, least in ((busy, 0.9), (says(503, b"", retry_after="soon"), 0.0)):
            async with fake(asked, well) as server, dialed(kind, server.url) as flows:
                started = asyncio.get_running_loop().time()
                await flows.list_runs()
                assert least <= asyncio.get_running_loop().time() - started < least + 2

    asyncio.run(main())


def test_an_answer_that_comes_in_drops_does_not_hold_us(kind: str) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 x\r\ncontent-length: 100000\r\n\r\n")
        with contextlib.suppress(OSError):
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(65_536), 0.05)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()

    async def main() -> None:
        listener = await asyncio.start_server(drip, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with listener, dialed(kind, url, timeout_s=0.4, tries=1) as flows:
            started = asyncio.get_running_loop().time()
            await refused(flows.list_runs(), Unavailable, "in time")
            assert asyncio.get_running_loop().time() - started < 3
            await flows.close()
            await gone.wait()

    asyncio.run(main())


def test_an_answer_over_the_bound_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.client.wire.MAX_ANSWER_BYTES", 1_000)

    async def main() -> None:
        async with fake(says(200, b" " * 2_000)) as server, dialed(kind, server.url) as flows:
            await refused(flows.list_runs(), TooLarge, "smaller limit")
            assert len(server.requests) == 1

    asyncio.run(main())


REFUSALS: list[tuple[bytes, type[StepwellError], str]] = [
    (says(404, {"error": "event not found"}), Unknown, "event not found"),
    (says(500, b"<html>Something went wrong!</html>"), Internal, "500"),
    (says(401, {"error": "invalid signature"}), Unauthorized, "invalid signature"),
    (says(403, {"error": "no", "code": "forbidden", "hint": "ask", "message": "y", "self": 1}), Forbidden, "ask"),
    (says(413, b"too big"), TooLarge, "413"),
    (says(418, {"error": "tea", "code": ["?"], "hint": 3}), Invalid, "tea"),
    (says(302, b"", location="https://else.example/"), Invalid, "https://else.example/"),
    (says(200, b"<html>"), Malformed, "JSON"),
    (says(200, b"[]"), Malformed, "JSON"),
    (says(200, b"\xff\xfe"), Malformed, "JSON"),
    (says(200, b"not gzip", content_encoding="gzip"), Malformed, "decoded"),
    (says(400, {"error": "?", "code": "malformed", "hint": "h"}), Malformed, "h"),
]  # fmt: skip


def test_every_refusal_is_one_of_our_errors(kind: str) -> None:
    async def main() -> None:
        for answer, expected, text in REFUSALS:
            async with fake(answer) as server, dialed(kind, server.url) as flows:
                error = await refused(flows.get_run("r"), StepwellError, text)
                assert type(error) is expected, (answer, error)
                assert len(server.requests) == 1
        full = says(429, {"error": "full", "code": "limited", "hint": "h"})
        async with fake(full) as server, dialed(kind, server.url, tries=1) as flows:
            await refused(flows.list_runs(), Limited, "full")

    asyncio.run(main())


def test_the_prefix_headers_and_credentials_go_with_each_request(kind: str) -> None:
    given = {"x-mine": "1"}

    async def later() -> dict[str, str]:
        return given

    async def main() -> None:
        async with fake(says(202, {"run": {"id": "r"}})) as server:
            for headers in (given, lambda: given, later):
                options = {"token": "tok", "api_key": "key", "headers": headers}
                async with dialed(kind, server.url + "/base/", **options) as flows:
                    if headers is later and kind == "blocking":
                        await refused(flows.cancel("r"), Invalid, "async only in the async client")
                        continue
                    await flows.cancel("r")
                    head = server.requests[-1].lower()
                    assert head.startswith(b"post /base/runs/r/cancel http/1.1")
                    for line in (b"authorization: bearer tok", b"x-api-key: key", b"x-mine: 1"):
                        assert line in head
                    assert head.endswith(b"\r\n\r\n{}")

    asyncio.run(main())


@pytest.mark.parametrize("timestamp", [True, False])
def test_a_server_with_a_secret_takes_what_is_signed(tmp_path: Path, kind: str, timestamp: bool) -> None:
    flow(tmp_path)

    async def main() -> None:
        with serving(tmp_path, STEPWELL_SECRET="s3cret", STEPWELL_TOKEN="reader") as server:
            options = {"secret": "s3cret", "token": "reader", "timestamp": timestamp}
            async with dialed(kind, server.url, **options) as flows:
                done = await flows.dispatch({**EVENT, "id": "ü/?&"}, wait=True)
                assert done.ended
                assert (await flows.replay("ü/?&", wait=True)).ended
                await flows.retry(done.run_ids[0])
                assert [item async for item in flows.watch(done.run_ids[0])][-1].id == done.run_ids[0]
            async with dialed(kind, server.url, secret="wrong", token="reader") as flows:
                await refused(flows.dispatch(EVENT), Unauthorized, "invalid signature")
                assert len(await flows.list_runs()) == 2
            async with dialed(kind, server.url) as flows:
                await refused(flows.list_runs(), Unauthorized)
                await refused(anext(aiter(flows.watch("x"))), Unauthorized)

    asyncio.run(main())


def test_an_event_whose_answer_is_lost_is_sent_again_and_runs_once(tmp_path: Path, kind: str) -> None:
    flow(tmp_path, steps={"go": "echo ran >> ran; " + OK})

    async def main() -> None:
        with serving(tmp_path) as server:
            async with Line.to(server) as line, dialed(kind, line.url) as flows:
                line.deaf = True
                done = await flows.dispatch(EVENT, wait=True)
                assert (line.swallowed, done.status, len(done.run_ids), done.ended) == (1, "duplicate", 1, True)
                line.deaf = True
                error = await refused(flows.replay("e"), Unavailable)
                assert "may have been carried out" in error.hint
                assert len((await flows.get_event("e")).run_ids) == 2
        assert (tmp_path / "flows/demo/ran").read_text().count("ran") <= 2

    asyncio.run(main())


def test_a_watch_goes_on_after_its_line_was_cut(tmp_path: Path, kind: str) -> None:
    root = flow(tmp_path, steps={"go": SAYS})

    async def main() -> None:
        with serving(tmp_path) as server:
            async with Line.to(server) as line, dialed(kind, line.url) as flows:
                (run_id,) = (await flows.dispatch(EVENT)).run_ids
                items = list[OutputChunk | RunView]()
                async for item in flows.watch(run_id):
                    items.append(item)
                    if len(items) == 1:
                        dialed_before = line.dialed
                        line.cut()
                        (root / "go").touch()
                assert line.dialed > dialed_before
                *chunks, run = items
                assert isinstance(run, RunView)
                assert [one.n for one in chunks if isinstance(one, OutputChunk)] == list(range(1, len(chunks) + 1))
                assert "".join(one.text for one in chunks if isinstance(one, OutputChunk)).startswith("one\ntwo\n")

    asyncio.run(main())


def test_waits_and_watches_outlive_a_server_that_restarts(tmp_path: Path, kind: str) -> None:
    flow(tmp_path, steps={"go": "echo one; while [ ! -e go ]; do sleep 0.02; done; " + OK})

    async def main() -> None:
        first = Server(tmp_path, "--slots", "0")
        async with dialed(kind, first.url, tries=12) as flows, dialed(kind, first.url, tries=1) as other:
            (run_id,) = (await flows.dispatch(EVENT)).run_ids
            ended = asyncio.create_task(other.wait(run_id, 30))  # however often it takes

            async def follow() -> list[OutputChunk | RunView]:
                return [item async for item in flows.watch(run_id)]

            followed = asyncio.create_task(follow())
            await flows.get_run(run_id)
            await asyncio.to_thread(first.kill)
            (tmp_path / "flows/demo/go").touch()
            with serving(tmp_path, port=first.port) as second:
                assert second.url == first.url
                assert (await ended).status == "completed"
                items = await followed
                assert isinstance(items[-1], RunView)
                assert items[-1].status == "completed"

    asyncio.run(main())


def test_a_backend_that_cannot_wait_is_asked_again_after_a_pause(kind: str) -> None:
    accepted = says(202, {"status": "accepted", "eventId": "e", "runIds": ["r"], "matched": 1})
    report = {"flow": "f", "step": "s", "result": {"status": "changed"}}
    running = says(200, {"run": {"id": "r", "status": "running"}})
    over = says(200, {"run": {"id": "r", "status": "completed", "resultJson": json.dumps(report)}})

    async def main() -> None:
        async with fake(accepted, running, over) as server, dialed(kind, server.url) as flows:
            started = asyncio.get_running_loop().time()
            done = await flows.dispatch(EVENT, wait=True)
            assert (done.ended, done.runs[0].status, len(server.requests)) == (True, "changed", 3)
            assert asyncio.get_running_loop().time() - started > 0.4
            assert b"/events?wait=true " in server.requests[0]

    asyncio.run(main())


def test_a_stream_that_is_none_is_refused(kind: str) -> None:
    async def main() -> None:
        for answer, expected in (
            (says(200, {"a": 1}, content_type="application/json"), Malformed),
            (says(200, b"event: output\ndata: {\n\n", content_type="text/event-stream"), Malformed),
            (says(404, {"error": "not found"}), Unknown),
        ):
            async with fake(answer) as server, dialed(kind, server.url) as flows:
                await refused(anext(aiter(flows.watch("r"))), expected)
        brief = says(200, b": hello\n\n", content_type="text/event-stream")
        async with fake(brief) as server, dialed(kind, server.url, tries=3) as flows:
            await refused(anext(aiter(flows.watch("r"))), Unavailable, "ended before the run did")
            assert len(server.requests) == 3

    asyncio.run(main())


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "ftp://host"}, {"base_url": "127.0.0.1:7345"}, {"base_url": ""}, {"base_url": "http://"},
        {"base_url": "http://host:99999"}, {"base_url": "http://h/?q=1"}, {"base_url": "http://h\n"},
        {"base_url": "http://me:secret@h"}, {"base_url": "http://[::"},
        {"token": "a\nb"}, {"token": ""}, {"api_key": "ü"}, {"secret": " "},
        {"timeout_s": 0}, {"timeout_s": float("nan")}, {"timeout_s": "5"}, {"timeout_s": True},
        {"tries": 0}, {"tries": True},
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    given = {"base_url": "http://127.0.0.1", **options}
    for client in (FlowClient, BlockingFlowClient):
        with pytest.raises(Invalid) as caught:
            client(**given)
        assert "secret" not in str(caught.value) or "secret" in options
        assert caught.value.hint


def test_no_secret_is_shown(kind: str) -> None:
    async def main() -> None:
        hidden: dict[str, Any] = {"token": "hidden-1", "api_key": "hidden-2", "secret": "hidden-3"}
        async with dialed(kind, "http://127.0.0.1:1", tries=1, headers={"x": "hidden-4"}, **hidden) as flows:
            error = await refused(flows.list_runs(), Unavailable)
            assert "hidden" not in f"{error!r} {error.as_json()} {flows!r}"
            assert "hidden" not in repr(ClientOptions(base_url="http://h", **hidden))
        async with dialed(kind, "http://127.0.0.1:1", headers={"x": "hidden\n"}) as flows:
            error = await refused(flows.list_runs(), Invalid, "x has a value")
            assert "hidden" not in f"{error!r}{error.hint}"

    asyncio.run(main())


def test_a_client_of_httpx2_can_be_given_and_is_left_open() -> None:
    async def main() -> None:
        async with fake(says(200, {"runs": []})) as server, httpx2.AsyncClient() as http:
            async with FlowClient(server.url, http=http) as flows:
                assert len(await flows.list_runs()) == 0
            assert not http.is_closed

    asyncio.run(main())
