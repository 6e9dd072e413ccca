"""A step with `app_server = "ws://..."` in flow.toml."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.flows.code_mode.harness import PEER, environ, failure, play, result
from tests.flows.packages import Said, bun_dirs


@contextmanager
def listening(scenario: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address of a running peer, and the peer, whose stderr may be read on."""
    bun = str(bun_dirs()[0] / "node_modules/.bin/bun")
    command = [bun, str(PEER), f"--scenario={scenario}", "app-server", "--listen", "ws://127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[-1], process
        finally:
            process.kill()


def key(url: str, more: str = "") -> str:
    return f'app_server = "{url}"\n{more}'


def test_the_round_trip_and_that_it_is_told(tmp_path: Path) -> None:
    said = Said()
    with listening("good") as (url, _):
        secret = url.replace("://", "://user:hush@") + "/path?token=hush"
        outcome = play(tmp_path, keys=key(secret), env=environ("/no/such/codex"), said=said)
    assert result(outcome).message == "hello Ada"
    assert said.text("stderr") == f"code mode: uses the app-server at {url}/path, as app_server in flow.toml says\n"


def test_the_gate_holds_for_it_too(tmp_path: Path) -> None:
    assert "requires" in failure(play(tmp_path, keys=key("ws://127.0.0.1:9"), env={})).message


def test_nobody_listens(tmp_path: Path) -> None:
    failed = failure(play(tmp_path, keys=key("ws://u:hush@127.0.0.1:9/?x=hush")))
    assert "cannot connect to the app-server at ws://127.0.0.1:9/" in failed.stderr
    assert "hush" not in failed.stderr


def test_failures(tmp_path: Path) -> None:
    """Fault 15, for a server elsewhere."""
    with listening("fails") as (url, _):
        assert "the model is tired" in failure(play(tmp_path / "a", keys=key(url))).stderr
    with listening("dies") as (url, _):
        assert "the connection to the app-server was closed" in failure(play(tmp_path / "b", keys=key(url))).stderr
    with listening("huge") as (url, _):
        assert "was closed with code 1009" in failure(play(tmp_path / "c", keys=key(url))).stderr


def test_a_timeout_stops_the_turn_over_there(tmp_path: Path) -> None:
    with listening("hangs") as (url, process):
        assert failure(play(tmp_path, keys=key(url, "timeout_ms = 1500\n"))).type == "timeout"
        process.kill()
        said = process.communicate(timeout=5)[1]
    assert 'peer: interrupted {"threadId":"thread-1","turnId":"turn-1"}' in said
