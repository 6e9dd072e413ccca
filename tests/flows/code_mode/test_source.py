"""The JavaScript that is sent, run by a real engine."""

import json
import shutil
import subprocess
from typing import Any

from stepwell.flows.codemode.source import build_source

HARNESS = """
let said = "";
const text = (value) => { said += value; };
const exit = () => { console.log(JSON.stringify(said)); process.exit(0); };
"""
SHOW = "text(JSON.stringify([flow, runtime, Object.keys(flow)])); exit();"


def run(source: str) -> str:
    """What the source said by `text`."""
    node = shutil.which("node")
    assert node is not None
    command = [node, "--input-type=module"]
    said = subprocess.run(command, input=HARNESS + source, capture_output=True, text=True, check=True, timeout=20)
    found: str = json.loads(said.stdout)
    return found


def test_the_form_is_that_of_the_spec() -> None:
    source = build_source({"flow": {"name": "demo", "event": {"id": "é"}}}, "result(1);\n")
    assert source.startswith('const flow = {\n  "name": "demo",\n  "event": {\n    "id": "\\u00e9"\n  }\n};\n')
    assert source.endswith("\nresult(1);\n")


def test_result_says_the_line_and_ends() -> None:
    source = build_source({"flow": {}}, 'result({status: "changed", message: "a\\nb"}); text("not reached");')
    assert run(source) == '\nFLOW_RESULT {"status":"changed","message":"a\\nb"}\n'


def test_whatever_an_event_holds_it_stays_a_value() -> None:
    flow: dict[str, Any] = {
        "quotes": '"; text("taken in"); "',
        "ends": "\u2028\u2029\n</script>${1}`",
        'odd"__proto__': 1,
        "says": '"__proto__": 1',
        "surrogate": "\ud800",
        "toString": None,
    }
    seen = json.loads(run(build_source({"flow": flow, "runtime": {"runId": "r"}}, SHOW)))
    assert seen == [flow, {"runId": "r"}, list(flow)]


def test_proto_is_a_key_like_any_other() -> None:
    context = {"flow": {"__proto__": {"admin": True}, "x": {"__proto__": 1}}}
    script = 'text(JSON.stringify([flow.admin ?? null, Object.keys(flow), flow.x["__proto__"]])); exit();'
    assert json.loads(run(build_source(context, script))) == [None, ["__proto__", "x"], 1]


def test_a_script_may_have_a_runtime_of_its_own() -> None:
    script = "const runtime = 7; text(runtime); exit();"
    assert run(build_source({"flow": {}, "runtime": {}}, script)) == "7"
