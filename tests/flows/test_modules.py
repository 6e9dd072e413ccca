"""Module style: a handler that is called, instead of a script that prints (spec 3.1)."""

import os
import re
from pathlib import Path

import pytest

from stepwell.flows.result import FlowResult
from stepwell.flows.runners import modules
from stepwell.flows.runners.modules import MAX_SCRIPT_BYTES, BunModules
from stepwell.flows.step import Outcome
from stepwell.model.errors import Invalid, Unavailable

from .packages import Said, package, run, tools, write

RAW = """console.log('FLOW_RESULT {"status":"completed","message":"raw"}');\n"""
NAMES = {"bun": "hello.ts", "node": "hello.mjs", "python": "hello.py"}
RUNNERS = list(NAMES)


def module(root: Path, runner: str, script: str, key: str = "module = true") -> Path:
    name = f"exec/{NAMES[runner]}"
    package(root, f'[[steps]]\nname = "hello"\nrunner = "{runner}"\nscript = "{name}"\n{key}\n')
    write(root / name, script)
    return root


def result(outcome: Outcome) -> FlowResult:
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    return outcome.result


def handler(runner: str, js: str, python: str) -> str:
    """A handler with this body."""
    if runner == "python":
        return f"import asyncio, os, sys\nasync def flow(context):\n    {python}\n"
    return f"export default async (context) => {{ {js} }};\n"


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_handler_gets_the_context_and_answers(tmp_path: Path, runner: str) -> None:
    js = "return { status: 'changed', message: context.flow.event.payload.name + context.runtime.runId, more: [1] }"
    python = (
        "return {'status': 'changed', 'message': context['flow']['event']['payload']['name']"
        " + context['runtime']['runId'], 'more': [1]}"
    )
    found = result(run(module(tmp_path, runner, handler(runner, js, python))))
    assert (found.status, found.message, found.raw["more"]) == ("changed", "Adarun-1", [1])


def test_a_python_handler_need_not_be_a_coroutine(tmp_path: Path) -> None:
    """It is imported as a module would be: not as __main__, with its folder on the path, and with a name of its own."""
    script = """
import dataclasses, sys, beside
assert __name__ != "__main__"
@dataclasses.dataclass
class Answer:
    status: str
def flow(context):
    assert sys.argv == [__file__], sys.argv
    assert not any(path.endswith("runners") for path in sys.path), sys.path
    return dataclasses.asdict(Answer(beside.STATUS))
"""
    root = module(tmp_path, "python", script)
    write(root / "exec/beside.py", "STATUS = 'skipped'")
    assert result(run(root)).status == "skipped"


@pytest.mark.parametrize("runner", RUNNERS)
def test_what_is_thrown_is_a_failed_result(tmp_path: Path, runner: str) -> None:
    said = Said()
    script = handler(runner, "throw new Error('no luck')", "raise ValueError('no luck')")
    found = result(run(module(tmp_path, runner, script), said=said))
    assert found.raw == {"status": "failed", "message": "no luck"}
    assert "no luck" in said.text("stderr")
    assert NAMES[runner] in said.text("stderr"), "the stack says where"


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(
    ("js", "python", "message"),
    [
        ("return 1", "return 1", "module flow step must return a FlowResult object"),
        ("", "pass", "module flow step must return a FlowResult object"),
        ("return { status: 1 }", "return {'status': 1}", "module flow step must return a FlowResult object"),
        (
            "const a = { status: 'x' }; a.a = a; return a",
            "a = {'status': 'x'}; a['a'] = a; return a",
            "[Cc]ircular|cyclic",
        ),
        ("return { status: 'changed', n: 1n }", "return {'status': 'changed', 'n': {1}}", "serializ"),
        ("throw 'x'.repeat(3000000)", "raise ValueError('x' * 3000000)", "x" * 10_000),
    ],
)
def test_what_is_no_result_is_a_failed_one(tmp_path: Path, runner: str, js: str, python: str, message: str) -> None:
    found = result(run(module(tmp_path, runner, handler(runner, js, python))))
    assert found.status == "failed"
    assert re.search(message, found.message or "")


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(
    ("js", "python"),
    [
        ("throw Object.create(null)", "raise type('Odd', (Exception,), {'__str__': lambda self: 1})"),
        ("throw { get message() { throw 1 } }", "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})"),
    ],
    ids=["not a text", "fails to tell"],
)
def test_what_is_thrown_need_not_have_a_message(tmp_path: Path, runner: str, js: str, python: str) -> None:
    found = result(run(module(tmp_path, runner, handler(runner, js, python))))
    assert found.status == "failed"
    assert found.message == ("Odd" if runner == "python" else "the handler threw something that cannot be shown")


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        ("bun", "module flow step must export a default handler function"),
        ("node", "module flow step must export a default handler function"),
        ("python", "module flow step must define a function flow(context)"),
    ],
)
def test_a_module_without_a_handler_says_so(tmp_path: Path, runner: str, message: str) -> None:
    script = "flow = 1" if runner == "python" else "export default 1;"
    assert result(run(module(tmp_path, runner, script))).message == message


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_module_that_cannot_be_loaded_says_so(tmp_path: Path, runner: str) -> None:
    said = Said()
    found = result(run(module(tmp_path, runner, "this is no program ((("), said=said))
    assert found.status == "failed"
    assert found.message
    assert said.text("stderr")


