"""108, 140 to 150: crashes, clocks, many runs, the command line (source: spec orchestrator E.8)."""

import asyncio
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from stepwell import Context, Retry, Stepwell
from stepwell.cli.main import cli
from stepwell.model import commands as c
from stepwell.model.settings import Settings
from stepwell.store.sqlite.store import SqliteStore
from tests.conformance_workflow.support import (
    PARKING,
    Place,
    entries,
    new_app,
    notes,
    on_a_loop,
    refused,
    resting,
    seen,
)

#: Where a process may die: within a batch, right after its commit, before anybody has its answers.
POINTS = ("decided", "flushed", "committed", "answering")


def ten_steps(ran: list[str]) -> tuple[Any, Any, Any]:
    """An app with a workflow of ten steps: the app, the workflow, and a query of the rows that it wrote."""
    app = new_app()
    note, noted = notes(app)

    async def step(n: int) -> int:
        ran.append(f"step {n}")
        return n

    @app.action(retry=Retry(3, initial=0))
    async def act(n: int) -> int:
        ran.append(f"action {n}")
        return n

    @app.workflow
    async def flow(ctx: Context) -> int:
        total = 0
        for n in range(2):
            total += await ctx.step(step, n)
            await ctx.call(note, f"a {n}")
            total += sum(await asyncio.gather(ctx.call(act, n), ctx.step(step, n + 10)))
            await ctx.sleep(0.001)
            total += await ctx.wait_for_signal("go", int)
        await ctx.call(note, "end")
        return total

    return app, flow, noted


@pytest.mark.stores("sqlite")
@on_a_loop
async def test_140_whatever_is_in_the_file_when_a_process_dies_the_run_completes(disk: Place, tmp_path: Path) -> None:
    """The file is copied at each point of each commit: that is what a process that died there would have left."""
    copies: list[Path] = []
    ran: list[str] = []
    app, flow, _ = ten_steps(ran)

    def copied(point: str) -> None:
        if point in POINTS:
            folder = tmp_path / "copies" / f"{len(copies)}"
            shutil.copytree(tmp_path, folder, ignore=shutil.ignore_patterns("*-shm", "*.lock", "copies"))
            copies.append(folder)

    async with disk.open(app) as sw:
        run = await sw.options(id="run").start(flow)
        for _ in range(2):
            await run.signal("go", 1)
        sw._connection.engine.lanes.first._fault = copied
        assert await run.result() == 25
        sw._connection.engine.lanes.first._fault = lambda _: None
    assert len(copies) > 40
    disk.time.forward(60)
    for folder in copies:
        ran.clear()
        app, flow, noted = ten_steps(ran)
        url = f"sqlite:///{folder}/t.db"
        async with Stepwell(url, app, settings=PARKING, clock_ms=disk.time, drain=0) as sw:
            run = sw.handle("run", flow)
            assert await run.result(timeout=20) == 25
            assert await sw.call(noted) == ["a 0", "a 1", "end"], "each row once"
            keys = [one.key for one in await entries(run) if one.kind in ("step.completed", "action.completed")]
            assert len(keys) == len(set(keys)) == 9, "each end once"
            assert len(ran) == len(set(ran)), "each at most once more than before"


@on_a_loop
@pytest.mark.parametrize("hours", [1, -1])
async def test_142_a_clock_that_jumps_loses_no_timer(disk: Place, hours: int) -> None:
    @disk.app.workflow
    async def flow(ctx: Context) -> str:
        await ctx.sleep(2 * 3_600)
        return "woke"

    async with disk.open() as sw:
        run = await sw.start(flow)
        await resting(run)
        disk.time.forward(hours * 3_600)
        await asyncio.sleep(0.1)
        assert (await run.status()).status == "sleeping"
        disk.time.forward((2 - hours) * 3_600)
        assert await run.result() == "woke"


@on_a_loop
async def test_143_parked_runs_are_left_alone_and_one_of_many_wakes_at_once(disk: Place) -> None:
    @disk.app.workflow
    async def flow(ctx: Context) -> Any:
        return await ctx.wait_for_signal("go")

    async with disk.open() as sw:
        runs = await asyncio.gather(*(sw.start(flow) for _ in range(500)))
        for run in runs:
            await resting(run)
        disk.sent.clear()
        await asyncio.sleep(0.3)
        assert {type(one) for one in disk.sent} <= {c.Claim, c.Sweep, c.Deliver, c.Fire, c.Promote, c.Sync}
        began = asyncio.get_running_loop().time()
        await runs[250].signal("go", "now")
        assert await runs[250].result() == "now"
        assert asyncio.get_running_loop().time() - began < 0.5


