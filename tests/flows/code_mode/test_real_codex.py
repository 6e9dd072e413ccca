"""The Codex of OpenAI, as it is installed: the handshake works, and what it lacks is said."""

import subprocess
from pathlib import Path

from stepwell.flows.codemode.failure import PACKAGE
from tests.flows.code_mode.harness import environ, failure, play

CODEX = str(Path(__file__).with_name("codex") / "node_modules/.bin/codex")
# It asks the network for news when it starts, and does not wait for the answer. Here it gets none.
DEAD = "http://127.0.0.1:9"
KEYS = 'env = ["HTTP_PROXY", "HTTPS_PROXY"]\n'


def env(home: Path) -> dict[str, str]:
    home.mkdir()
    quiet = {"HTTP_PROXY": DEAD, "HTTPS_PROXY": DEAD}
    return environ(HOME=str(home), CODEX_HOME=str(home), CODEX_APP_SERVER_CODEX_COMMAND=CODEX, **quiet)


def check(stderr: str) -> None:
    assert "this Codex (codex-flow-runner/" in stderr, "initialize was answered, with a version"
    assert "has no thread/codeMode/execute; it answered: Invalid request: unknown variant" in stderr
    assert PACKAGE in stderr


def test_over_stdio(tmp_path: Path) -> None:
    check(failure(play(tmp_path, env=env(tmp_path / "home"))).stderr)


def test_over_a_websocket(tmp_path: Path) -> None:
    command = [CODEX, "app-server", "--listen", "ws://127.0.0.1:0"]
    found = env(tmp_path / "home")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=found) as process:
        assert process.stderr is not None
        try:
            url = next(line.split()[-1] for line in process.stderr if "listening on:" in line)
            check(failure(play(tmp_path, keys=f'app_server = "{url}"\n', env=found)).stderr)
        finally:
            process.terminate()