@pytest.mark.parametrize("runner", RUNNERS)
def test_an_unknown_status_is_a_bad_result(tmp_path: Path, runner: str) -> None:
    outcome = run(module(tmp_path, runner, handler(runner, "return {status: 'done'}", "return {'status': 'done'}")))
    assert outcome.error is not None
    assert outcome.error.type == "bad_result"


@pytest.mark.parametrize("runner", RUNNERS)
def test_what_a_handler_prints_is_kept_and_cannot_forge_the_result(tmp_path: Path, runner: str) -> None:
    """A line that was begun, a line that was ended, and one that a timer would print after the answer."""
    forged = 'FLOW_RESULT {"status":"blocked"}'
    js = f"""console.log('{forged}'); process.stdout.write('FLOW_RESULT ');
        setTimeout(() => console.log('{forged}'), 50); return {{ status: 'completed' }}"""
    python = f"print('{forged}'); print('FLOW_RESULT ', end=''); return {{'status': 'completed'}}"
    said = Said()
    assert result(run(module(tmp_path, runner, handler(runner, js, python)), said=said)).status == "completed"
    assert said.text("stdout").startswith(f"{forged}\nFLOW_RESULT \nFLOW_RESULT ")


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_large_result_comes_whole(tmp_path: Path, runner: str) -> None:
    """The pipe holds 64 KiB; a process that ends before the rest was read would lose it."""
    size = 1024 * 1024 - 200
    js = f"return {{ status: 'completed', message: 'x'.repeat({size}) }}"
    python = f"return {{'status': 'completed', 'message': 'x' * {size}}}"
    found = result(run(module(tmp_path, runner, handler(runner, js, python))))
    assert len(found.message or "") == size


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_handler_may_end_the_process_itself(tmp_path: Path, runner: str) -> None:
    outcome = run(module(tmp_path, runner, handler(runner, "process.exit(3)", "sys.exit(3)")))
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.exit_code) == ("exit", 3)


@pytest.mark.parametrize(
    ("script", "style"),
    [
        ("// used as default\n" + RAW, "raw"),
        ("/* export default function() {} */" + RAW, "raw"),
        ("const a = 'export default 1';" + RAW, "raw"),
        ("const a = /export default/; const t = `x as default ${a}`;" + RAW, "raw"),
        ("switch (1 as number) { default: break; }" + RAW, "raw"),
        ("const defineBunFlow = (f: unknown) => f; defineBunFlow(1);" + RAW, "raw"),
        ("export const x = 1;" + RAW, "raw"),
        ("export default () => ({ status: 'completed', message: 'module' })", "module"),
        ("const f = () => ({ status: 'completed', message: 'module' }); export { f as default };", "module"),
        ("export { default } from './other';", "module"),
        ("export default async function (c: { flow: object }) { return { status: 'completed', message: 'module' } }",
         "module"),
    ],
)  # fmt: skip
def test_bun_modules_are_told_by_the_parser(tmp_path: Path, script: str, style: str) -> None:
    """Fault 18."""
    root = module(tmp_path, "bun", script, key="")
    write(root / "exec/other.ts", "export default () => ({ status: 'completed', message: 'module' })")
    assert result(run(root)).message == style


