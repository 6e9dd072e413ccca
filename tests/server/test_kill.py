"""Thousands of events by 32 connections, while the server is killed and started again three times.

Law 5 and law 7 from outside: what was acknowledged has exactly its runs, and what was not may be sent again.
"""

import asyncio
import json
import random
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec import Struct, field

from tests.server.support import OK, Json, Server, as_bytes, database, flow, lawful, serving
from tests.support import by_hand

EVENTS, CONNECTIONS, KILLS, AGAIN = 4_000, 32, (1_000, 2_000, 3_000), 0.05


class Ledger(Struct):
    """What the clients were told: every answer to every event."""

    told: dict[str, list[Json]] = field(default_factory=dict)
    acknowledged: int = 0
    broken: int = 0
    kills: int = 0


class Client:
    """One connection that is opened again whenever it breaks."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; OSError or EOFError when there is none."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address)
            reader, writer = self._streams
            writer.write(b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return int(head[9:12]), await reader.readexactly(length)
        except (OSError, EOFError):
            self.close()
            raise

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def send_all(server: Server, numbers: list[int], ledger: Ledger) -> None:
    """Sends until each event is acknowledged; some are sent once more after that, as a client that forgot would."""
    client, chance = Client(server.host, server.port), random.Random(len(numbers))
    while numbers:
        number = numbers.pop()
        body = as_bytes({"id": f"e/{number}", "type": "demo", "payload": {"n": number}})
        while True:
            try:
                status, text = await client.post(body)
            except (OSError, EOFError):
                ledger.broken += 1
                await asyncio.sleep(0.02)
                continue
            assert status == 202, text
            ledger.acknowledged += 1
            ledger.told.setdefault(f"e/{number}", []).append(json.loads(text))
            if chance.random() > AGAIN:
                break
    client.close()


async def kill_and_start(first: Server, ledger: Ledger, ends: ExitStack) -> Server:
    """Kills the server after so many answers each time; the last one lives on."""
    server = first
    for count in KILLS:
        while ledger.acknowledged < count:  # noqa: ASYNC110 - a number that thousands of answers raise, not a state
            await asyncio.sleep(0.005)
        server.kill()
        ledger.kills += 1
        server = ends.enter_context(await asyncio.to_thread(Server, first.cwd, "--slots", "0", port=first.port))
    return server


async def storm(cwd: Path, ledger: Ledger, ends: ExitStack) -> Server:
    """The server that is left when all is acknowledged."""
    first, numbers = ends.enter_context(Server(cwd, "--slots", "0")), list(range(EVENTS))
    async with asyncio.TaskGroup() as group:
        killer = group.create_task(kill_and_start(first, ledger, ends))
        for _ in range(CONNECTIONS):
            group.create_task(send_all(first, numbers, ledger))
    return killer.result()


def test_every_acknowledged_event_has_its_runs_whoever_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow(tmp_path, "demo", {"one": OK, "two": OK})
    flow(tmp_path, "deaf", {"no": OK}, type_="other")
    ledger = Ledger()
    started = time.monotonic()
    with ExitStack() as ends:
        last = asyncio.run(storm(tmp_path, ledger, ends))
        seconds = time.monotonic() - started
        assert last.stop() == 0
    with capsys.disabled():
        print(f"\n  {EVENTS:,} events by {CONNECTIONS} connections, {ledger.kills} kills: {EVENTS / seconds:,.0f} /s")
        print(f"  {seconds:.1f} s with the restarts; {ledger.broken} requests without an answer")
    assert (len(ledger.told), ledger.kills) == (EVENTS, 3)
    assert ledger.broken > 0
    check_answers(ledger)
    check_rows(tmp_path, ledger)
    lawful(tmp_path)


def check_answers(ledger: Ledger) -> None:
    """All answers for one event name the same two runs, and at most one of them says accepted."""
    kinds: Counter[str] = Counter()
    for event_id, answers in ledger.told.items():
        assert {answer["eventId"] for answer in answers} == {event_id}
        assert len({tuple(answer["runIds"]) for answer in answers}) == 1, answers
        assert len(set(answers[0]["runIds"])) == 2, answers
        statuses = [answer["status"] for answer in answers]
        assert statuses[1:] == ["duplicate"] * (len(statuses) - 1), answers
        kinds[statuses[0]] += 1
    # A first answer of `duplicate`: it had been accepted, and the answer was lost with the server.
    assert kinds["accepted"] + kinds["duplicate"] == EVENTS
    assert kinds["duplicate"] <= ledger.broken


def check_rows(cwd: Path, ledger: Ledger) -> None:
    """The database has these events and these runs, and none besides."""
    with by_hand(database(cwd)) as db:
        assert db.execute("select count(*) from event").fetchone() == (EVENTS,)
        rows = db.execute("select event.id, run.id, run.name from event join run on run.event_no = event.no")
        found: dict[str, set[tuple[str, str]]] = {}
        for event_id, run_id, name in rows:
            found.setdefault(event_id, set()).add((run_id, name))
        assert db.execute("select count(*) from run").fetchone() == (2 * EVENTS,)
    assert found.keys() == ledger.told.keys()
    for event_id, runs in found.items():
        assert {run_id for run_id, _ in runs} == set(ledger.told[event_id][0]["runIds"])
        assert {name for _, name in runs} == {"demo/one", "demo/two"}


def test_the_rate_without_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No bound is asserted on a machine that is shared: it is printed, next to the other."""
    flow(tmp_path)
    ledger = Ledger()
    with serving(tmp_path, "--slots", "0") as server:
        started = time.monotonic()

        async def main() -> None:
            numbers = list(range(1_000))
            await asyncio.gather(*(send_all(server, numbers, ledger) for _ in range(CONNECTIONS)))

        asyncio.run(main())
        seconds = time.monotonic() - started
    with capsys.disabled():
        print(
            f"\n  {ledger.acknowledged:,} answers by {CONNECTIONS} connections: {ledger.acknowledged / seconds:,.0f} /s"
        )
    assert ledger.broken == 0
    assert len(ledger.told) == 1_000
