"""What a lane has to put off: the commands of a caller that name one run are decided in their order, wherever."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import psycopg
import pytest

from stepwell.engine.answers import Item, give
from stepwell.engine.backlog import Backlog, Passage
from stepwell.engine.engine import Engine
from stepwell.functions.contexts import MutationContext
from stepwell.functions.define import Completion
from stepwell.functions.mutations import AppMutations
from stepwell.kernel.calls import Busy, Postponed
from stepwell.kernel.fold import body_of
from stepwell.model import commands as c
from stepwell.model.entries import SignalReceived
from stepwell.model.errors import Invalid
from stepwell.model.settings import Settings
from stepwell.store.port import Refused, Session, Store
from tests.engine.faulty import wait_until
from tests.functions.shop import Shop, put_tables
from tests.support import postgres
from tests.support.bench import Bench
from tests.support.stores import open_store

FEW = Settings(lanes=1, batch_commands=4, poll_ms=60_000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store("postgres", tmp_path)


@pytest.fixture
def others(store: Store) -> Iterator[list[Session]]:
    """Lanes of other processes."""
    sessions = [store.session(f"other{no}") for no in range(3)]
    yield sessions
    for session in sessions:
        session.close()


def have(session: Session, *runs: int) -> None:
    """Takes runs; nobody but the engine may have them."""
    session.begin()
    session.runs(runs)


async def started(engine: Engine, count: int) -> list[int]:
    return [(await engine.submit(c.StartRun(f"r{no}", "wf"))).run_no for no in range(count)]


async def signals_of(engine: Engine, run: int) -> list[int]:
    entries = await engine.read(lambda reader: reader.entries(run, limit=10_000))
    bodies = [body_of(entry) for entry in entries]
    return [int(str(body.payload, "ascii")) for body in bodies if isinstance(body, SignalReceived)]


async def until(true: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, true)


@pytest.mark.parametrize("seed", range(3))
def test_commands_of_a_caller_that_name_a_run_are_decided_in_their_order(
    store: Store, others: list[Session], seed: int
) -> None:
    """Others have now one run and now another, and more commands wait for these than a batch takes."""
    chance = Random(seed)

    async def main() -> None:
        async with Engine(store, settings=FEW, roles=False) as engine:
            runs = await started(engine, 4)
            answers: list[asyncio.Future[Any]] = []
            sent: list[list[int]] = [[] for _ in runs]
            for turn in range(120):
                if turn % 8 == 0:
                    which = chance.randrange(len(others))
                    others[which].rollback()
                    have(others[which], runs[which])
                    others[(which + 1) % len(others)].rollback()
                which = chance.randrange(len(runs))
                sent[which].append(turn)
                answers.append(asyncio.ensure_future(engine.submit(c.Signal(f"r{which}", "s", str(turn)))))
                if chance.random() < 0.1:
                    await asyncio.sleep(0.002)
            for session in others:
                session.rollback()
            async with asyncio.timeout(30):
                await asyncio.gather(*answers)
            assert [await signals_of(engine, run) for run in runs] == sent

    asyncio.run(main())


def test_who_waits_for_one_run_holds_up_none_that_wants_another(store: Store, others: list[Session]) -> None:
    """Also where more wait for it than half a batch takes."""

    async def main() -> None:
        async with Engine(store, settings=FEW, roles=False) as engine:
            runs = await started(engine, 3)
            have(others[0], runs[0])
            have(others[1], runs[1])
            late = [asyncio.ensure_future(engine.submit(c.Signal("r0", "s", str(turn)))) for turn in range(9)]
            other = asyncio.ensure_future(engine.submit(c.Signal("r1", "s")))
            async with asyncio.timeout(30):
                await engine.submit(c.Signal("r2", "s"))
                others[1].rollback()
                await other
            assert not any(one.done() for one in late)
            others[0].rollback()
            await asyncio.gather(*late)
            assert await signals_of(engine, runs[0]) == list(range(9))

    asyncio.run(main())


def test_a_batch_of_one_is_not_always_the_one_that_waits(store: Store, others: list[Session]) -> None:
    async def main() -> None:
        settings = Settings(lanes=1, batch_commands=1, poll_ms=60_000)
        async with Engine(store, settings=settings, roles=False) as engine:
            runs = await started(engine, 2)
            have(others[0], runs[0])
            late = asyncio.ensure_future(engine.submit(c.Signal("r0", "s", "0")))
            async with asyncio.timeout(30):
                await engine.submit(c.Signal("r1", "s", "1"))
            assert not late.done()
            others[0].rollback()
            await late

    asyncio.run(main())


def test_a_run_that_becomes_free_between_the_halves_of_a_batch_is_for_who_came_first(
    store: Store, others: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    def free(point: str) -> None:
        if point == "committed":
            others[0].rollback()

    with closing(Bench(store, fault=free)) as bench:
        have(others[0], bench.start("r").run_no)
        real = bench.lane._session.flush

        def flush(unit: Any, now: int) -> None:
            if any(run.id == "bad" for run in unit.runs.rows.values()):
                raise Refused("it is bad")
            real(unit, now)

        monkeypatch.setattr(bench.lane._session, "flush", flush)
        batch = [c.Signal("r", "s", "1"), c.StartRun("good", "wf"), c.StartRun("bad", "wf"), c.Signal("r", "s", "2")]
        assert [type(reply) for reply in bench.lane._run(batch)] == [Busy, c.Started, Invalid, Busy]


def test_what_was_passed_on_is_not_remembered_as_busy() -> None:
    """Not as long as something else waits, which may be for ever: else each such run would leave its name."""
    passed: list[Item] = []
    backlog = Backlog(Passage(lambda *item: passed.append(item)))
    stuck = signal("stuck")
    queue = deque([stuck, signal("r")])
    backlog.settle([(item, Busy()) for item in backlog.take(queue, 9)])
    replies = [(item, Busy() if item is stuck else Postponed()) for item in backlog.take(queue, 9)]
    assert (len(replies), backlog.settle(replies), len(passed)) == (2, [], 1)
    give([(passed.pop(), None)])
    new = [signal("r"), signal("r")]
    queue.extend(new)
    assert backlog.take(queue, 9) == [stuck, *new], "a run that others have is tried by one"


def signal(run_id: str) -> Item:
    return c.Signal(run_id, "s"), Future(), None


def told(ctx: MutationContext, completion: Completion) -> None:
    ctx.db.execute("insert into told (note) values (?)", completion.run_id)


def test_what_follows_a_command_that_another_lane_decides_follows_it_there(store: Store, tmp_path: Path) -> None:
    """Its callback waits for a table that somebody has locked; the restart makes sense only after the end."""
    put_tables(tmp_path / "migrations")
    shop = Shop()
    shop.mutation(told)
    settings = Settings(lanes=2, poll_ms=60_000, mutation_limit_ms=30_000)
    mutations = AppMutations(shop.registry, app="shop", migrations=tmp_path / "migrations", settings=settings)
    url = postgres.address(tmp_path)

    async def main() -> None:
        engine = Engine(store, settings=settings, roles=False, mutations=mutations, prepare=mutations.migrate)
        async with engine, asyncio.timeout(60):
            number = (await engine.submit(c.StartRun("r", "wf", callback='{"function":"shop:told"}'))).run_no
            await engine.submit(c.StartRun("other", "wf"))
            with closing(psycopg.connect(url)) as db:
                ((schema,),) = db.execute("select current_schema()").fetchall()
                db.execute(f"lock table {schema}_app.told".encode())
                sent: list[Any] = [engine.submit(c.Terminate("r")), engine.submit(c.Restart("r"))]
                await until(lambda: bool(engine.lanes.calls and engine.lanes.calls.passage))
                sent.append(engine.submit(c.Signal("r", "s", "1")))
                await engine.submit(c.Signal("other", "s"))
                sent.append(engine.submit(c.Signal("r", "s", "2")))
                await engine.submit(c.Signal("other", "s"))
                db.rollback()
            await asyncio.gather(*map(asyncio.ensure_future, sent))
            kinds = [entry.kind for entry in await engine.read(lambda reader: reader.entries(number))]
            assert kinds == ["run.created", "run.canceled", "run.restarted", "signal.received", "signal.received"]
            assert await signals_of(engine, number) == [1, 2]
            assert engine.lanes.calls is not None
            assert not engine.lanes.calls.passage
            before = engine.lanes.calls.commits
            await engine.submit(c.Signal("r", "s", "3"))
            assert engine.lanes.calls.commits == before, "what is done there is no reason any more"

    asyncio.run(main())
    mutations.close()


def test_what_follows_a_command_that_a_batch_has_no_time_for_waits_with_it(tmp_path: Path) -> None:
    """On SQLite it is the same lane that decides it."""
    put_tables(tmp_path / "migrations")
    shop = Shop()
    shop.mutation(told)
    path = shop.bad(lambda ctx: ctx.db.all("select 1 as a", type=int) and slow(), "slow")
    mutations = AppMutations(shop.registry, app="shop", migrations=tmp_path / "migrations")
    with closing(open_store("sqlite", tmp_path)) as store:
        mutations.migrate(store)
        with closing(Bench(store, mutations=mutations)) as bench:
            bench.start("r", callback='{"function":"shop:told"}')
            batch = [c.Invoke(path), c.Terminate("r"), c.Restart("r"), c.Signal("r", "s")]
            bench.all(*batch)
            assert bench.kinds() == ["run.created", "run.canceled", "run.restarted", "signal.received"]
    mutations.close()


def slow() -> bool:
    return bool(msgspec.json.decode(msgspec.json.encode(list(range(300_000)))))
