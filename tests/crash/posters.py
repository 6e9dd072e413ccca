"""Senders of events over HTTP, who ask again until they are told that an event was accepted."""

import asyncio
import http.client
import json
import random
import socket
from collections.abc import Mapping, Sequence
from contextlib import closing

from msgspec import Struct, field

#: How long a sender waits before it asks again, and how many of an event's senders forget that they were told.
AGAIN_S, FORGETS = 0.1, 0.1


class Sent(Struct):
    """What the senders were told."""

    unanswered: int = 0
    told: dict[str, list[str]] = field(default_factory=dict)  # the runs of each event


class Posters:
    """So many senders, who ask any of the servers on these ports."""

    def __init__(self, seed: int, ports: Sequence[int], sent: Sent, count: int) -> None:
        self._seed, self._ports, self._sent, self._count = seed, ports, sent, count

    async def post(self, events: int, kinds: Mapping[str, int], seconds: float) -> None:
        """So many events over so many seconds, of these kinds with their weights."""
        chosen = random.Random(f"{self._seed} kinds").choices(list(kinds), weights=list(kinds.values()), k=events)
        left, gap = list(enumerate(chosen)), seconds * self._count / events
        await asyncio.gather(*(self._poster(left, gap, f"{self._seed}.{n}") for n in range(self._count)))

    async def _poster(self, left: list[tuple[int, str]], gap: float, seed: str) -> None:
        rng = random.Random(seed)
        while left:
            number, kind = left.pop()
            await asyncio.sleep(rng.uniform(0, 2 * gap))
            body = {"id": f"storm/{number}", "type": f"storm.{kind}", "payload": {"n": number}}
            for _ in range(2 if rng.random() < FORGETS else 1):
                run_ids = await self._until_acknowledged(json.dumps(body).encode(), rng)
                assert self._sent.told.setdefault(str(body["id"]), run_ids) == run_ids

    async def _until_acknowledged(self, body: bytes, rng: random.Random) -> list[str]:
        while (answer := await asyncio.to_thread(post, rng.choice(self._ports), body)) is None:
            self._sent.unanswered += 1
            await asyncio.sleep(AGAIN_S)
        status, text = answer
        assert status == 202, (status, text)
        run_ids: list[str] = json.loads(text)["runIds"]
        assert len(run_ids) == 1, text
        return run_ids


def post(port: int, body: bytes) -> tuple[int, bytes] | None:
    """Status and text of the answer; None when there was none, or the server was not ready."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("POST", "/events", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            return None
    return None if answer.status == 503 else (answer.status, text)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        port: int = sock.getsockname()[1]
        return port
