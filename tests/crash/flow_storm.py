"""The flow storm: a server, workers and steps that are killed at random while events are posted until acknowledged."""

import asyncio
import http.client
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Protocol

from msgspec import Struct, field

from tests.crash.flow_packages import write_packages
from tests.crash.flow_processes import MARK, STEP_MARK, Guarded, guards_of, marked
from tests.server.support import at_home, database, stepwell
from tests.support import by_hand

LEASE_MS = 10_000
POSTERS = 4
#: A storm has at least so many kills of each kind.
FEW = 3
#: Which share of the events has which kind of step.
KINDS = {"quick": 5, "flaky": 5, "sleepy": 5, "family": 5, "chain": 3, "doomed": 2, "stubborn": 1}


class Plan(Struct, frozen=True):
    """How many events over how many seconds; kills go on `kill_s` long, one every 100 to 300 ms."""

    seed: int
    events: int
    post_s: float
    kill_s: float
    limit_s: float
    workers: int = 2
    slots: int = 4
    server_slots: int = 0


class Report(Struct):
    """What a storm was like, and what its senders were told."""

    kills: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    told: dict[str, list[str]] = field(default_factory=dict)  # the runs of each event
    struck: set[str] = field(default_factory=set)  # attempts whose process was killed
    attempts: Counter[str] = field(default_factory=Counter)  # by how they ended
    ends: Counter[str] = field(default_factory=Counter)
    unseen: int = 0  # attempts that were killed before their first line
    calm_s: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{len(self.told)} events, {sum(self.ends.values())} runs in {self.seconds:.0f} s; "
            f"kills {dict(self.kills)}; {self.unanswered} posts without an answer; ends {dict(self.ends)}; "
            f"attempts {dict(self.attempts)}, {self.unseen} of them killed before their first line; "
            f"{self.calm_s:.0f} s from the last kill to the last end"
        )


