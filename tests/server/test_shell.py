"""What a shell user does, with the real curl and openssl, as `docs/http.md` says it."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.support import OK, PATIENCE_S, ROOT, Server, as_bytes, environ, flow, serving

SECRET, TOKEN = "a secret of $hell characters' \" \\ ä", "a-token"
#: curl as the page has it, but quiet, and failing when the server refuses.
CURL = 'curl() { command curl -sS --fail-with-body --max-time 20 "$@" || { echo "failed: $*" >&2; exit 1; }; echo; }\n'


def blocks(section: str) -> list[str]:
    """The programs of a section of the page."""
    page = (ROOT / "docs/http.md").read_text()
    text = page if not section else re.split(r"^## ", page.partition(f"## {section}\n")[2], flags=re.MULTILINE)[0]
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def shell(server: Server, program: str, **env: str) -> list[dict[str, object]]:
    """The JSON that a program prints, an answer a line; it must end well."""
    done = subprocess.run(
        ["sh", "-eu", "-c", CURL + program], cwd=server.cwd, env=environ(S=server.url, **env),
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    cwd = tmp_path_factory.mktemp("plain")
    flow(cwd, "hello", {"greet": "echo hello; " + OK}, "greeting.asked")
    (cwd / "event.json").write_text('{"id":"from a file","type":"greeting.asked"}')
    with serving(cwd) as running:
        yield running


def seeds(cwd: Path) -> dict[str, str]:
    """A server's settings under the names that the seed gave them."""
    return {
        "CODEX_FLOW_BACKEND_CWD": str(cwd), "CODEX_FLOW_BACKEND_DATA_DIR": str(cwd / "data"),
        "CODEX_FLOW_BACKEND_HOST": "127.0.0.1", "CODEX_FLOW_BACKEND_PORT": "0",
        "CODEX_FLOW_BACKEND_SECRET": SECRET, "STEPWELL_TOKEN": TOKEN,
    }  # fmt: skip


def test_the_page_without_a_secret(plain: Server) -> None:
    first = blocks("")[0].partition("\n")[2]  # its first line says where
    (accepted,) = shell(plain, first)
    assert (accepted["status"], accepted["matched"]) == ("accepted", 1)
    waited, listed, shown, replayed = shell(plain, blocks("Events")[0])
    assert (waited["ended"], waited["matched"]) == (True, 1)
    assert "events" in listed
    assert "event" in shown
    assert replayed["status"] == "accepted"


def test_the_page_about_output(plain: Server) -> None:
    (run_id,) = plain.send("output", type_="greeting.asked")["runIds"]
    plain.ended(run_id)
    (page,) = shell(plain, blocks("Output, live")[0], RUN=run_id)
    assert page["ended"] is True


def test_the_page_about_runs(plain: Server) -> None:
    flow(plain.cwd, "slow", {"go": "exec sleep 60"}, "slow")
    (run_id,) = plain.ask("POST", "/events", as_bytes({"id": "slow", "type": "slow"})).json()["runIds"]
    *lines, retry = blocks("Runs")[0].replace("wait=60", "wait=0.1").splitlines()
    lists = shell(plain, "\n".join(lines), RUN=run_id)
    assert [next(iter(one)) for one in lists] == ["runs", "runs", "run", "run"]
    plain.ended(run_id)
    (again,) = shell(plain, retry, RUN=run_id)
    assert "'generation': 2" in str(again["run"])
    plain.ask("POST", f"/runs/{run_id}/cancel", b'{"terminate":true}')


def test_a_post_that_is_signed_in_a_shell(tmp_path: Path) -> None:
    """The server is set up with the seed's variables; sender and reader use curl and openssl."""
    flow(tmp_path, "hello", {"greet": OK}, "greeting.asked")
    with serving(tmp_path, port=None, **seeds(tmp_path)) as server:
        signed, stamped = blocks("Who may call")
        secrets = {"STEPWELL_SECRET": SECRET, "STEPWELL_TOKEN": TOKEN}
        accepted, runs = shell(server, signed, **secrets)
        assert (accepted["status"], accepted["matched"]) == ("accepted", 1)
        assert "runs" in runs
        (again,) = shell(server, signed.splitlines()[0] + "\n" + stamped, **secrets)
        assert again["status"] == "duplicate"
        refused = server.ask("POST", "/events", b'{"id":"unsigned","type":"x"}')
        refused.error(401, "unauthorized")
        server.ask("GET", "/runs").error(401, "unauthorized")
        assert (tmp_path / "data").is_dir()
        command = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        assert SECRET.encode() not in command
        assert SECRET not in server.log.read_text()
