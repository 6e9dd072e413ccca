"""The programs of docs/client.md and docs/workflows.md run as they are written, their tables name what there is."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

from stepwell import Context, Handle, Stepwell
from stepwell.client import FlowClient
from stepwell.functions.define import CallOptions, StartOptions
from tests.server.support import environ, flow, serving

PAGE = Path(__file__).parents[2] / "docs/client.md"
WORKFLOWS = Path(__file__).parents[2] / "docs/workflows.md"
GREET = """name=$(sed -n 's/.*"name": "\\([A-Z][a-z]*\\)".*/\\1/p')
echo "FLOW_RESULT {\\"status\\":\\"changed\\",\\"message\\":\\"hello $name\\"}"
"""


def programs(page: Path = PAGE) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def ran(cwd: Path, program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-"], input=program, cwd=cwd, env=environ(), text=True, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_the_programs_of_the_page_run(tmp_path: Path) -> None:
    flow(tmp_path, "hello", {"greet": GREET}, type_="greeting.asked")
    without_await, over_http, embedded = programs()
    assert ran(tmp_path, without_await) == "hello Ada\n"
    with serving(tmp_path) as server:
        told = ran(tmp_path, over_http.replace("http://127.0.0.1:7345", server.url))
    assert told == "hello greet changed hello Ada\n"
    shutil.rmtree(tmp_path / ".stepwell")
    said = ran(tmp_path, embedded)
    assert said.endswith("\nchanged"), said
    assert "hello Grace" in said
    assert (tmp_path / ".stepwell/stepwell.sqlite").exists()


def test_the_programs_of_workflows_run_and_run_again(tmp_path: Path) -> None:
    first, *others = programs(WORKFLOWS)
    for _ in range(2):
        assert ran(tmp_path, first) == "Thank you for order 7\n"
    for other in others:
        assert ran(tmp_path, other) == ""


def rows(header: str, page: Path = PAGE) -> list[str]:
    table = page.read_text().partition(header)[2].partition("\n\n")[0]
    return [line.split("|")[1].strip().strip("`") for line in table.splitlines()[2:]]


def test_the_tables_are_complete_and_true() -> None:
    methods = {name: one for name, one in vars(FlowClient).items() if not name.startswith("_")}
    told = {row.partition("(")[0]: set(re.findall(r"\w+", row.partition("(")[2])) for row in rows("| call | answers |")}
    assert told == {name: set(inspect.signature(one).parameters) - {"self"} for name, one in methods.items()}
    options = set(inspect.signature(FlowClient).parameters) - {"timestamp"}
    assert set(rows("| option | what |")) == options


def public(kind: type) -> set[str]:
    return {name for name, one in vars(kind).items() if inspect.isfunction(one) and not name.startswith("_")}


def test_the_tables_of_workflows_are_complete() -> None:
    said = " ".join(rows("| call | what |", WORKFLOWS))
    assert set(re.findall(r"ctx\.(\w+)", said)) == (public(Context) - {"continue_as_new"}) | {"random", "log"}
    options = set(re.findall(r"\w+", " ".join(rows("| option of a start | what |", WORKFLOWS))))
    assert options == set(StartOptions.__annotations__) - {"detached"}
    options = set(re.findall(r"\w+", " ".join(rows("| option | what |", WORKFLOWS))))
    assert options == set(CallOptions.__annotations__)
    handle = " ".join(rows("| of a handle | what |", WORKFLOWS))
    assert all(re.search(rf"\b{name}\(", handle) for name in public(Handle) - {"ended", "outcome"}), handle
    told = {row.partition("(")[0] for row in rows("| of `Stepwell(url, app)` | what |")}
    assert told == public(Stepwell)