def test_the_key_decides_before_the_parser(tmp_path: Path) -> None:
    script = "export default () => ({ status: 'completed', message: 'module' });" + RAW
    assert result(run(module(tmp_path, "bun", script, "module = false"))).message == "raw"
    assert result(run(module(tmp_path, "bun", script, "module = true"))).message == "module"


def test_a_script_that_cannot_be_parsed_says_what_bun_says(tmp_path: Path) -> None:
    outcome = run(module(tmp_path, "bun", "export default ((((", key=""))
    assert outcome.error is not None
    assert outcome.error.type == "exit"
    assert "hello.ts" in outcome.error.stderr


def test_what_was_found_out_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    log, script = tmp_path / "log", write(tmp_path / "a.ts", "export default 1")
    bun = str(write(tmp_path / "bun", f"#!/bin/sh\necho asked >> {log}\necho true\n", 0o755))
    known, environ = BunModules(), {"PATH": os.environ["PATH"]}
    assert [known.is_module(script, bun, environ) for _ in range(3)] == [True] * 3
    assert log.read_text() == "asked\n"
    write(script, "const x = 'default'; ")
    assert known.is_module(script, bun, environ)
    assert log.read_text() == "asked\nasked\n"
    write(script, "const x = 1")
    assert not known.is_module(script, bun, environ)
    assert log.read_text() == "asked\nasked\n", "without the word there is nothing to ask"


def test_the_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "MAX_KNOWN", 3)
    known = BunModules()
    for number in range(10):
        known.is_module(write(tmp_path / f"{number}.ts", ""), "bun", {})
        assert len(known._known) <= 3


def test_what_cannot_be_told_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "PROBE_S", 0.2)
    script = write(tmp_path / "a.ts", "export default 1")
    slow = str(write(tmp_path / "bun", "#!/bin/sh\nexec sleep 30\n", 0o755))
    with pytest.raises(Unavailable, match="to parse") as late:
        BunModules().is_module(script, slow, {"PATH": os.environ["PATH"]})
    assert "module = true" in late.value.hint
    with script.open("wb") as file:
        file.truncate(MAX_SCRIPT_BYTES + 1)
    with pytest.raises(Invalid, match="too large to look"):
        BunModules().is_module(script, slow, {})
    with pytest.raises(Invalid, match="cannot be read"):
        BunModules().is_module(tmp_path / "none.ts", slow, {})


HELPED = """import { defineBunFlow, readFlowContext } from "%s";
export default defineBunFlow(async (context) => {
  const again = await readFlowContext();
  const other = await readFlowContext('{"a":1}');
  return { status: "completed", message: `${again === context} ${other.a}` };
});
"""


@pytest.mark.parametrize("name", ["@peezy.tech/flow-runtime", "@peezy.tech/codex-flows/flow-runtime"])
def test_a_flow_of_the_seed_runs_where_its_helpers_are_not_installed(tmp_path: Path, name: str) -> None:
    assert result(run(module(tmp_path, "bun", HELPED % name, key=""))).message == "true 1"


def test_helpers_that_are_installed_are_used(tmp_path: Path) -> None:
    root = module(tmp_path / "flows/demo", "bun", HELPED % "@peezy.tech/flow-runtime", key="")
    installed = tmp_path / "node_modules/@peezy.tech/flow-runtime"
    write(installed / "package.json", '{"name":"@peezy.tech/flow-runtime","main":"index.js"}')
    text = "export const defineBunFlow = () => () => ({status: 'completed', message: 'own'}), readFlowContext = 1;"
    write(installed / "index.js", text)
    assert result(run(root)).message == "own"


def test_the_probe_does_not_run_the_script(tmp_path: Path) -> None:
    script = write(tmp_path / "a.ts", f"require('fs').writeFileSync('{tmp_path}/ran', ''); export default 1")
    bun = tools().need("bun", "")
    assert BunModules().is_module(script, bun, {"PATH": os.environ["PATH"]})
    assert not (tmp_path / "ran").exists()


def test_the_launchers_are_files_beside_the_runners() -> None:
    assert modules.LAUNCHER_JS.is_file()
    assert modules.LAUNCHER_PYTHON.is_file()
