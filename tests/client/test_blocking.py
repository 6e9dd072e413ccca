"""`stepwell.blocking`: the same calls without `await`, from scripts and threads."""

import inspect
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import stepwell
from stepwell import Event, Invalid, RunError, Unavailable, blocking
from stepwell.client.background import Background
from stepwell.model.settings import Settings
from tests.client.shop import Decision, Order, app, approval, approve, bakery, checkout, progress, tidy
from tests.server.support import ROOT, environ

SETTINGS = Settings(sync="normal", poll_ms=200)


def opened(url: str = "memory:") -> blocking.Stepwell:
    return blocking.Stepwell(url, app, settings=SETTINGS)


@pytest.mark.parametrize(
    ("twin", "original"),
    [(blocking.Stepwell, stepwell.Stepwell), (blocking.Handle, stepwell.Handle), (blocking.Paged, stepwell.Paged)],
)
def test_the_twin_has_the_same_names_and_parameters(twin: type, original: type) -> None:
    def public(kind: type) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            name: [(one.name, one.kind, one.default) for one in inspect.signature(method).parameters.values()]
            for name, method in vars(kind).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }

    only_async = {"lifespan", "ended", "outcome"}  # of web apps; what the client itself uses
    assert public(twin) == {name: given for name, given in public(original).items() if name not in only_async}
    if twin is blocking.Stepwell:
        assert inspect.signature(twin) == inspect.signature(original)


def test_a_script_from_start_to_result() -> None:
    with opened() as sw:
        run = sw.options(id="a").start(approve, "1")
        seen: list[str] = []
        for view in run.watch():
            seen.append(view.status)
            if run.get(progress) == "waits" and run.status().status != "completed" and "told" not in seen:
                seen.append("told")
                run.signal(approval, Decision(True, "ann"))
        assert seen[-1] == "completed"
        assert run.result(timeout=5) == Decision(True, "ann")
        assert [one.id for one in sw.runs()] == ["a"]
        assert sw.runs().page(limit=5)[1] is None
        assert next(run.journal()).kind == "run.created"
        baked = sw.start(bakery, "bun", 1)
        assert [chunk.text for chunk in baked.output(follow=True)] == ["try 1\n", "try 2\n"]
        (paid,) = sw.dispatch(Event("order.paid", {"total": 7}, id="e"), wait=5).run_ids
        assert sw.handle(paid).result(timeout=5) == "e 7"
        with pytest.raises(RunError, match="nothing to charge"):
            sw.start(checkout, Order("1", -1)).result(timeout=5)


def test_threads_share_one() -> None:
    with opened() as sw, ThreadPoolExecutor(8) as threads:
        runs = list(threads.map(lambda n: sw.start(bakery, str(n)), range(40)))
        found = list(threads.map(lambda run: run.result(timeout=10), runs))
        assert found == [f"{n}, baked at try 1" for n in range(40)]


def test_an_iteration_that_is_left_leaves_nothing_behind() -> None:
    with opened() as sw:
        run = sw.start(tidy)
        for _ in run.watch():
            break
        run.terminate()


def test_closed_is_said_and_it_can_be_opened_again(tmp_path: Path) -> None:
    sw = opened(f"sqlite:///{tmp_path}/shop.db")
    with pytest.raises(Unavailable, match="not open"):
        sw.start(tidy)
    with sw:
        run = sw.start(tidy)
        with pytest.raises(Invalid, match="open already"):
            sw.__enter__()
    with pytest.raises(Unavailable, match="not open"):
        run.status()
    with sw:
        assert run.status().status in ("queued", "running", "sleeping")


def test_what_cannot_be_opened_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(Invalid, match="mysql"):
        blocking.Stepwell("mysql:///x", app).__enter__()
    assert threading.active_count() == before


def test_a_call_that_is_under_way_when_it_is_closed_ends() -> None:
    caught: list[Exception] = []
    waiting = threading.Event()

    def wait(run: blocking.Handle[None]) -> None:
        try:
            waiting.set()
            run.result()
        except Unavailable as error:
            caught.append(error)

    with opened() as sw:
        thread = threading.Thread(target=wait, args=(sw.start(tidy),))
        thread.start()
        waiting.wait(5)
    thread.join(10)
    assert len(caught) == 1


def test_a_call_on_its_own_loop_is_refused_instead_of_waiting_for_itself() -> None:
    background = Background()

    async def inside(act: Callable[[], None]) -> None:
        act()

    async def nothing() -> None: ...

    background.start()
    try:
        with pytest.raises(Invalid, match="wait for itself"):
            background.do(inside(lambda: background.do(nothing())))
    finally:
        background.stop()


def test_a_script_that_ends_in_an_error_closes_and_tells_it(tmp_path: Path) -> None:
    script = f"""
from stepwell.blocking import Stepwell
from tests.client.shop import app, tidy
with Stepwell("sqlite:///{tmp_path}/shop.db", app) as sw:
    sw.start(tidy)
    raise SystemExit(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (3, "")


def test_a_fork_is_told_to_open_its_own_and_leaves_its_parents_alone(tmp_path: Path) -> None:
    script = f"""
import os, sys
from stepwell import Unavailable
from stepwell.blocking import Stepwell
from tests.client.shop import app, tidy
sw = Stepwell("sqlite:///{tmp_path}/shop.db", app)
with sw:
    run = sw.options(delay=60).start(tidy)
    child = os.fork()
    if not child:
        try:
            run.status()
        except Unavailable as error:
            assert "child process" in error.hint, error.hint
            sys.exit(7)  # leaves the block, too
        sys.exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7, status
    assert run.status().status == "queued"
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
