"""The command line on PostgreSQL: each verb does there what it does on a file, and none tells the password."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.cli.support import PATIENCE_S, Shop, flow, write_event
from tests.cli.test_seed import Seed
from tests.flows.originals import OriginalFile, fill
from tests.server.support import OK, environ, stepwell
from tests.support import durable_url
from tests.support.proxy import Slow

pytestmark = pytest.mark.stores("postgres")
SECRET = "s3cret"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An address with a password."""
    return durable_url(tmp_path).replace("test@", f"test:{SECRET}@")


@pytest.fixture
def shop(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A folder with a flow, whose database is there."""
    flow(tmp_path, steps={"go": f"echo working; {OK}"})
    shop, start = Shop(tmp_path), Shop.call

    def call(self: Shop, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = start(self, *args, **{"STEPWELL_DB": url, **more})
        assert SECRET not in done.stdout + done.stderr
        return done

    monkeypatch.setattr(Shop, "call", call)
    yield shop
    assert not (tmp_path / ".stepwell").exists()


def test_every_verb_that_looks_or_acts(shop: Shop, url: str) -> None:
    event = write_event(shop.cwd, "e1", {"n": 1})
    assert '"completed"' in shop.ok("flow", "fire", "--event", event)
    (run_id,) = [one["id"] for one in shop.json("runs", "list", STEPWELL_DB=url)["runs"]]
    for verb in (
        ("runs", "show", run_id),
        ("events", "list"),
        ("events", "show", "e1"),
        ("events", "replay", "e1"),
        ("flow", "list"),
        ("pools", "set", "default", "--limit", "3"),
        ("pools", "list"),
        ("pools", "pause", "default"),
        ("pools", "resume", "default"),
        ("doctor",),
    ):
        assert SECRET not in json.dumps(shop.json(*verb, STEPWELL_DB=url))
    assert "run.completed" in shop.text("runs", "journal", run_id)
    assert "no run" in shop.refused("runs", "show", "nope")
    assert "no event" in shop.refused("events", "replay", "nope")


def test_a_server_and_a_worker_say_where_they_work(shop: Shop, url: str) -> None:
    for verb in (("serve", "--port", "0", "--slots", "1"), ("worker", "--slots", "1")):
        command = stepwell(*verb, "--cwd", str(shop.cwd), "--db", url)
        process = subprocess.Popen(command, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "database postgresql://" in line, line
        process.terminate()
        rest = process.communicate(timeout=PATIENCE_S)[0]
        assert (process.returncode, SECRET in line + rest) == (0, False), rest


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (f"postgresql://ann:{SECRET}@127.0.0.1:1/shop", "postgresql://127.0.0.1:1/shop"),
        (f"postgresql://ann:{SECRET}/7@127.0.0.1/shop", "percent-encoded"),
        (f"postgresql://127.0.0.1:1/shop?password={SECRET}&sslmode=nonsense", "sslmode"),
    ],
)
def test_an_address_that_cannot_be_opened_is_an_error_with_a_hint(shop: Shop, wrong: str, told: str) -> None:
    for verb in (("runs", "list"), ("doctor",), ("serve", "--port", "0")):
        assert told in shop.refused(*verb, STEPWELL_DB=wrong)


WORDS = {"_STEPWELL_COMPLETE": "zsh_complete", "COMP_WORDS": "stepwell pools pause ", "COMP_CWORD": "3"}


def test_completion_waits_for_nobody(shop: Shop, url: str) -> None:
    """Two seconds for a server and an answer: a shell stands still meanwhile."""
    shop.ok("db", "migrate")
    shop.ok("pools", "set", "slow", "--limit", "3")
    assert "slow" in shop.call(**WORDS).stdout
    with psycopg.connect(url) as db:
        db.execute("lock table pool in access exclusive mode")
        begun = time.monotonic()
        assert "slow" not in shop.call(**WORDS).stdout
        assert time.monotonic() - begun < PATIENCE_S


def test_completion_waits_for_no_server_that_took_the_connection_and_says_no_more(shop: Shop, url: str) -> None:
    with closing(Slow(url, b"plan_cache_mode")) as slow:
        completed = shop.call(**WORDS, STEPWELL_DB=slow.url)
        assert slow.held.is_set()
    assert (completed.returncode, completed.stdout.strip()) == (0, "")


def test_who_only_looks_makes_no_tables(shop: Shop, url: str) -> None:
    for verb in (("runs", "list"), ("doctor",), ("runs", "show", "r1")):
        assert "there are no tables of Stepwell" in shop.refused(*verb)
    assert shop.ok("db", "migrate")
    assert shop.json("runs", "list", STEPWELL_DB=url)["runs"] == []


def test_a_dispatch_that_waits_leaves_it_to_a_worker_of_whatever_machine(shop: Shop, url: str) -> None:
    """Also to one that has its hands full for a moment."""
    flow(shop.cwd, steps={"go": f"sleep 1; {OK}"})
    seed = Seed(shop.cwd)
    with seed.serving("--slots", "1", STEPWELL_DB=url) as line:
        assert "listening" in line
        waits: list[list[str]] = [[], ["--wait"]]
        for no, wait in enumerate(waits):
            seed.json("dispatch", *wait, "--event", write_event(seed.cwd, f"e{no}"), STEPWELL_DB=url)
    ids = [run["id"] for run in shop.json("runs", "list", STEPWELL_DB=url)["runs"]]
    runs = [shop.json("runs", "show", run_id, STEPWELL_DB=url)["run"] for run_id in ids]
    assert [run["status"] for run in runs] == ["completed"] * 2
    assert len({run["attempts"][0]["worker"] for run in runs}) == 1, "the server's"


def test_an_import_is_tried_before_it_is_made(shop: Shop, url: str) -> None:
    with closing(OriginalFile(shop.cwd / "data", at_ms=time.time_ns() // 1_000_000 - 86_400_000)) as file:
        fill(file)
    take = ("import", "codex-flow-systemd-local", "data")
    told = [shop.json(*take, *more, STEPWELL_DB=url) for more in (["--dry-run"], [], ["--dry-run"])]
    assert [(one["events"], one["present"]) for one in told] == [(11, 0), (11, 0), (0, 11)]