class Living(Protocol):
    """A process, of asyncio or of another kind."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def kill(self) -> None: ...
    def terminate(self) -> None: ...
    def send_signal(self, signal: int, /) -> None: ...


class Keeper:
    """A place in the storm: a process, and after its death the next one. A death that was not our doing is a fault."""

    def __init__(self, folder: Path, name: str, argv: list[str], env: dict[str, str]) -> None:
        self.name, self._argv, self._env = name, argv, env
        self.log = folder / f"{name}.log"
        self.process: Living | None = None
        self.faults: list[str] = []
        self.guards: set[Guarded] = set()
        self._killed = False
        self._ending = asyncio.Event()

    async def keep(self) -> None:
        """Until `end`."""
        while not self._ending.is_set():
            self._killed = False
            with self.log.open("ab") as log:
                self.process = await self._start(log)
            code = await self.process.wait()
            expected = -signal.SIGKILL if self._killed else 0 if self._ending.is_set() else None
            if code != expected and not self._may(code):
                self.faults.append(f"{self.name} ended with {code}, not {expected}")
                await asyncio.sleep(0.2)

    def _may(self, code: int) -> bool:
        """Whether it may end so, though nobody asked it to."""
        return False

    async def _start(self, log: IO[bytes]) -> Living:
        return await asyncio.create_subprocess_exec(
            *self._argv, env=self._env, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )

    def kill(self) -> bool:
        """SIGKILL; false when there is nobody now."""
        if self.process is None or self.process.returncode is not None or self._killed:
            return False
        self._killed = True
        self.guards |= guards_of(self.process.pid)
        self.process.kill()
        return True

    def end(self) -> None:
        """SIGTERM, and no successor."""
        self._ending.set()
        if self.process is not None and self.process.returncode is None and not self._killed:
            self.guards |= guards_of(self.process.pid)
            self.process.terminate()


class Storm:
    """One storm in a folder of its own."""

    def __init__(self, cwd: Path, plan: Plan) -> None:
        self.cwd, self.plan, self.report = cwd, plan, Report()
        self.rng = random.Random(plan.seed)
        self.mark = f"{os.getpid()}-{plan.seed}-{os.urandom(4).hex()}"
        self.logs = cwd / "log"
        self.logs.mkdir()
        write_packages(cwd)
        self.port = free_port()
        self.server, *self.workers = self._places()
        self.posting = True

    def _places(self) -> list[Keeper]:
        env = at_home(
            self.cwd,
            STEPWELL_LEASE_MS=str(LEASE_MS),
            STEPWELL_POLL_MS="100",
            STEPWELL_KILL_GRACE_MS="300",
            STEPWELL_LOST_LEASES="1000",
            STORM_LOG=str(self.logs),
            STORM_MARK=self.mark,
        )
        where, slots = ("--cwd", str(self.cwd)), ("--slots", str(self.plan.slots))
        serve = stepwell("serve", *where, "--port", str(self.port), "--slots", str(self.plan.server_slots))
        workers = [
            Keeper(self.cwd, f"worker{n}", stepwell("worker", *where, *slots), env) for n in range(self.plan.workers)
        ]
        return [Keeper(self.cwd, "server", serve, env), *workers]

    async def rage(self) -> Report:
        """All of it: posts, kills, calm, the last ends, the stop."""
        began = time.monotonic()
        places = [self.server, *self.workers]
        keeping = [asyncio.create_task(place.keep()) for place in places]
        try:
            async with asyncio.timeout(self.plan.limit_s):
                await asyncio.gather(self._strike(), self._post_all())
                calm = time.monotonic()
                await self._all_ended()
                self.report.calm_s = time.monotonic() - calm
        finally:
            for place in places:
                place.end()
            await asyncio.gather(*keeping)
        self.report.seconds = time.monotonic() - began
        faults = [fault for place in places for fault in place.faults]
        assert not faults, faults
        return self.report

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _post_all(self) -> None:
        kinds = self.rng.choices(list(KINDS), weights=list(KINDS.values()), k=self.plan.events)
        numbers = list(enumerate(kinds))
        await asyncio.gather(*(self._poster(numbers, random.Random(f"{self.plan.seed}.{n}")) for n in range(POSTERS)))
        self.posting = False

    async def _poster(self, numbers: list[tuple[int, str]], rng: random.Random) -> None:
        gap = self.plan.post_s * POSTERS / self.plan.events
        while numbers:
            number, kind = numbers.pop()
            await asyncio.sleep(rng.uniform(0, 2 * gap))
            body = {"id": f"storm/{number}", "type": f"storm.{kind}", "payload": {"n": number}}
            for _ in range(2 if rng.random() < 0.1 else 1):  # some are told twice by a sender that forgot
                run_ids = await self._until_acknowledged(json.dumps(body).encode())
                assert self.report.told.setdefault(str(body["id"]), run_ids) == run_ids

    async def _until_acknowledged(self, body: bytes) -> list[str]:
        while (answer := await asyncio.to_thread(post, self.port, body)) is None:
            self.report.unanswered += 1
            await asyncio.sleep(0.05)
        status, text = answer
        assert status == 202, (status, text)
        run_ids: list[str] = json.loads(text)["runIds"]
        assert len(run_ids) == 1, text
        return run_ids

    # ── killing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _strike(self) -> None:
        """As long as planned; on a slow machine, as long as events come. While steps are behind, nobody else is killed:
        those who are always killed at their start do no steps.
        """
        ends, kills, kinds = time.monotonic() + self.plan.kill_s, self.report.kills, ("server", "worker", "step")
        while time.monotonic() < ends or (self.posting and min(kills[kind] for kind in kinds) < FEW):
            await asyncio.sleep(self.rng.uniform(0.1, 0.3))
            behind = kills["step"] < min(kills["server"], kills["worker"])
            kind = "step" if behind else self.rng.choice(kinds)
            if kind == "server":
                done = self.server.kill()
            elif kind == "worker":
                done = self.rng.choice(self.workers).kill()
            else:
                done = self._kill_step()
            kills[kind] += done

    def _kill_step(self) -> bool:
        """Kills one process of a step, or the whole group."""
        found = [(pid, names["CODEX_FLOW_ATTEMPT_ID"]) for pid, names in marked(MARK, {self.mark}) if _is_step(names)]
        if not found:
            return False
        pid, attempt = self.rng.choice(sorted(found))
        with suppress(ProcessLookupError):
            if self.rng.random() < 0.5:
                os.kill(pid, signal.SIGKILL)
            else:
                os.killpg(os.getpgid(pid), signal.SIGKILL)
            self.report.struck.add(attempt)
            return True
        return False

    @property
    def guards(self) -> set[Guarded]:
        """The guards of all that were ended."""
        return self.server.guards.union(*(place.guards for place in self.workers))

    def clear(self) -> None:
        """Kills whoever is left, so that a storm that fails leaves nobody either."""
        for pid in (*(pid for pid, _ in marked(MARK, {self.mark})), *(one.pid for one in self.guards if one.lives())):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _all_ended(self) -> None:
        with by_hand(database(self.cwd)) as db:
            query = "select id, status from run where status not in ('completed', 'failed', 'canceled')"
            while db.execute(query).fetchall():  # noqa: ASYNC110 - rows of other processes, no event of ours
                await asyncio.sleep(0.1)

    def leftovers(self, marks: set[str], patience_s: float = 5.0) -> list[object]:
        """Who is still there after `patience_s`: processes of the storm or with a mark of its attempts, and guards."""
        ends = time.monotonic() + patience_s
        while True:
            guards = [one for one in self.guards if one.lives()]
            left: list[object] = [*marked(MARK, {self.mark}), *marked(STEP_MARK, marks), *guards]
            if not left or time.monotonic() > ends:
                return left
            time.sleep(0.05)


def _is_step(names: dict[str, str]) -> bool:
    return "CODEX_FLOW_ATTEMPT_ID" in names


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        port: int = sock.getsockname()[1]
        return port


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
