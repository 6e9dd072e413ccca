"""A thousand waiting runs of one flow hold up nobody else, and limits are kept, also after a worker was killed.

Each step writes into a file of its own when it began, lived and ended, so what ran at once is known from the steps.
"""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.rows import Pool
from stepwell.store.port import RunFilter, scan_all
from stepwell.store.sqlite.session import SqliteSession
from stepwell.store.sqlite.store import SqliteStore
from stepwell.store.sqlite.turns import TurnLock
from tests.server.support import environ, stepwell
from tests.support import durable_url

from .site import true
from .support import OK, QUICK, House, Time, house

MANY = 1_000
#: A lease that outlasts a test on the slowest machine.
LONG_MS = 600_000
KEYED = '[steps.concurrency]\nkey = "/payload/key"\nlimit = {}'
#: First, in between and last; a line is `NANOSECONDS KEY`.
STAMPS = """key=$(sed -n 's/.*"key": "\\([a-z0-9]*\\)".*/\\1/p')
stamp() {{ echo "$(date +%s%N) $key" >> "{0}/$CODEX_FLOW_ATTEMPT_ID"; }}
stamp; for one in {1}; do sleep 0.02; stamp; done
"""


def stamps(it: House, ticks: str = "1 2") -> str:
    """A script that says when it lived; it takes 20 ms for each word of `ticks`."""
    (it.cwd / "stamps").mkdir(exist_ok=True)
    return STAMPS.format(it.cwd / "stamps", ticks) + OK


def most(cwd: Path, without: Collection[Path] = ()) -> dict[str, int]:
    """How many attempts of each key lived at once, at most; under `*` those of all keys."""
    seen: dict[str, int] = {}
    moments: list[tuple[int, int, str]] = []
    for path in set((cwd / "stamps").iterdir()).difference(without):
        lines = [line.split() for line in path.read_text().splitlines()]
        if not lines:  # killed between the opening of its file and its first line
            continue
        for key in (lines[0][1], "*"):
            moments += [(int(lines[0][0]), 1, key), (int(lines[-1][0]), -1, key)]
    living: dict[str, int] = {}
    for _, by, key in sorted(moments):
        living[key] = living.get(key, 0) + by
        seen[key] = max(seen.get(key, 0), living[key])
    return seen


async def crowd(it: House, count: int, payload: Callable[[int], Any] = lambda n: {"key": "a"}) -> list[str]:
    """So many runs of the flow `many`, which wait."""
    sent = await asyncio.gather(*(it.send(f"many{n}", payload(n), "many") for n in range(count)))
    return [run_id for (run_id,) in sent]


async def turns(it: House, count: int) -> tuple[int, float]:
    """Of `count` runs of the flow `few`: the most runs of `many` that began after one came and before it began, and
    the longest time, in seconds, from its event to its end."""
    passed, longest_s = 0, 0.0
    for n in range(count):
        sent = time.monotonic()
        (run_id,) = await it.send(f"few{n}", {"key": "b"}, "few")
        few = await it.end(run_id)
        assert few.status == "completed"
        longest_s = max(longest_s, time.monotonic() - sent)
        runs = await it.engine.read(lambda reader: list(scan_all(reader)))
        begun = [one.started_at for one in runs if one.name == "many/go" and one.started_at is not None]
        passed = max(passed, sum(few.created_at < at < (few.started_at or 0) for at in begun))
    assert sum(one.status == "queued" for one in runs) > MANY // 2, "too few are left that could have been in the way"
    return passed, longest_s


async def until_running(it: House, name: str = "many/go") -> None:
    """Until some run of this name has begun."""
    query = RunFilter(status="running", name=name)
    while not (await it.engine.read(lambda reader: reader.list_runs(query, limit=1))).rows:  # noqa: ASYNC110 - any run
        await asyncio.sleep(0.01)


