"""What a worker held that died goes on at once; nobody is buried who lives."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from stepwell import App, Context, Stepwell
from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.errors import Invalid, Unavailable
from stepwell.model.settings import Settings
from stepwell.store.port import Reader
from stepwell.worker.alive import Presence, any_worker, dead, has_died
from stepwell.worker.undertaker import Undertaker
from stepwell.worker.why import why_of
from tests.server.support import environ
from tests.support import assert_lawful, durable, durable_url
from tests.worker.loops import on_a_loop

#: Far below a lease, and far above a look.
SOON_S = 10.0
#: Holds a sign, after some work of its own, and says so.
HOLDER = """
import os, sys, time
from pathlib import Path
from stepwell.worker.alive import Presence
with Presence(Path(sys.argv[1]), sys.argv[2]):
    {work}
    print("holds", flush=True)
    time.sleep(60)
"""
#: A body that holds its worker for ever.
APP = """
import asyncio, sys
from stepwell import App, Context, Stepwell
app = App("it")
@app.workflow(name="waits")
async def waits(ctx: Context) -> str:
    return await ctx.step("long", long)
async def long() -> str:
    print("begun", flush=True)
    if len(sys.argv) > 2:
        return sys.argv[2]
    await asyncio.sleep(60)
    return "never"
async def main() -> None:
    async with Stepwell("sqlite:///" + sys.argv[1], app) as sw:
        print(await (await sw.options(id="r").start(waits)).result(), flush=True)
