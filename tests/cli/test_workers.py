"""Workers beside the server, the pools that they share, and what goes on until it is told to end."""

import contextlib
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cli.support import OK, PATIENCE_S, Shop, flow, write_event
from tests.cli.test_why import until
from tests.server.support import lawful, serving

SLOW = "touch $PWD/../../began; trap 'exit 9' TERM; while [ ! -e $PWD/../../end ]; do sleep 0.05; done; "


@contextmanager
def working(shop: Shop, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A `stepwell worker` that has said that it works."""
    process = shop.start("worker", *args)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("working as "), line + (process.stderr.read() if process.stderr else "")
        yield process
    finally:
        process.kill()
        process.communicate()


def hurried(process: subprocess.Popen[str]) -> None:
    """Sends signals until it ends; the first of them may come together with the one before, and count as one."""
    ends = time.monotonic() + PATIENCE_S
    while process.poll() is None:
        assert time.monotonic() < ends
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    assert process.returncode == 0


def dispatched(shop: Shop, event_id: str) -> str:
    (run_id,) = shop.json("events", "dispatch", "--event", write_event(shop.cwd, event_id))["runIds"]
    assert isinstance(run_id, str)
    return run_id


def test_a_worker_runs_what_a_server_accepts(shop: Shop) -> None:
    """On the same database, in another process; `--no-worker` leaves the server its listener alone."""
    with serving(shop.cwd, "--no-worker") as server, working(shop) as worker:
        (run_id,) = server.send("e")["runIds"]
        assert server.ended(run_id)["status"] == "completed"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE_S) == 0
    lawful(shop.cwd)


def test_sigterm_drains_a_worker(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": SLOW + OK})
    shop = Shop(tmp_path)
    run_id = dispatched(shop, "e")
    with working(shop) as worker:
        until((tmp_path / "began").exists)
        worker.send_signal(signal.SIGTERM)
        (tmp_path / "end").touch()
        assert worker.wait(PATIENCE_S) == 0
    assert shop.json("runs", "show", run_id)["run"]["status"] == "completed"


def test_a_second_signal_hands_back_at_once(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": SLOW + OK})
    shop = Shop(tmp_path)
    run_id = dispatched(shop, "e")
    with working(shop, "--drain", "600") as worker:
        until((tmp_path / "began").exists)
        worker.send_signal(signal.SIGTERM)
        hurried(worker)
    run = shop.json("runs", "show", run_id)["run"]
    assert (run["status"], run["attempts"][0]["ended"]) == ("queued", "released")
    lawful(tmp_path)


@pytest.mark.parametrize("args", [("serve", "--port", "0"), ("serve", "--port", "0", "--no-worker"), ("worker",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_without_end_do_not_kill_what_is_closing(
    tmp_path: Path, args: tuple[str, ...], number: signal.Signals
) -> None:
    """asyncio's handlers go with its loop, Python's with the interpreter: the next signal would hit in between."""
    process = Shop(tmp_path).start(*args)
    assert process.stdout is not None
    assert process.stdout.readline()
    while process.poll() is None:
        process.send_signal(number)
        time.sleep(0.0005)  # without one, it may do nothing but hear signals
    assert (process.returncode, process.communicate()[1]) == (0, "")


def test_a_paused_pool_starts_nothing_until_it_is_resumed(shop: Shop) -> None:
    dispatched(shop, "before")
    assert shop.json("pools", "pause", "default")["pool"]["paused"]
    with serving(shop.cwd) as server:
        (run_id,) = server.send("e")["runIds"]
        assert "pool default is paused; `stepwell pools resume default`" in shop.text("runs", "show", run_id)
        row = shop.text("pools", "list").splitlines()[1].split()
        assert (row[0], row[4:]) == ("default", ["0", "2", "paused"])
        shop.ok("pools", "resume", "default")
        assert server.ended(run_id)["status"] == "completed"
    assert shop.json("pools", "list")["pools"] == []


def test_a_pause_outlives_a_server_that_reads_the_manifests_anew(tmp_path: Path) -> None:
    """The pool of a step with a concurrency is set by its manifest, and its pause is not the manifest's business."""
    manifest = flow(tmp_path) / "flow.toml"
    manifest.write_text(manifest.read_text() + '[steps.concurrency]\nkey = "/type"\nlimit = 2\n')
    shop = Shop(tmp_path)
    dispatched(shop, "e1")
    shop.ok("pools", "pause", "flow:demo/go")
    manifest.write_text(manifest.read_text().replace("limit = 2", "limit = 3"))
    with serving(tmp_path) as server:
        server.send("e2")
        (pool,) = shop.json("pools", "list")["pools"]
    assert (pool["paused"], pool["keyLimit"], pool["waiting"]) == (True, 3, 2)


def test_limits_are_changed_one_by_one(shop: Shop) -> None:
    shop.fire()
    shop.ok("pools", "set", "slow", "--limit", "3", "--rate", "5", "--rate-ms", "60000")
    pool = shop.json("pools", "set", "slow", "--key-limit", "2")["pool"]
    assert (pool["limit"], pool["keyLimit"], pool["rate"], pool["rateMs"]) == (3, 2, 5, 60_000)
    assert "limit" not in shop.json("pools", "set", "slow", "--limit", "none")["pool"]
    assert shop.json("pools", "pause", "slow")["pool"]["keyLimit"] == 2
    assert [one["name"] for one in shop.json("pools", "list")["pools"]] == ["slow"]
    text = shop.text("pools", "remove", "slow")
    assert text.splitlines()[1].split() == ["slow", "-", "-", "-", "0", "0", "open"]
    assert shop.text("pools", "list") == "no pools: nothing is limited, and nothing runs\n"
    for verb in ("remove", "resume"):
        assert "no pool 'slow'" in shop.refused("pools", verb, "slow")


def original(folder: Path, event_id: str) -> None:
    """A database as the original has it, with one event."""
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "flow-backend.sqlite")) as db:
        db.execute("create table flow_events (id text primary key, created_at text)")
        db.execute("insert into flow_events values (?, '2026-01-01T00:00:00.000Z')", (event_id,))
        db.commit()


@pytest.mark.stores("sqlite")
def test_data_of_the_original_is_named_until_it_is_taken_over(shop: Shop) -> None:
    folder = shop.cwd / ".codex/flow-backend"
    original(folder, "theirs")
    with serving(shop.cwd, "--no-worker") as server:
        pass
    url = f"sqlite:///{shop.cwd}/.stepwell/stepwell.sqlite"
    assert f"`stepwell import codex-flow-systemd-local {folder} --db {url}`" in server.log.read_text()
    assert len(server.log.read_text().splitlines()) == 1
    dispatched(shop, "theirs")
    server.log.unlink()
    with serving(shop.cwd, "--no-worker") as server:
        pass
    assert server.log.read_text() == ""