@on_a_loop
async def test_144_a_worker_hears_of_work_without_asking_for_it(disk: Place) -> None:
    @disk.app.workflow
    async def flow(ctx: Context) -> str:
        return "done"

    disk.set(poll_ms=60_000)
    async with disk.open(worker=False) as starter, disk.open() as worker:
        await asyncio.sleep(0.1)
        here = await worker.start(flow)
        assert await here.result(timeout=1) == "done"
        there = await starter.start(flow)  # another process's commit is seen, not told
        assert await worker.handle(there.id).result(timeout=2) == "done"


@on_a_loop
async def test_145_what_an_older_program_left_goes_on(disk: Place) -> None:
    ran: list[str] = []
    app, flow, _ = ten_steps(ran)
    async with disk.open(app) as sw:
        run = await sw.start(flow)
        await seen(run, "timer.fired")
        await resting(run)
    app, flow, noted = ten_steps(ran)
    async with disk.open(app) as sw:
        run = sw.handle(run.id, flow)
        for _ in range(2):
            await run.signal("go", 1)
        assert await run.result() == 25
        assert await sw.call(noted) == ["a 0", "a 1", "end"]
    assert len(ran) == len(set(ran)), "nothing was done again"


CODE = """
from stepwell import Context
from stepwell.workflow.app import App
from tests.support import durable, durable_url

app = App("cli_shop")


@app.workflow
async def approve(ctx: Context, order: str) -> str:
    by = await ctx.wait_for_signal("approval", str)
    return f"{order}, approved by {by}"
"""


def test_150_the_command_line_starts_shows_signals_and_cancels(disk: Place, tmp_path: Path) -> None:
    (tmp_path / "cli_shop.py").write_text(CODE)
    place = ("--db", disk.url, "--cwd", str(tmp_path))

    async def made() -> None:
        async with disk.open():
            pass

    asyncio.run(made())

    def ok(*args: str) -> str:
        done = CliRunner().invoke(cli, [*args, *place], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    ok("start", "cli_shop:approve", "--input", '{"order": "7"}', "--id", "mine", "--app", "cli_shop:app")
    assert "mine" in ok("runs", "list")
    assert "cli_shop:approve" in ok("runs", "show", "mine")
    ok("signal", "mine", "approval", '"ann"')
    assert "signal.received" in ok("runs", "journal", "mine")
    ok("runs", "cancel", "mine")
    assert "canceled" in ok("runs", "show", "mine")
    ok("doctor")


@on_a_loop
async def test_108_a_process_that_dies_with_a_step_under_way_wedges_nothing(disk: Place) -> None:
    """Its lease runs out, somebody else goes on, and what it says later is refused."""
    begun = asyncio.Event()
    ran = 0

    @disk.app.action(retry=Retry(2, initial=0))
    async def hangs() -> int:
        nonlocal ran
        ran += 1
        begun.set()
        await asyncio.sleep(60 if ran == 1 else 0)
        return ran

    @disk.app.workflow
    async def flow(ctx: Context) -> int:
        return await ctx.call(hangs)

    async with disk.open(drain=0) as sw:
        run = await sw.start(flow)
        await begun.wait()
        disk.away = (c.Release, c.Sync, c.Record, c.Finish, c.Fail)  # it dies: nothing more of it gets through
        await refused(run.result(timeout=0.05), TimeoutError)
    disk.time.forward(60)
    async with disk.open() as sw:
        assert await sw.handle(run.id).result() == 2


@pytest.mark.parametrize(("sync", "level"), [("full", 2), ("normal", 1)])
def test_141_a_commit_is_on_the_disk_before_anybody_hears_of_it(tmp_path: Path, sync: Any, level: int) -> None:
    assert Settings().sync == "full"
    with closing(SqliteStore(tmp_path / "t.db", sync=sync).connect()) as db:
        assert db.execute("pragma synchronous").fetchone() == (level,)
        assert db.execute("pragma journal_mode").fetchone() == ("wal",)
