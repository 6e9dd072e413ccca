"""Code that changes under open runs: one that no longer fits holds the run with a diff, one that fits again goes on."""

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

from stepwell import Stepwell
from stepwell.model.settings import Settings
from tests.support import durable_url

from .loops import on_a_loop
from .site import PATIENCE_S

QUICK = Settings(poll_ms=50, lease_ms=10_000, linger_ms=0, sync="normal")
CODE = """
from stepwell import App, Context

app = App("shop")


def made() -> str:
    return "tea"


@app.workflow
async def order(ctx: Context, wait: str) -> list[str]:
    done = [await ctx.step("{first}", made)]
    {patch}
    await ctx.wait_for_signal(wait)
    return [*done, await ctx.step("last", made)]
"""


class Deploy:
    """Versions of one app's code, each loaded as a new process would load it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self.url = durable_url(folder / "app.sqlite")

    def app(self, *, first: str = "make", patch: str = "") -> Any:
        self._count += 1
        path = self._folder / f"shop{self._count}.py"
        path.write_text(CODE.format(first=first, patch=patch))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def open(self, module: Any) -> Stepwell:
        return Stepwell(self.url, module.app, settings=QUICK)


async def until(sw: Stepwell, run_id: str, status: str, hold: str | None = None) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        async for run in sw.handle(run_id).watch():
            if run.status == status and run.hold == hold:
                return run
    raise AssertionError("it ended")


async def started(deploy: Deploy, module: Any) -> None:
    """A run that is parked after its first step."""
    async with deploy.open(module) as sw:
        await sw.options(id="r").start(module.order, "go")
        await until(sw, "r", "waiting")


async def stuck(sw: Stepwell) -> None:
    """The run goes on, and its code does not fit."""
    await sw.handle("r").signal("go", None)
    await until(sw, "r", "waiting", "mismatch")


async def result(sw: Stepwell) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await sw.handle("r").result()


async def held_diff(sw: Stepwell) -> str:
    bodies = [entry.body async for entry in sw.handle("r").journal() if entry.kind == "run.held"]
    return str(bodies[-1]["diff"])


@on_a_loop
async def test_code_that_does_not_fit_holds_the_run_and_says_where(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path)
    await started(deploy, deploy.app())
    changed = deploy.app(first="bake")
    async with deploy.open(changed) as sw:
        await stuck(sw)
        diff = await held_diff(sw)
    assert "make#0" in diff
    assert "bake#0" in diff
    assert 'step.completed "tea"' in diff


@on_a_loop
async def test_a_held_run_goes_on_with_the_next_code_that_fits(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path)
    first = deploy.app()
    await started(deploy, first)
    async with deploy.open(deploy.app(first="bake")) as sw:
        await stuck(sw)
    async with deploy.open(first) as sw:
        assert await result(sw) == ["tea", "tea"]


@on_a_loop
async def test_the_same_wrong_code_does_not_try_again(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path)
    await started(deploy, deploy.app())
    wrong = deploy.app(first="bake")
    async with deploy.open(wrong) as sw:
        await stuck(sw)
        before = [entry.seq async for entry in sw.handle("r").journal()]
    async with deploy.open(wrong) as sw:
        await until(sw, "r", "waiting", "mismatch")
        assert [entry.seq async for entry in sw.handle("r").journal()] == before


@on_a_loop
async def test_a_patch_lets_old_and_new_runs_go_their_ways(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path)
    await started(deploy, deploy.app())
    patched = deploy.app(patch='if ctx.patched("wrap"):\n        done.append(await ctx.step("wrap", made))')
    async with deploy.open(patched) as sw:
        await sw.handle("r").signal("go", None)
        new = await sw.options(id="new").start(patched.order, "go")
        await new.signal("go", None)
        async with asyncio.timeout(PATIENCE_S):
            assert await sw.handle("r").result() == ["tea", "tea"]
            assert await new.result() == ["tea", "tea", "tea"]
        kinds = [entry.kind async for entry in new.journal()]
    assert kinds.count("patch.marked") == 1


@on_a_loop
async def test_a_step_that_is_put_before_recorded_ones_is_found_out(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path)
    await started(deploy, deploy.app())
    async with deploy.open(deploy.app(patch='done.append(await ctx.step("wrap", made))')) as sw:
        await sw.handle("r").signal("go", None)
        assert await result(sw) == ["tea", "tea", "tea"], "nothing after it was recorded, so it is simply new"
