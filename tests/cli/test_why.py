"""The sentence that `runs show` begins with: what keeps a run from moving, and what will move it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.kernel.explain import Around, explain
from stepwell.model.rows import Pool, Run, Task
from stepwell.model.words import TaskKind, TaskState
from stepwell.worker.alive import Presence, any_worker
from tests.cli.support import OK, PATIENCE_S, Shop, flow, write_event
from tests.server.support import Server, database, serving

NOW = 10_000_000


def turn(state: TaskState, **more: Any) -> Task:
    values: dict[str, Any] = {"pool": "default", "requires": "flow:demo", "order": NOW - 12_300, "attempt": 1, **more}
    return Task(1, 1, "main", "step", state, **values)


@pytest.mark.parametrize(
    ("task", "around", "says"),
    [
        (turn("ready"), Around(workers=False),
         "ready for 12.3 s: no worker lives on this database; start one with `stepwell serve` or `stepwell worker`"),
        (turn("ready"), Around(workers=True),
         "ready for 12.3 s: waits for a worker with a free slot in pool default that has flow:demo"),
        (turn("ready"), Around(workers=True, running=0),
         "ready for 12.3 s: no worker that lives has flow:demo; start one in its folder (--cwd), and see"
         " `stepwell flow check` there"),
        (turn("ready", order=NOW - 900), Around(workers=True, running=0),
         "ready for 0.9 s: waits for a worker with a free slot in pool default that has flow:demo"),
        (turn("ready"), Around(workers=True, running=4),
         "ready for 12.3 s: waits for a worker with a free slot in pool default that has flow:demo (4 runs are under"
         " way); `stepwell worker` brings more slots"),
        (turn("due", attempt=1, due_at=NOW + 30_000), Around(failed_with="exited with 3"),
         "failed once (exited with 3); is tried again in 30.0 s"),
        (turn("leased", worker="host:1", leased_at=NOW - 5_000, lease_until=NOW + 60_000), Around(workers=False),
         "attempt 1 ran at host:1, which is gone (its lease ends in 60.0 s); start one with `stepwell serve` or"
         " `stepwell worker`"),
        (turn("ready"), Around(workers=False, pool=Pool("main", "default", paused=True)),
         "ready for 12.3 s: pool default is paused; `stepwell pools resume default` lets it go on"),
        (turn("ready"), Around(workers=True, pool=Pool("main", "default", limit=2), pool_runs=2),
         "ready for 12.3 s: pool default is full (2 of 2 run); goes on when one of them ends"),
        (turn("ready"), Around(pool=Pool("main", "default", rate=5, rate_ms=60_000)),
         "ready for 12.3 s: waits for a worker with a free slot in pool default, which starts 5 per 60.0 s that has"
         " flow:demo"),
        (turn("ready", lost=2), Around(),
         "ready for 12.3 s since a worker died with it (2 in a row): waits for a worker with a free slot in pool"
         " default that has flow:demo"),
        (turn("blocked", pool="flow:demo/go", pool_key="repo"), Around(key_runs=("run_a",)),
         "key repo of pool flow:demo/go is full with run_a; goes on when one run of that key ends"),
        (turn("due", attempt=1, due_at=NOW + 30_000), Around(), "failed once; is tried again in 30.0 s"),
        (turn("due", attempt=3, due_at=NOW + 7_300_000), Around(), "failed 3 times; is tried again in 2 h"),
        (turn("leased", worker="host:1", leased_at=NOW - 5_000, lease_until=NOW + 60_000), Around(),
         "attempt 1 runs at host:1 for 5.0 s; its lease is good for 60.0 s more"),
        (turn("leased", worker="host:1", leased_at=NOW - 90_000, lease_until=NOW - 2_000), Around(),
         "attempt 1 ran at host:1, whose lease ended 2.0 s ago without a word; it is given to another worker at once,"
         " if one lives"),
    ],
)  # fmt: skip
def test_an_open_run(task: Task, around: Around, says: str) -> None:
    assert explain(Run(1, "main", "run_x"), [task], NOW, around) == says


@pytest.mark.parametrize(
    ("kind", "workers", "says"),
    [
        ("turn", True, "attempt 1 ran at host:1, which died; it goes on at once"),
        ("turn", False, "attempt 1 ran at host:1, which died; start one with `stepwell serve` or `stepwell worker`,"
         " which goes on with it at once"),
        ("step", False, "attempt 1 ran at host:1, which is gone (its lease ends in 60.0 s); start one with"
         " `stepwell serve` or `stepwell worker`"),
    ],
)  # fmt: skip
def test_a_lease_is_waited_for_only_where_work_may_outlive_its_worker(kind: TaskKind, workers: bool, says: str) -> None:
    task = turn("leased", worker="host:1", leased_at=NOW - 5_000, lease_until=NOW + 60_000)
    task.kind = kind
    assert explain(Run(1, "main", "r"), [task], NOW, Around(workers=workers, died=True)) == says


def test_a_run_that_is_asked_to_cancel() -> None:
    task = turn("leased", worker="host:1", leased_at=NOW - 5_000, lease_until=NOW + 60_000)
    run = Run(1, "main", "run_x", cancel_at=NOW - 3_000)
    says = "asked to cancel 3.0 s ago: attempt 1 runs at host:1 for 5.0 s, and is being stopped"
    assert explain(run, [task], NOW) == says


def test_a_run_that_is_held() -> None:
    run = Run(1, "main", "run_x", hold="poison", status="waiting")
    says = explain(run, [turn("held")], NOW, Around(held_for="5 leases in a row were lost"))
    assert says.startswith("held as poison: it came back broken again and again")
    assert says.endswith("(5 leases in a row were lost); `stepwell runs retry run_x` lets it go on")
    assert explain(Run(1, "main", "r", hold="paused"), [], NOW).startswith("held as paused: somebody paused it;")


def test_a_run_that_ended_and_one_without_a_task() -> None:
    assert explain(Run(1, "main", "r", status="failed"), [], NOW) == "ended: failed"
    assert "stepwell doctor" in explain(Run(1, "main", "r"), [], NOW)


def test_whether_a_worker_lives_is_seen_by_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    assert any_worker(path) is False
    with Presence(path, "one"), Presence(path, "two"):
        assert any_worker(path) is True
    assert any_worker(path) is False
    assert any_worker(None) is None
    with Presence(tmp_path / "no such folder/x", "one"):
        pass


def why(shop: Shop, run_id: str) -> str:
    """What the first line says."""
    return shop.text("runs", "show", run_id).splitlines()[0]


@pytest.mark.stores("sqlite")
def test_runs_show_begins_with_why(tmp_path: Path) -> None:
    """From a real database: no worker, a paused pool, a step that runs, another that waits for its key."""
    flow(tmp_path, steps={"go": f"touch {tmp_path}/began; while [ ! -e {tmp_path}/end ]; do sleep 0.05; done; {OK}"})
    manifest = tmp_path / "flows/demo/flow.toml"
    manifest.write_text(manifest.read_text() + '[steps.concurrency]\nkey = "/type"\nlimit = 1\n')
    shop = Shop(tmp_path)
    (first,) = shop.json("events", "dispatch", "--event", write_event(tmp_path, "e1"))["runIds"]
    assert "no worker lives on this database" in why(shop, first)
    (second,) = shop.json("events", "dispatch", "--event", write_event(tmp_path, "e2"))["runIds"]
    with serving(tmp_path):
        wait_for(tmp_path / "began")
        assert "attempt 1 runs at" in why(shop, first)
        until(lambda: "is full with" in why(shop, second))
        assert first in why(shop, second)
        (tmp_path / "end").touch()
        until(lambda: why(shop, second) == "ended: completed")


@pytest.mark.stores("sqlite")
def test_http_says_why_as_the_command_line_does(shop: Shop) -> None:
    with serving(shop.cwd, "--no-worker") as server:
        (run_id,) = server.send("e")["runIds"]
        assert "no worker lives on this database" in server.get(f"/runs/{run_id}")["run"]["why"]
        shop.ok("pools", "pause", "default")
        assert "pool default is paused" in server.get(f"/runs/{run_id}")["run"]["why"]


@pytest.mark.stores("sqlite")
def test_a_worker_that_was_killed_is_not_said_to_live(tmp_path: Path) -> None:
    flow(tmp_path)
    server = Server(tmp_path)
    assert any_worker(database(tmp_path)) is True
    server.kill()
    assert any_worker(database(tmp_path)) is False


NO_WORKER = "no worker lives on this database; start one with `stepwell serve` or `stepwell worker`"
PAUSED = "pool default is paused; `stepwell pools resume default` lets it go on"


@pytest.mark.stores("sqlite")
def test_lists_say_below_what_keeps_their_runs(shop: Shop) -> None:
    """On stderr, so that a pipe gets the rows alone; the doctor, whom people ask first, as JSON, too."""
    for event_id in ("e1", "e2"):
        shop.json("events", "dispatch", "--event", write_event(shop.cwd, event_id))
    looks = (["runs", "list"], ["pools", "list"], ["doctor"])
    for look in looks:
        assert shop.call(*look, "--no-json").stderr == f"2 runs: {NO_WORKER}\n"
    assert shop.call("events", "show", "e1", "--no-json").stderr == f"1 run: {NO_WORKER}\n"
    shop.ok("pools", "pause", "default")
    assert shop.call("runs", "list", "--no-json").stderr == f"2 runs: {PAUSED}\n"
    assert shop.json("doctor")["notes"] == [{"runs": 2, "why": PAUSED}]


@pytest.mark.stores("sqlite")
def test_a_wait_that_is_over_says_for_what_it_waited(shop: Shop) -> None:
    told = shop.refused("events", "dispatch", "--event", write_event(shop.cwd), "--wait", "--timeout", "0.1")
    (run,) = shop.json("runs", "list")["runs"]
    assert f"{run['id']}: ready for" in told
    assert NO_WORKER in told
    assert f"stepwell runs watch {run['id']}" in told


def test_a_back_off_tells_the_failure(tmp_path: Path) -> None:
    manifest = flow(tmp_path, steps={"go": "exit 3"}) / "flow.toml"
    manifest.write_text(
        manifest.read_text() + "[steps.retry]\nmax_attempts = 2\ninitial_ms = 600000\nmax_ms = 600000\n"
    )
    shop = Shop(tmp_path)
    with serving(tmp_path) as server:
        (run_id,) = server.send("e")["runIds"]
        until(lambda: "failed once (" in why(shop, run_id))
    assert "exit" in why(shop, run_id)


@pytest.mark.stores("sqlite")
def test_a_run_of_a_worker_that_died_is_not_said_to_run(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": f"touch {tmp_path}/began; sleep 60"})
    server = Server(tmp_path)
    (run_id,) = server.send("e")["runIds"]
    wait_for(tmp_path / "began")
    server.kill()
    assert "which is gone (its lease ends in" in why(Shop(tmp_path), run_id)
    assert Shop(tmp_path).json("doctor")["notes"][0]["why"].startswith("its worker is gone; start one")


def wait_for(path: Path) -> None:
    until(path.exists)


def until(fits: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not fits():
        assert time.monotonic() < ends
        time.sleep(0.02)
