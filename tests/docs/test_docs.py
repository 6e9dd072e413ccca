"""What the documents say is what the program does."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from itertools import takewhile
from pathlib import Path

import msgspec

from stepwell.model.settings import RANGES, Settings
from stepwell.model.words import TRANSITIONS
from stepwell.store.sqlite.store import SqliteStore
from tests.cli.support import on_terminal, shell_environ
from tests.flows.originals import OriginalFile, fill
from tests.support import assert_lawful

ROOT = Path(__file__).parents[2]


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of the table below a header line."""
    lines = takewhile(lambda line: line.startswith("|"), text.partition(header)[2].strip().splitlines())
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in list(lines)[1:]]


def test_the_table_of_task_states_is_the_one_that_is_checked() -> None:
    table = rows((ROOT / "docs/kernel.md").read_text(), "| from | to |")
    assert {row[0]: {one for one in row[1].split(", ") if one} for row in table} == {
        state: set(after) for state, after in TRANSITIONS.items()
    }


def test_the_table_of_settings_is_complete_and_true() -> None:
    table = {row[0].strip("`"): row for row in rows((ROOT / "docs/settings.md").read_text(), "| what it bounds |")}
    for field in msgspec.structs.fields(Settings):
        row = table.pop(field.name)
        if field.name in RANGES:
            numbers = tuple(int(cell.replace(",", "")) for cell in row[1:4])
            assert numbers == (field.default, *RANGES[field.name])
    assert table == {}


def test_the_program_in_the_readme_runs_as_it_is_written(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    program = readme.partition("```sh\n")[2].partition("```")[0]
    assert len(program.splitlines()) <= 15
    tool = tmp_path / "bin" / "stepwell"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m stepwell.cli "$@"\n')
    tool.chmod(0o755)
    path = f"{tool.parent}{os.pathsep}{os.environ['PATH']}"
    code, said = on_terminal(["sh", "-eu"], tmp_path, stdin=program, PATH=path, NO_COLOR="1")
    assert code == 0, said
    assert "hello/greet | hello Ada" in said
    assert "hello/greet completed" in said


def test_the_workflow_in_the_readme_runs_as_it_is_written(tmp_path: Path) -> None:
    """And a second time, when all is done already."""
    program = (ROOT / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    (tmp_path / "shop.py").write_text(program)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "shop.py"], cwd=tmp_path, env=shell_environ(), capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.stderr) == ("order 7, approved by Ada: 10.00 for tea, 10.00 for cup\n", "")
    store = SqliteStore(tmp_path / "shop.db")
    assert_lawful(store)
    with closing(store.reader()) as reader:
        kinds = [entry.kind for entry in reader.entries(1)]
        assert reader.run_by_no(2) is None, "the same id is the same run"
    assert kinds.count("action.completed") == 2


def test_every_block_of_the_readme_runs_one_after_the_other(tmp_path: Path) -> None:
    """In one folder and one shell, on ports of our own; the servers in its background are ended."""
    with closing(
        OriginalFile(tmp_path / ".codex/flow-backend", at_ms=time.time_ns() // 1_000_000 - 86_400_000)
    ) as theirs:
        fill(theirs)
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert {kind for kind, _ in blocks} == {"sh", "python"}
    script = "\n".join(
        text if kind == "sh" else f"{sys.executable} - <<'PYTHON'\n{text}PYTHON" for kind, text in blocks
    )
    for port in ("7345", "7346"):
        script = script.replace(port, str(free_port()))
    port = re.findall(r"localhost:(\d+)", script)[0]
    env = shell_environ(STEPWELL_PORT=re.findall(r"localhost:(\d+)", script)[0])
    with (tmp_path / "said").open("w") as log:
        shell = subprocess.Popen(
            ["sh", "-eu", "-c", script], cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True
        )
        code = shell.wait(60)
        os.killpg(shell.pid, signal.SIGTERM)
    said = (tmp_path / "said").read_text()
    assert code == 0, said
    assert "hello greet completed" in said
    assert "Dear Ada, it is time." in said
    assert '"events": 11' in said


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def test_the_readme_links_to_each_page_once() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    pages = [f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")]
    assert {page: links.count(page) for page in pages} == dict.fromkeys(pages, 1)


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