def test_a_thousand_that_wait_for_one_key_hold_up_no_other_flow(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(stamps(it), KEYED.format(1), flow="many", type_="many")
            it.add(OK, flow="few", type_="few")
            await crowd(it, MANY)
            it.work(slots=2)
            await until_running(it)
            _, longest_s = await turns(it, 5)
            assert longest_s < 1.5
            assert most(tmp_path)["a"] == 1

    asyncio.run(main())


def test_a_thousand_that_are_ready_let_another_flow_have_its_turn(tmp_path: Path) -> None:
    """Two slots, one pool: each claim takes the other flow first with a chance of one half."""

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(stamps(it), flow="many", type_="many")
            it.add(OK, flow="few", type_="few")
            await crowd(it, MANY)
            it.work(slots=2)
            await until_running(it)
            passed, longest_s = await turns(it, 5)
            assert passed < 25, "once in ten million times"
            assert longest_s < 3

    asyncio.run(main())


def test_a_pool_with_a_limit_is_kept_and_its_flows_take_turns_in_it(tmp_path: Path) -> None:
    """A thousand in a pool for two: a flow outside does not wait at all, one inside gets its turn."""

    async def main() -> None:
        async with house(tmp_path) as it:
            await it.engine.submit(c.SetPool(Pool("main", "deploy", limit=2)))
            it.add(stamps(it), 'pool = "deploy"', flow="many", type_="many")
            it.add(OK, 'pool = "deploy"', flow="few", type_="few")
            it.add(OK, flow="free", type_="free")
            await crowd(it, MANY)
            it.work(slots=6)
            await until_running(it)
            passed, _ = await turns(it, 3)
            assert passed < 25
            began = time.monotonic()
            (run_id,) = await it.send("free", {}, "free")
            await it.end(run_id)
            assert time.monotonic() - began < 1.5
            assert most(tmp_path)["*"] == 2

    asyncio.run(main())


def test_a_thousand_in_a_paused_pool_cost_the_others_nothing(tmp_path: Path) -> None:
    """Nothing of it may run, and a claim does not stop at it."""

    async def main() -> None:
        async with house(tmp_path) as it:
            await it.engine.submit(c.SetPool(Pool("main", "shut", paused=True)))
            it.add(OK, 'pool = "shut"', flow="many", type_="many")
            it.add(OK, flow="few", type_="few")
            await crowd(it, MANY)
            it.work(slots=2)
            _, longest_s = await turns(it, 5)
            assert longest_s < 1.5

    asyncio.run(main())


def test_fifty_keys_in_eight_slots_never_exceed_their_limits(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(stamps(it), KEYED.format(1), flow="many", type_="many")
            runs = await crowd(it, 200, lambda n: {"key": f"k{n % 50}"})
            it.work(slots=8)
            for run_id in runs:
                assert (await it.end(run_id)).status == "completed"
            seen = most(tmp_path)
            assert 6 <= seen.pop("*") <= 8, "or the slots were not used, and nothing was tried"
            assert seen == {f"k{n}": 1 for n in range(50)}

    asyncio.run(main())


def test_limits_hold_also_after_a_worker_was_killed(tmp_path: Path) -> None:
    """Its leases count until they are over, and what it had started is dead before somebody else begins.

    Ten runs for each of six keys, two of a key at once. Until the dead worker's leases are over, nothing begins of a
    key of which it had two, and one at once of which it had one. The clock is put forward when nobody else has a lease:
    who has would lose it, too, while its step goes on. What begins before there is a file `killed` goes on for ten
    seconds, unless it is killed with its worker.
    """
    clock = Time()

    async def main() -> None:
        async with house(tmp_path, clock_ms=clock) as it:
            it.add(
                stamps(it, f"$([ -e '{tmp_path}/killed' ] && echo 1 2 3 || seq 500)"),
                KEYED.format(2),
                flow="many",
                type_="many",
            )
            runs = await crowd(it, 60, lambda n: {"key": f"k{n % 6}"})
            key = {run_id: f"k{n % 6}" for n, run_id in enumerate(runs)}
            await killed_worker(it, slots=8)
            before = set((tmp_path / "stamps").iterdir())
            assert len(before) == 8
            it.work(slots=8)
            dead = {path.name.rsplit(".", 2)[0] for path in before}
            had = Counter(key[run_id] for run_id in dead)
            for run_id in runs:
                if run_id not in dead and had[key[run_id]] < 2:
                    assert (await it.end(run_id)).status == "completed"
            for name, count in most(tmp_path, before).items():
                assert name == "*" or count <= 2 - had[name]
            clock.ahead_ms += 2 * LONG_MS
            await it.engine.submit(c.Sweep())
            for run_id in runs:
                assert (await it.end(run_id)).status == "completed"
            kinds = [kind for run_id in runs for kind in await it.kinds(run_id)]
            assert kinds.count("attempt.ended:expired") == 8
            seen = most(tmp_path)
            del seen["*"]
            assert len(seen) == 6
            assert max(seen.values()) == 2

    asyncio.run(main())


async def killed_worker(it: House, slots: int) -> None:
    """A worker in a process of its own, killed when all its slots are in use."""
    where = ("--cwd", str(it.cwd), "--db", durable_url(it.cwd / "house.sqlite"))
    worker = await asyncio.create_subprocess_exec(
        *stepwell("worker", *where, "--slots", str(slots)),
        env=environ(STEPWELL_LEASE_MS=str(LONG_MS)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    await true(lambda: len(list((it.cwd / "stamps").iterdir())) == slots)
    worker.kill()
    await worker.wait()
    (it.cwd / "killed").touch()


class Counted(SqliteStore):
    """Counts what SQLite does for the one who writes, in steps of its machine: no clock, so no busy machine matters."""

    steps = 0

    def session(self, lane: str) -> SqliteSession:
        def connect() -> sqlite3.Connection:
            connection = self.connect()
            connection.set_progress_handler(self._count, 1)
            return connection

        return SqliteSession(connect, TurnLock(Path(f"{self.path}.lock"), wait_s=10), lane)

    def _count(self) -> None:
        self.steps += 1


async def steps_of_claims(cwd: Path, count: int) -> list[int]:
    """What each of some claims costs while so many wait of those that are ready, blocked by their key, or paused."""
    store = Counted(cwd / "house.sqlite", sync="normal")
    async with Engine(store, settings=QUICK) as engine:
        it = House(cwd, engine)
        await engine.submit(c.SetPool(Pool("main", "shut", paused=True)))
        it.add(OK, KEYED.format(1), flow="many", type_="many")
        it.add(OK, 'pool = "shut"', flow="shut", type_="shut")
        it.add(OK, flow="few", type_="few")
        claim = partial(c.Claim, "w", limit=1)
        await crowd(it, count)
        assert len((await engine.submit(claim(engine.secret()))).tasks) == 1
        while (one := await engine.submit(claim(engine.secret()))).more:  # the key is used: the others are put aside
            assert one.tasks == []
        for kind in ("shut", "few"):
            await asyncio.gather(*(it.send(f"{kind}{n}", {}, kind) for n in range(count)))
        found = []
        for _ in range(8):
            before = store.steps
            assert len((await engine.submit(claim(engine.secret()))).tasks) == 1
            found.append(store.steps - before)
        return found


def test_a_claim_costs_the_same_with_ten_and_with_a_thousand_in_front(tmp_path: Path) -> None:
    """It does not look at all that waits."""
    ten, thousand = tmp_path / "ten", tmp_path / "thousand"
    ten.mkdir()
    thousand.mkdir()

    async def main() -> None:
        few, many = await steps_of_claims(ten, 10), await steps_of_claims(thousand, MANY)
        assert min(few) > 0, "nothing was counted"
        assert sum(many) < 2 * sum(few), (few, many)

    asyncio.run(main())
