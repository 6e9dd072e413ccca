"""Every program of examples/apps does what it says, as a process where it is one."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stepwell import Entry, RunCanceled, RunError, Stepwell
from tests.cli.support import Shop
from tests.examples.apps import APPS, PATIENCE_S, QUICK, Clock, entries, lawful, module, parked, ran, typed, within
from tests.examples.fixtures import TAG
from tests.examples.support import release_event
from tests.server.support import ROOT, as_bytes, environ, serving
from tests.support import postgres

ENV = environ(**QUICK)
#: It takes half a second, on a machine that does nothing else.
SOON_S = 5.0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("release/release.py", ["fixture-1.0.0 looks good", "fixture-1.0.0 is announced: fixture-1.0.0 looks good"]),
        ("seeds/parallel.py", ["(40, 42)", "[1, 2, 2]"]),
        ("seeds/nested.py", ["14 ['James: success 14']", "ValueError: a negative number"]),
        ("seeds/transcription.py", ["talk.mp3 is waiting, for action:index:compute_embedding#0"]),
    ],
)
def test_a_program_says(name: str, says: list[str], tmp_path: Path) -> None:
    assert ran(tmp_path, ENV, name) == says


def test_every_program_is_run_here() -> None:
    text = Path(__file__).read_text()
    programs = [path.relative_to(APPS) for path in APPS.rglob("*.py")]
    assert len(programs) == 9
    assert [name for name in programs if f'"{name}"' not in text and name.name != "web.py"] == []
    listed = (APPS / "README.md").read_text()
    assert [name for name in programs if f"`{name}`" not in listed and f"`{name.parent}/`" not in listed] == []


def test_the_programs_are_typed(tmp_path: Path) -> None:
    """In one folder, where mypy finds what the web app imports."""
    for path in APPS.rglob("*.py"):
        shutil.copy(path, tmp_path)
    command = [sys.executable, "-m", "mypy", "--strict", *map(str, tmp_path.glob("*.py"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ── checkout ─────────────────────────────────────────────────────────────────────────────────────────────────────────

THANKS = ["Thank you for order 7", "receipts: ['r-200000']"]


def test_checkout_is_killed_while_it_waits_and_goes_on_where_it_was(tmp_path: Path) -> None:
    process = subprocess.Popen(typed("checkout/checkout.py"), cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "order-7 waits for an approval\n"
        asyncio.run(until_it_waits(tmp_path))
        process.kill()
        process.wait()
        assert said.read() == ""
    assert ran(tmp_path, ENV, "checkout/checkout.py", "ann") == THANKS
    assert ran(tmp_path, ENV, "checkout/checkout.py", "ann") == THANKS, "nothing is done a second time"
    assert ran(tmp_path, ENV, "checkout/checkout.py") == ["order-7 waits for an approval", *THANKS]


def test_checkout_that_is_killed_while_it_holds_its_run_goes_on_at_once(tmp_path: Path) -> None:
    """With the settings that everybody has, in which a lease is of two minutes."""
    env = environ()
    process = subprocess.Popen(typed("checkout/checkout.py"), cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "order-7 waits for an approval\n"
        asyncio.run(until_it_is_held(tmp_path))
        process.kill()
        process.wait()
    begun = time.monotonic()
    assert ran(tmp_path, env, "checkout/checkout.py", "ann") == THANKS
    assert time.monotonic() - begun < SOON_S


async def until_it_is_held(cwd: Path) -> None:
    async with Stepwell(f"sqlite:///{cwd}/shop.sqlite") as sw:
        async for seen in sw.handle("order-7").watch():
            if seen.status == "running":
                return


async def until_it_waits(cwd: Path) -> None:
    """Seen from a process that has no app."""
    async with Stepwell(f"sqlite:///{cwd}/shop.sqlite") as sw:
        waits = await asyncio.wait_for(parked(sw.handle("order-7")), PATIENCE_S)
        assert waits is not None
        assert "signal:approval" in waits


@pytest.mark.parametrize(("answer", "said"), [(False, "refused by bob"), (None, "expired")])
def test_checkout_that_nobody_approves_charges_nothing(answer: bool | None, said: str) -> None:
    shop, clock = module("checkout/checkout.py"), Clock()

    async def test(sw: Stepwell) -> None:
        run = await sw.start(shop.checkout, shop.Order("8", ["tea"], 1_000_01))
        await parked(run)
        assert await run.get(shop.progress) == "waiting for approval"
        if answer is None:
            clock.ahead_ms += 48 * 3_600_000
        else:
            await run.signal(shop.approval, shop.Decision(answer, "bob"))
        assert await run.result() == said
        assert await sw.call(shop.receipts, "8") == []
        assert await entries(run, "action.scheduled") == []

    within(shop.app, test, clock=clock)


def test_checkout_needs_nobody_for_little_and_takes_nothing_for_nothing() -> None:
    shop = module("checkout/checkout.py")

    async def test(sw: Stepwell) -> None:
        assert await (await sw.start(shop.checkout, shop.Order("9", [], 1_000_00))).result() == "Thank you for order 9"
        free = await sw.start(shop.checkout, shop.Order("10", [], 0))
        with pytest.raises(RunError, match="nothing to charge"):
            await free.result()
        assert len(await entries(free, "attempt.ended", "action.failed")) == 1, "it is not tried again"

    within(shop.app, test)


# ── checkout/web.py ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_checkout_has_its_tables_in_postgres_with_the_same_program(tmp_path: Path) -> None:
    shop, url = module("checkout/checkout.py"), postgres.address(tmp_path)

    async def first(sw: Stepwell) -> None:
        run = await sw.start(shop.checkout, shop.Order("8", ["tea"], 1_000_01))
        await parked(run)
        await run.signal(shop.approval, shop.Decision(True, "ann"))
        assert await run.result() == "Thank you for order 8"

    async def later(sw: Stepwell) -> None:
        assert await sw.call(shop.receipts, "8") == ["r-100001"]

    within(shop.app, first, url=url)
    within(shop.app, later, url=url)


@contextmanager
def uvicorn(cwd: Path, *more: str, app: Path = APPS / "checkout") -> Iterator[tuple[str, Callable[[str], str]]]:
    """The web app in a uvicorn of its own, which ends well: its address, and what waits until it says something."""
    args = ["-m", "uvicorn", "--app-dir", str(app), "--port", "0", *more, "web:api"]
    with (cwd / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *args], cwd=cwd, env=ENV, stderr=subprocess.PIPE, stdout=log, start_new_session=True
        )
    assert process.stderr is not None
    with process.stderr as stderr:

        def heard(words: str) -> str:
            said = ""
            while (found := re.search(words, said)) is None:
                said += (line := stderr.readline().decode())
                assert line, said
            return found[0]

        try:
            yield heard(r"(?<=running on )\S+"), heard
            process.terminate()
            rest = stderr.read()
            assert process.wait(PATIENCE_S) in (0, -15), rest
            assert b"Traceback" not in rest
        finally:
            with suppress(ProcessLookupError):  # with --reload there are two
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(url: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_web_app_takes_an_order_from_its_first_request_to_its_receipt(tmp_path: Path) -> None:
    order, decision = {"id": "7", "lines": ["tea", "cup"], "total": 200000}, {"approved": True, "by": "ann"}
    with uvicorn(tmp_path) as (url, _):
        assert ask(f"{url}/orders", order) == ask(f"{url}/orders", order) == (202, {"run": "order-7"})
        assert ask(f"{url}/orders", {**order, "total": 1})[0] == 409, "another order of that id"
        assert ask(f"{url}/orders", {"id": "7"})[0] == 422
        assert ask(f"{url}/orders/8")[0] == ask(f"{url}/orders/8/approve", decision)[0] == 404
        asyncio.run(until_it_waits(tmp_path))
        waiting = ask(f"{url}/orders/7")[1]
        assert (waiting["status"], waiting["progress"]) == ("waiting", "waiting for approval")
    with uvicorn(tmp_path) as (url, _):
        assert ask(f"{url}/orders/7/receipts") == (200, [])
        assert ask(f"{url}/orders/7/approve", decision) == (202, {"approval": "sent"})
        while (seen := ask(f"{url}/orders/7")[1])["status"] != "completed":
            assert seen["status"] in ("queued", "running", "waiting"), seen
        assert seen == {"status": "completed", "progress": "paying", "waiting_for": None}
        assert ask(f"{url}/orders/7/receipts") == (200, ["r-200000"])
        late = ask(f"{url}/orders/7/approve", {"approved": False, "by": "bob"})
        assert (late[0], late[1]["error"]) == (409, "run order-7 is completed")
    lawful(tmp_path)


def listening(url: str) -> None:
    """Waits until somebody answers: uvicorn says that it has started a moment before."""
    host, _, port = url.removeprefix("http://").partition(":")
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with suppress(ConnectionRefusedError), socket.create_connection((host, int(port)), timeout=PATIENCE_S):
            return
    raise AssertionError(f"nobody listens at {url}")


def test_a_reload_goes_on_with_the_new_code_and_leaves_no_worker_behind(tmp_path: Path) -> None:
    app, ready = tmp_path / "app", "Application startup complete"
    shutil.copytree(APPS / "checkout", app, ignore=shutil.ignore_patterns("__pycache__"))
    code = (app / "checkout.py").read_text()
    with uvicorn(tmp_path, "--reload", "--reload-dir", str(app), app=app) as (url, heard):
        heard(ready)
        listening(url)
        ask(f"{url}/orders", {"id": "7", "lines": ["tea"], "total": 200000})
        asyncio.run(until_it_waits(tmp_path))
        (app / "checkout.py").write_text(code.replace("Thank you for", "Here is"))
        heard(ready)
        listening(url)
        assert len(list((tmp_path / "shop.sqlite.alive").iterdir())) == 1
        ask(f"{url}/orders/7/approve", {"approved": True, "by": "ann"})
        assert asyncio.run(result_of(tmp_path)) == "Here is order 7"
    assert not (tmp_path / "shop.sqlite.alive").exists()
    lawful(tmp_path)


async def result_of(cwd: Path) -> Any:
    async with Stepwell(f"sqlite:///{cwd}/shop.sqlite") as sw:
        return await sw.handle("order-7").result(timeout=PATIENCE_S)


# ── fanout ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_pool_of_the_pictures_is_full_and_never_fuller(tmp_path: Path) -> None:
    said = ran(tmp_path, ENV, "fanout.py")
    assert said == ["60 thumbnails, 0.jpg.webp to 59.jpg.webp; 60 were counted on the way"] * 3

    async def journals() -> list[list[Entry]]:
        async with Stepwell(f"sqlite:///{tmp_path}/media.sqlite") as sw:
            runs = [sw.handle(run.id) async for run in sw.runs(name="media:album")]
            return [await entries(run, "attempt.started", "attempt.ended", "action.completed") for run in runs]

    found = asyncio.run(journals())
    customers = [[change(entry) for entry in of_one if is_action(entry)] for of_one in found]
    assert [most(changes) for changes in customers] == [2, 2, 2]
    # Of several runs only the milliseconds are known: what ends in one has ended before what begins in it.
    assert most(sorted(one for changes in customers for one in changes)) == 5


def is_action(entry: Entry) -> bool:
    return entry.kind == "action.completed" or entry.body["task_kind"] == "action"


def change(entry: Entry) -> tuple[float, int]:
    """When, and one more or one less that runs."""
    return entry.at.timestamp(), 1 if entry.kind == "attempt.started" else -1


def most(changes: list[tuple[float, int]]) -> int:
    """How many ran at once, at the most."""
    running = [sum(step for _, step in changes[: n + 1]) for n in range(len(changes))]
    assert running[-1] == 0
    return max(running)


# ── saga ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_saga_gives_back_what_it_booked(tmp_path: Path) -> None:
    said = ran(tmp_path, ENV, "saga.py")
    assert said[0] == "('F-rome', 'H-rome')"
    moon = [line for line in said if "moon" in line]
    assert moon == ["given back: H-moon", "given back: F-moon", "ValueError: there is no invoice for the moon"]
    assert said[-1].endswith(" was canceled: we have changed our mind")


@pytest.mark.parametrize("end", ["canceled", "not paid"])
def test_a_saga_that_ends_in_the_middle_gives_back_in_reverse(end: str) -> None:
    saga, clock = module("saga.py"), Clock()

    async def test(sw: Stepwell) -> None:
        run = await sw.start(saga.book, "oslo")
        await parked(run)
        if end == "canceled":
            await run.cancel("ill")
        else:
            clock.ahead_ms += 3_600_000
        with pytest.raises(RunCanceled if end == "canceled" else RunError) as caught:
            await run.result()
        assert caught.value.type == ("RunCanceled" if end == "canceled" else "SignalTimeout")
        done = [entry.body["result"] for entry in await entries(run, "action.completed")]
        asked = [entry.body for entry in await entries(run, "action.scheduled")]
        assert done == ["F-oslo", "H-oslo", None, None]
        assert [one["function"] for one in asked[2:]] == ["travel:cancel_hotel", "travel:cancel_flight"]
        assert [one["args"] for one in asked[2:]] == [{"booking": "H-oslo"}, {"booking": "F-oslo"}]

    within(saga.app, test, clock=clock)


# ── release ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_release_that_is_posted_to_the_server_is_reviewed_and_announced(tmp_path: Path) -> None:
    cwd = shutil.copytree(APPS / "release", tmp_path / "release")
    with serving(cwd, "--app", "release:app") as server:
        event = release_event()
        accepted = server.ask("POST", "/events", as_bytes(event), **{"content-type": "application/json"}).json()
        (run_id,) = accepted["runIds"]
        review = server.ended(run_id)
        assert review["result"] == f"{TAG} looks good"
        assert review["eventId"] == event["id"]
        (announce,) = server.get("/runs?name=ci%3Aannounce")["runs"]
        assert server.ended(announce["id"])["result"] == f"{TAG} is announced: {TAG} looks good"
        sent = server.get(f"/events/{announce['eventId']}")["event"]
        assert sent["type"] == "release.reviewed"
        again = server.ask("POST", "/events", as_bytes(event), **{"content-type": "application/json"}).json()
        assert (again["status"], again["runIds"]) == ("duplicate", [run_id])


# ── the seeds' own ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_embedding_comes_a_month_after_the_transcription() -> None:
    index, clock = module("seeds/transcription.py"), Clock()
    month_ms = round(timedelta(days=30).total_seconds()) * 1_000

    async def test(sw: Stepwell) -> None:
        run = await sw.start(index.example, "talk")
        assert await parked(run) == "action:index:compute_embedding#0"
        assert len(await entries(run, "action.completed")) == 1
        clock.ahead_ms += month_ms
        assert await run.result() == [4.0, 3.0, 4.0, 2.0, 4.0]
        first, second = await entries(run, "action.completed")
        (asked,) = [one for one in await entries(run, "action.scheduled") if one.body.get("due_at")]
        assert asked.body["due_at"] - first.at.timestamp() * 1_000 == pytest.approx(month_ms, abs=5_000)
        assert second.at - first.at >= timedelta(days=30)

    within(index.app, test, clock=clock)


def test_the_five_of_the_demo_worker(tmp_path: Path) -> None:
    said = ran(tmp_path, ENV, "seeds/demo.py")
    assert re.fullmatch(r"\{'greeting': 'Hello, World!', 'timestamp': '20\d\d-[^']+\+00:00'\}", said[0])
    assert said[1:] == [
        "{'orderId': 'order-7', 'total': 9.5, 'transactionId': 'txn-7'}",
        "{'totalSteps': 100, 'firstStep': 1, 'lastStep': 100, 'sum': 5050}",
        "sent: tea is ready",
        "{'requestId': 'r-1', 'status': 'approved'}",
    ]


def test_the_demo_worker_waits_a_day_for_its_reminder() -> None:
    demo, clock = module("seeds/demo.py"), Clock()

    async def test(sw: Stepwell) -> None:
        run = await sw.start(demo.reminder, "tea")
        assert await parked(run) == "timer:delay#0"
        clock.ahead_ms += 86_400_000
        assert await run.result() == "sent: tea"

    within(demo.app, test, clock=clock)


def test_the_demo_worker_is_served_and_told_from_the_command_line(tmp_path: Path) -> None:
    cwd = shutil.copytree(APPS / "seeds", tmp_path / "seeds")
    shop = Shop(cwd)
    with serving(cwd, "--app", "demo:app") as server:
        greeted = shop.text("start", "greet", "--input", '{"name": "World"}', "--wait")
        assert "completed" in greeted
        shop.text("start", "approval", "--id", "r-2", "--input", '{"request_id": "2", "requester": "eve"}')
        shop.text("signal", "r-2", "approved", '{"approved": false}')
        assert server.ended("r-2")["result"] == {"requestId": "2", "status": "rejected"}
