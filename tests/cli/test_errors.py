"""Every error that a user can make has a message that says what to do, a code of its own, and no stack."""

import ctypes
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from stepwell.cli.main import main
from tests.cli.support import PATIENCE_S, Shop, program, write_event
from tests.server.support import database, environ

pytestmark = pytest.mark.stores("sqlite")

Here = Callable[..., tuple[object, str, str]]


@pytest.fixture
def here(seen: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """Runs a command in this process: its exit code, what it printed, and its errors.

    A program that has ended is deaf to signals; the one that runs the tests is not to be.
    """
    heard = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for name in [name for name in os.environ if name.startswith(("STEPWELL_", "CODEX_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(seen.cwd)

    def run(args: list[str], env: Mapping[str, str] | None = None) -> tuple[object, str, str]:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["stepwell", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    yield run
    for number, handler in heard.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["events", "show", "nope"], "no event 'nope'"),
        (["events", "replay", "nope"], "no event 'nope'"),
        (["runs", "list", "--event-id", "nope"], "no event 'nope'"),
        (["runs", "show", "nope"], "no run 'nope'"),
        (["runs", "watch", "nope"], "no run 'nope'"),
        (["runs", "cancel", "nope"], "no run 'nope'"),
        (["runs", "cancel", "nope", "--now"], "no run 'nope'"),
        (["runs", "retry", "nope"], "nope"),
        (["runs", "show", ""], "no run ''"),
        (["runs", "output", "nope"], "no run 'nope'"),
        (["runs", "output", "nope", "--follow"], "no run 'nope'"),
        (["events", "replay", "good one", "--flow", "nope"], "does not match 'nope'"),
        (["pools", "resume", "nope"], "no pool 'nope'"),
        (["pools", "remove", "nope"], "no pool 'nope'"),
        (["pools", "set", "x" * 200, "--limit", "1"], "cannot be the name of a pool"),
        (["pools", "pause", ""], "cannot be the name of a pool"),
        (["pools", "list", "--data-dir", "nowhere"], "no database"),
        (["flow", "new", "../x"], "cannot be the name"),
        (["flow", "new", "good"], "is there already"),
        (["flow", "new", "x", "--runner", "command", "--module"], "has no modules"),
        (["worker", "--db", "broken.json"], "file is not a database"),
        (["worker", "--bun", " "], "--bun has no usable path"),
        (["worker", "--workspace-url", "http://x"], "--workspace-url is not a ws://"),
        (["serve", "--secret", "top secret ", "--port", "0"], "--secret is empty, too long, or has spaces"),
        (["runs", "show", "a\nb\x1b[31m"], "no run 'a\\nb\\x1b[31m'"),
        (["flow", "run", "nope", "go", "--event", "event.json"], "Flows here: bad, good, ugly"),
        (["flow", "run", "good", "nope", "--event", "event.json"], "Its steps: go."),
        (["flow", "fire", "--event", "missing.json"], "cannot read missing.json: No such file"),
        (["flow", "fire", "--event", "."], "cannot read .: Is a directory"),
        (["events", "dispatch", "--event", "broken.json"], "event is not JSON"),
        (["events", "dispatch", "--event", "array.json"], "an event must be a JSON object"),
        (["flow", "fire", "--event", "nameless.json"], "event.type must be a text"),
        (["runs", "list", "--cwd", "nowhere"], "no folder"),
        (["flow", "list", "--cwd", "event.json"], "no folder"),
        (["runs", "list", "--data-dir", "nowhere"], "no database"),
        (["doctor", "--db", "nowhere.sqlite"], "no database"),
        (["runs", "list", "--db", "broken.json"], "file is not a database"),
        (["flow", "fire", "--event", "event.json", "--db", "broken.json"], "file is not a database"),
        (["doctor", "--db", "."], "unable to open database file"),
        (["doctor", "--db", "mysql://ann:secret@host/name"], "no store for 'mysql://host/name'"),
        (["flow", "fire", "--event", "event.json", "--db", "foreign.sqlite"], "table run already exists"),
        (["runs", "list", "--db", "newer.sqlite"], "is newer than this program"),
        (["runs", "list", "--db", "half.sqlite"], "malformed"),
        (["flow", "fire", "--event", "event.json", "--data-dir", "event.json"], "no folder"),
        (["serve", "--port", "0", "--db", "broken.json"], "file is not a database"),
        (["serve", "--host", "0.0.0.0"], "no authentication"),
    ],
)
def test_errors(seen: Shop, here: Here, args: list[str], says: str) -> None:
    _files(seen)
    code, out, err = here(args)
    assert (code, out) == (1, ""), err
    error, hint = err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint:  ")
    assert says in err


def test_an_error_of_a_real_process(seen: Shop) -> None:
    """The table above is run in this process, since a hundred starts of Python take half a minute."""
    assert seen.refused("runs", "show", "nope") == "error: no run 'nope'\nhint:  See `stepwell runs list`.\n"
    assert "No such command 'nope'" in seen.misused("nope")


def _files(seen: Shop) -> None:
    """What the errors are about."""
    cwd = seen.cwd
    if (cwd / "newer.sqlite").exists():
        return
    (cwd / "broken.json").write_text('{"id": "x"' * 1_000)
    (cwd / "array.json").write_text("[]")
    (cwd / "nameless.json").write_text('{"id": "x"}')
    write_event(cwd)
    with closing(sqlite3.connect(database(cwd))) as db:
        db.execute("pragma wal_checkpoint(truncate)")
    whole = database(cwd).read_bytes()
    (cwd / "half.sqlite").write_bytes(whole[:8_192])
    (cwd / "newer.sqlite").write_bytes(whole)
    with closing(sqlite3.connect(cwd / "newer.sqlite")) as db:
        db.execute("insert into migration values (99, 'x', 'y', 'z')")
        db.commit()
    with closing(sqlite3.connect(cwd / "foreign.sqlite")) as db:
        db.execute("create table run (x)")
        db.commit()


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("LEASE_MS", "soon", "STEPWELL_LEASE_MS must be a whole number"),
        ("LEASE_MS", "--5", "STEPWELL_LEASE_MS must be a whole number"),
        ("POLL_MS", "1__0", "STEPWELL_POLL_MS must be a whole number"),
        ("POLL_MS", "9" * 5_000, "STEPWELL_POLL_MS must be a whole number"),
        ("LEASE_MS", "1", "from 10,000 to 1,800,000"),
        ("OUTPUT_BYTES", "-1", "STEPWELL_OUTPUT_BYTES"),
        ("SYNC", "off", "full or normal"),
        ("CWD", "/no/such/folder", "no folder /no/such/folder"),
        ("DB", "mysql://x", "no store for"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(here: Here, variable: str, value: str, says: str) -> None:
    code, out, err = here(["runs", "list"], {f"STEPWELL_{variable}": value})
    assert (code, out) == (1, "")
    assert says in err
    assert "\nhint:  " in err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nope"], "No such command 'nope'"),
        (["runs", "nope"], "No such command 'nope'"),
        (["runs", "list", "--nope"], "No such option"),
        (["events", "show", "-x"], "begins with - comes after --"),
        (["runs", "list", "--limit", "0"], "1<=x<=500"),
        (["runs", "list", "--limit", "501"], "1<=x<=500"),
        (["runs", "list", "--limit", "many"], "many"),
        (["runs", "list", "--status", "done"], "'completed'"),
        (["runs", "list", "--result-status", "done"], "'needs_intervention'"),
        (["runs", "show"], "Missing argument"),
        (["runs", "watch"], "Missing argument"),
        (["runs", "show", "a", "b"], "unexpected extra argument"),
        (["flow", "fire"], "Missing option '--event'"),
        (["flow", "run", "demo", "--event", "x"], "Missing argument 'STEP'"),
        (["flow", "fire", "--event", "x", "--slots", "0"], "1<=x<=1000"),
        (["events", "dispatch", "--event", "x", "--timeout", "nan"], "number of seconds"),
        (["events", "dispatch", "--event", "x", "--timeout", "-1"], "number of seconds"),
        (["serve", "--port", "99999"], "0<=x<=65535"),
        (["serve", "--port", "http"], "'http'"),
        (["serve", "--drain", "inf"], "number of seconds"),
        (["completion", "tcsh"], "'bash', 'zsh', 'fish'"),
        (["runs", "list", "--cursor", "-1"], "0<=x<="),
        (["runs", "list", "--cursor", "x"], "'x'"),
        (["runs", "output", "x", "--after", "y"], "'y'"),
        (["events", "replay", "e", "--flow", "a/b"], "--step takes FLOW/STEP"),
        (["events", "replay", "e", "--flow", ""], "is not the name of a flow"),
        (["pools", "set", "x"], "Say what to set"),
        (["pools", "set", "x", "--limit", "0"], "neither a whole number"),
        (["pools", "set", "x", "--limit", "9" * 5_000], "neither a whole number"),
        (["pools", "set", "x", "--rate-ms", "0"], "1<=x<="),
        (["pools", "pause"], "Missing argument 'NAME'"),
        (["worker", "--slots", "0"], "1<=x<=10000"),
        (["worker", "--executor", "docker"], "'systemd-run'"),
        (["flow", "new", "x", "--runner", "perl"], "'python'"),
        (["flow", "check", "nowhere"], "does not exist"),
        (["flow", "new"], "Missing argument 'NAME'"),
    ],
)
def test_wrong_usage_ends_with_2(here: Here, args: list[str], says: str) -> None:
    code, out, err = here(args)
    assert (code, out) == (2, "")
    assert says in err
    assert "--help" in err


def test_a_port_in_the_environment_is_checked_too(here: Here) -> None:
    code, _, err = here(["serve"], {"STEPWELL_PORT": "http"})
    assert (code, "--port" in err) == (2, True)


@pytest.mark.parametrize(
    "args",
    [
        [b"runs", b"show", b"\xff"], [b"runs", b"cancel", b"\xff"], [b"flow", b"fire", b"--event", b"\xff"],
        [b"events", b"list", b"--type", b"\xff"], [b"runs", b"list", b"--cwd", b"\xff"],
    ],
)  # fmt: skip
def test_an_argument_that_is_no_text(seen: Shop, args: list[bytes]) -> None:
    assert seen.refused(*args)


def test_a_folder_that_is_gone(seen: Shop, tmp_path: Path) -> None:
    command = f'mkdir gone; cd gone; rmdir ../gone; exec "{program()}" runs list'
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environ(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == "error: the present folder is gone"


def without_power() -> None:
    """Root is refused nothing, unless it gives that up: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, for good."""
    drop_from_bounding_set = 24
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def powerless(cwd: Path, *args: str) -> str:
    """What a user is told whom permissions bind."""
    done = subprocess.run(
        [program(), *args], cwd=cwd, env=environ(), capture_output=True, text=True, timeout=PATIENCE_S,
        preexec_fn=without_power,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "hint:  " in done.stderr
    return done.stderr


def test_a_folder_that_may_not_be_written_or_not_be_read(shop: Shop) -> None:
    path = write_event(shop.cwd)
    shop.ok("flow", "fire", "--event", path)
    store = database(shop.cwd)
    closed = {store: 0o444, store.parent: 0o555, shop.cwd: 0o555}
    try:
        for each, mode in closed.items():
            each.chmod(mode)
        assert "writable" in powerless(shop.cwd, "flow", "fire", "--event", path)
        assert "writable" in powerless(shop.cwd, "serve", "--port", "0")
        assert "Create it" in powerless(shop.cwd, "flow", "fire", "--event", path, "--data-dir", "new")
        store.parent.chmod(0)
        assert "ermission" in powerless(shop.cwd, "runs", "list")
    finally:
        for each in reversed(closed):
            each.chmod(0o755)
