"""The gate and the choice of Codex, which depend on the environment only."""

from pathlib import Path

import pytest

from stepwell.flows.codemode.command import ARGUMENTS, codex_words
from stepwell.flows.codemode.gate import is_enabled
from stepwell.flows.manifest import load_flow
from stepwell.flows.runners import RUNNERS
from stepwell.flows.runners.base import Tools
from stepwell.model.errors import Invalid
from tests.flows.code_mode.harness import PEER, SCRIPT, STEP, environ, failure, peer, play, result
from tests.flows.packages import package, write

ENABLE, MODE = "CODEX_FLOWS_ENABLE_CODE_MODE", "CODEX_FLOWS_MODE"
COMMAND, PACKAGE, BUNX = (f"CODEX_APP_SERVER_{name}" for name in ("CODEX_COMMAND", "CODEX_PACKAGE", "BUNX_COMMAND"))


@pytest.mark.parametrize("env", [{}, {ENABLE: "0"}, {ENABLE: ""}, {MODE: "bun"}, {ENABLE: "2"}, {MODE: "1"}])
def test_the_gate_is_closed(env: dict[str, str]) -> None:
    """Conformance 8.1, item 5."""
    assert not is_enabled(env)


@pytest.mark.parametrize(
    "env", [{ENABLE: "1"}, {ENABLE: " Yes "}, {ENABLE: "ON"}, {ENABLE: "true"}, {MODE: " Code-Mode"}]
)
def test_the_gate_is_open(env: dict[str, str]) -> None:
    """Conformance 8.1, item 5."""
    assert is_enabled(env)


def test_a_step_behind_the_gate_starts_nothing(tmp_path: Path) -> None:
    """Conformance 8.1, items 4 and 8."""
    mark = tmp_path / "started"
    failed = failure(play(tmp_path, env={**environ(f"touch {mark}"), ENABLE: "no"}))
    assert failed.type == "spawn"
    assert failed.message == "Code Mode flow step demo/work requires CODEX_FLOWS_ENABLE_CODE_MODE=1"
    assert failed.hint
    assert not mark.exists()


def test_the_gate_is_that_of_the_step_and_not_that_of_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 15: it looked at one environment, and took the command from another."""
    monkeypatch.setenv(ENABLE, "1")
    monkeypatch.setenv(COMMAND, "/no/such/codex")
    assert "requires" in failure(play(tmp_path, env={"PATH": "/usr/bin"})).message
    assert result(play(tmp_path)).message == "hello Ada"


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, ("codex",)),
        ({ENABLE: "1"}, ("codex",)),
        ({MODE: "code-mode"}, ("bunx", "@peezy.tech/codex")),
        ({PACKAGE: "@me/codex@1"}, ("bunx", "@me/codex@1")),
        ({MODE: "code-mode", PACKAGE: "@me/codex"}, ("bunx", "@me/codex")),
        ({MODE: "code-mode", BUNX: "npx -y"}, ("npx", "-y", "@peezy.tech/codex")),
        ({BUNX: "npx"}, ("codex",)),
        ({COMMAND: "/opt/codex", MODE: "code-mode", PACKAGE: "@me/codex"}, ("/opt/codex",)),
        ({COMMAND: "  ", PACKAGE: " "}, ("codex",)),
        ({COMMAND: "node '/opt/my peer.mjs' --x=1"}, ("node", "/opt/my peer.mjs", "--x=1")),
        ({COMMAND: "/opt/my codex"}, ("/opt/my codex",)),
    ],
)
def test_which_codex(env: dict[str, str], words: tuple[str, ...]) -> None:
    """Conformance 8.5, the table of the stdio transport."""
    assert codex_words(env, lambda text: text == "/opt/my codex") == words


def test_a_command_with_an_open_quote_is_refused() -> None:
    with pytest.raises(Invalid, match=COMMAND):
        codex_words({COMMAND: "node 'x"}, lambda _: False)


def test_the_command_line(tmp_path: Path) -> None:
    """Conformance 8.5: an explicit command wins. The tools are found by the PATH of the step."""
    package(tmp_path, STEP)
    write(tmp_path / "exec/work.js", SCRIPT)
    own, found = write(tmp_path / "own/it", "", 0o755), write(tmp_path / "bin/codex", "", 0o755)
    flow = load_flow(tmp_path)

    def codex(tools: Tools, **env: str) -> list[str]:
        argv = RUNNERS["code-mode"].argv(flow, flow.steps[0], tools, {ENABLE: "1", **env})
        return argv[argv.index("--") + 1 :]

    path = str(tmp_path / "bin")
    assert codex(Tools(search_path="/nowhere"), PATH=path) == [str(found), *ARGUMENTS]
    assert codex(Tools({"codex": str(own)}), PATH=path, CODEX_APP_SERVER_CODEX_COMMAND="codex")[0] == str(own)
    assert " ".join(ARGUMENTS) == (
        "app-server --listen stdio:// --enable apps --enable hooks --enable code_mode --enable code_mode_only"
    )
    with pytest.raises(Invalid, match="CODEX_HOME"):
        codex(Tools(), PATH=path, CODEX_HOME="here")


def test_a_codex_that_is_not_there(tmp_path: Path) -> None:
    failed = failure(play(tmp_path, env=environ("/no/such/codex")))
    assert (failed.type, failed.message) == ("spawn", "the program /no/such/codex was not found")
    assert COMMAND in failed.hint


def test_a_configured_codex_is_used(tmp_path: Path) -> None:
    own = write(tmp_path / "own codex", f'#!/bin/sh\nexec node {PEER} "$@"\n', 0o755)
    outcome = play(tmp_path, env=environ("/no/such"), with_tools=Tools({"codex": str(own)}))
    assert result(outcome).message == "hello Ada"


def test_a_package_cannot_pass_off_its_files_as_modules(tmp_path: Path) -> None:
    write(tmp_path / "json.py", "raise SystemExit('taken in')")
    assert result(play(tmp_path)).status == "completed"
    assert peer().startswith("node ")
