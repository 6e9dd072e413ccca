"""The programs of docs/client.md run as they are written, and its tables name what there is."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

from stepwell.client import FlowClient
from tests.server.support import environ, flow, serving

PAGE = Path(__file__).parents[2] / "docs/client.md"
GREET = """name=$(sed -n 's/.*"name": "\\([A-Z][a-z]*\\)".*/\\1/p')
echo "FLOW_RESULT {\\"status\\":\\"changed\\",\\"message\\":\\"hello $name\\"}"
"""


def programs() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def ran(cwd: Path, program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-"], input=program, cwd=cwd, env=environ(), text=True, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_the_programs_of_the_page_run(tmp_path: Path) -> None:
    flow(tmp_path, "hello", {"greet": GREET}, type_="greeting.asked")
    over_http, embedded = programs()
    with serving(tmp_path) as server:
        told = ran(tmp_path, over_http.replace("http://127.0.0.1:7345", server.url))
    assert told == "hello greet changed hello Ada\n"
    shutil.rmtree(tmp_path / ".stepwell")
    said = ran(tmp_path, embedded)
    assert said.endswith("\nchanged"), said
    assert "hello Grace" in said
    assert (tmp_path / ".stepwell/stepwell.sqlite").exists()


def rows(header: str) -> list[str]:
    table = PAGE.read_text().partition(header)[2].partition("\n\n")[0]
    return [line.split("|")[1].strip().strip("`") for line in table.splitlines()[2:]]


def test_the_tables_are_complete_and_true() -> None:
    methods = {name: one for name, one in vars(FlowClient).items() if not name.startswith("_")}
    told = {row.partition("(")[0]: set(re.findall(r"\w+", row.partition("(")[2])) for row in rows("| call | answers |")}
    assert told == {name: set(inspect.signature(one).parameters) - {"self"} for name, one in methods.items()}
    options = set(inspect.signature(FlowClient).parameters) - {"timestamp"}
    assert set(rows("| option | what |")) == options