asyncio.run(main())
"""


@contextmanager
def process(code: str, *args: object) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    one = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], env=environ(), stdout=subprocess.PIPE, text=True
    )
    assert one.stdout is not None
    with one.stdout as said:
        try:
            yield one, said
        finally:
            one.kill()
            one.wait()


def kill(one: subprocess.Popen[str]) -> None:
    one.kill()
    one.wait()


def buried(path: Path) -> list[str | None]:
    """The names of the dead; their signs stay."""
    names = []
    for sign in dead(path):
        names.append(sign.name)
        sign.close()
    return names


# ── signs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_is_killed_is_dead_and_who_stands_still_or_ends_well_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with process(HOLDER.format(work=""), path, "w") as (one, said):
        assert said.readline() == "holds\n"
        os.kill(one.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, one.pid, os.WSTOPPED | os.WNOWAIT)
        assert (buried(path), any_worker(path), has_died(path, "w")) == ([], True, False)
        kill(one)
    assert (buried(path), any_worker(path)) == (["w"], False)
    assert (has_died(path, "w"), has_died(path, "nobody"), has_died(None, "w")) == (True, False, False)
    with Presence(path, "other"):
        assert buried(path) == ["w"]
    assert buried(path) == ["w"], "who ends well leaves nothing"


@pytest.mark.parametrize(
    "work",
    [
        "if not os.fork(): print(os.getpid(), flush=True); time.sleep(60)",
        "import subprocess; print(subprocess.Popen(['sleep', '60'], close_fds=False).pid, flush=True)",
    ],
)
def test_children_of_a_worker_do_not_keep_it_alive(work: str, tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with process(HOLDER.format(work=work), path, "w") as (one, said):
        (child,) = (int(line) for line in sorted((said.readline(), said.readline()))[:1])
        try:
            assert buried(path) == []
            kill(one)
            assert buried(path) == ["w"]
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_child_that_ends_the_block_of_its_parent_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with Presence(path, "w"):
        one = Presence(path, "child")
        one.__enter__()
        child = os.fork()
        if not child:
            one.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(Unavailable, match="a worker 'child' lives"), Presence(path, "child"):
            pass
        one.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_of_one_worker_at_a_time_and_may_be_used_again(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with Presence(path, "w"):
        with pytest.raises(Unavailable, match="a worker 'w' lives"), Presence(path, "w"):
            pass
        assert any_worker(path) is True
    with Presence(path, "w"):
        assert buried(path) == []
    with pytest.raises(Invalid):
        Presence(path, "a\nb")


def test_nobody_takes_the_name_of_one_who_is_being_buried(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    _died(path, "w")
    for sign in dead(path):
        assert buried(path) == [], "two do not bury one"
        with pytest.raises(Unavailable), Presence(path, "w"):
            pass
        sign.remove()
    with Presence(path, "w"):
        assert buried(path) == []


def test_a_sign_that_says_nothing_is_of_nobody(tmp_path: Path) -> None:
    """Its worker died before it wrote, or under another kernel: nothing is concluded. What is no sign is left alone."""
    path = tmp_path / "x.sqlite"
    folder = tmp_path / "x.sqlite.alive"
    _died(path, "w")
    (file,) = folder.iterdir()
    said = file.read_bytes()
    (folder / "notes.txt").write_text("of the user")
    assert buried(path) == ["w"]
    for strange in (b"", said[:-1], b"another boot" + said[said.index(b"\n") :], b"\xff\xfe", b"\n" * 9_000):
        file.write_bytes(strange)
        assert buried(path) == [None]
    for sign in dead(path):
        sign.remove()
    assert [one.name for one in folder.iterdir()] == ["notes.txt"]


def test_where_files_cannot_be_locked_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(fd: int, how: int) -> None:
        raise OSError("no locks here")

    path = tmp_path / "x.sqlite"
    _died(path, "other")
    monkeypatch.setattr("fcntl.flock", refuses)
    with Presence(path, "w"):
        assert buried(path) == []
        assert any_worker(path) is None
    with Presence(tmp_path / "no such folder" / "x", "w"), Presence(None, "w"):
        pass


def test_a_file_that_is_removed_between_our_look_and_our_lock_is_no_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock, late = tmp_path / "x.sqlite", fcntl.flock, 0
    _died(path, "w")

    def somebody_was_quicker(fd: int, how: int) -> None:
        nonlocal late
        late += 1
        if late in (1, 2):
            for file in (tmp_path / "x.sqlite.alive").iterdir():
                file.unlink()
        lock(fd, how)

    monkeypatch.setattr("fcntl.flock", somebody_was_quicker)
    assert buried(path) == []
    with Presence(path, "w"):
        assert late == 3, "it tried again"
        assert any_worker(path) is True


def _died(path: Path, name: str) -> None:
    """Leaves the sign of a worker that died."""
    with process(HOLDER.format(work=""), path, name) as (_, said):
        assert said.readline() == "holds\n"


# ── burying ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def claimed(engine: Engine, run_id: str, worker: str) -> None:
    await engine.submit(c.StartRun(run_id, "wf"))
    assert (await engine.submit(c.Claim(worker, f"secret-{run_id}"))).tasks


async def states(engine: Engine, *numbers: int) -> list[str]:
    tasks = await engine.read(lambda reader: [task for no in numbers for task in reader.tasks_of(no)])
    return [task.state for task in tasks]


@on_a_loop
async def test_the_dead_are_buried_once_and_the_living_never(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    async with Engine(durable(path), settings=Settings(sync="normal")) as engine:
        undertakers = [Undertaker(engine.submit, path) for _ in range(2)]
        await claimed(engine, "a", "dies")
        await claimed(engine, "b", "lives")
        with Presence(path, "lives"):
            await asyncio.to_thread(_died, path, "dies")
            await asyncio.gather(*(one.work() for one in undertakers))
            assert await states(engine, 1, 2) == ["ready", "leased"]
            kinds = [entry.kind for entry in await engine.read(lambda reader: reader.entries(1))]
            assert kinds == ["run.created", "attempt.started", "attempt.ended"]
    assert buried(path) == []
    assert_lawful(durable(path))


@on_a_loop
async def test_a_burial_that_nobody_waits_for_any_more_keeps_the_name_until_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    await asyncio.to_thread(_died, path, "dies")
    answer: asyncio.Future[c.Worked] = asyncio.get_running_loop().create_future()

    def slow(command: c.Command) -> asyncio.Future[c.Worked]:
        assert command == c.Bury("dies")
        return answer

    burial = asyncio.create_task(Undertaker(slow, path).work())
    await asyncio.sleep(0)
    burial.cancel()
    await asyncio.wait([burial])
    with pytest.raises(Unavailable), Presence(path, "dies"):
        pass
    answer.set_result(c.Worked(0))
    await asyncio.sleep(0)
    assert buried(path) == ["dies"], "what was left is looked at again"


@on_a_loop
async def test_a_store_that_is_away_leaves_the_sign_for_later(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    await asyncio.to_thread(_died, path, "dies")
    engine = Engine(durable(path), settings=Settings(sync="normal"))
    async with engine:
        pass
    with pytest.raises(Unavailable):
        await Undertaker(engine.submit, path).work()
    assert buried(path) == ["dies"]


# ── programs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def sentence(path: Path, run_id: str) -> str:
    """Why a run does not move, said by a process that runs nothing."""

    def said(reader: Reader) -> str:
        run = reader.run("main", run_id)
        assert run is not None
        return why_of(reader, run, engine)

    async with Engine(durable(path), settings=Settings(sync="normal"), roles=False) as engine:
        return await engine.read(said)


@pytest.mark.stores("sqlite")
def test_a_program_that_was_killed_and_runs_again_goes_on_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with process(APP, path) as (first, said):
        assert said.readline() == "begun\n"
        kill(first)
        assert "which died; start one" in asyncio.run(sentence(path, "r"))
        begun = time.monotonic()
        with process(APP, path, "done") as (_, again):
            assert [again.readline(), again.readline()] == ["begun\n", "done\n"]
            assert time.monotonic() - begun < SOON_S
    assert_lawful(durable(path))


@pytest.mark.stores("sqlite")
def test_a_program_that_stands_still_keeps_what_it_runs_until_it_is_killed(tmp_path: Path) -> None:
    path, app = tmp_path / "x.sqlite", App("it")

    @app.workflow(name="waits")
    async def waits(ctx: Context) -> str:
        return await ctx.step("long", lambda: "done")

    async def main(one: subprocess.Popen[str]) -> None:
        async with Stepwell(durable_url(path), app) as sw:
            run = sw.handle("r")
            with pytest.raises(TimeoutError):
                await run.result(timeout=2.5)
            assert (await run.status()).status == "running"
            kill(one)
            assert await run.result(timeout=SOON_S) == "done"

    with process(APP, path) as (first, said):
        assert said.readline() == "begun\n"
        os.kill(first.pid, signal.SIGSTOP)
        asyncio.run(main(first))
    assert_lawful(durable(path))
