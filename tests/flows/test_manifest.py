import os
from pathlib import Path

import pytest

from stepwell.flows.manifest import Concurrency, RetrySpec, Trigger, load_flow
from stepwell.model.errors import Invalid

from .packages import STEP, TRIGGERED, package, write

SEED = """
name = "example-flow"
version = 1
description = "Short operational purpose."

[config]
commit = true
since = 2026-05-13
at = 2026-05-13T13:36:00Z
list = [13:36:00]

[guidance]
skills = ["release"]

[[steps]]
name = "do-work"
runner = "bun"
script = "exec/do-work.ts"
timeout_ms = 300000
env = ["GITHUB_TOKEN"]
priority = 5
enabled = false
module = true

[steps.trigger]
type = "upstream.release"
schema = "schemas/upstream-release.schema.json"

[steps.retry]
max_attempts = 3
factor = 3

[steps.concurrency]
key = "/payload/repo"
limit = 1
"""


def problems(root: Path) -> list[str]:
    with pytest.raises(Invalid) as caught:
        load_flow(root)
    assert str(root / "flow.toml") in caught.value.message
    assert caught.value.hint
    found: list[str] = caught.value.fields["problems"]
    return found


def with_step(root: Path, lines: str) -> Path:
    return package(root, STEP + lines)


def test_a_manifest_with_every_key_is_read(tmp_path: Path) -> None:
    write(tmp_path / "flow.toml", SEED)
    write(tmp_path / "exec" / "do-work.ts", "")
    flow = load_flow(tmp_path)
    assert (flow.root, flow.manifest_path) == (tmp_path, tmp_path / "flow.toml")
    assert (flow.name, flow.version, flow.description) == ("example-flow", 1, "Short operational purpose.")
    assert flow.config["commit"] is True
    assert flow.config["since"] == "2026-05-13"
    assert flow.config["at"] == "2026-05-13T13:36:00+00:00"
    assert flow.config["list"] == ["13:36:00"]
    assert flow.guidance == {"skills": ["release"]}
    (step,) = flow.steps
    assert step.trigger == Trigger("upstream.release", "schemas/upstream-release.schema.json")
    assert step.retry == RetrySpec(3, 1_000, 3.0, 60_000)
    assert step.concurrency == Concurrency("/payload/repo", 1)
    assert (step.env, step.priority, step.enabled, step.module) == (("GITHUB_TOKEN",), 5, False, True)


def test_defaults(tmp_path: Path) -> None:
    flow = load_flow(with_step(tmp_path, "") / "flow.toml")
    (step,) = flow.steps
    assert (flow.description, flow.config, flow.guidance) == (None, {}, {})
    assert (step.timeout_ms, step.cwd, step.trigger, step.retry) == (300_000, None, None, None)
    assert (step.pool, step.priority, step.enabled, step.env) == ("default", 0, True, ())
    assert (step.module, step.app_server) == (None, None)


def test_a_pool_of_ones_own_choice(tmp_path: Path) -> None:
    assert load_flow(with_step(tmp_path, 'pool = "git"')).steps[0].pool == "git"


def test_only_runners_with_modules_take_the_key(tmp_path: Path) -> None:
    write(tmp_path / "exec/run", "#!/bin/sh\n", 0o755)
    for runner in ("bun", "node", "python"):
        step = f'[[steps]]\nname = "a"\nrunner = "{runner}"\nscript = "exec/run"\nmodule = '
        assert load_flow(package(tmp_path, step + "true")).steps[0].module is True
        assert load_flow(package(tmp_path, step + "false")).steps[0].module is False
    step = '[[steps]]\nname = "a"\nrunner = "command"\nscript = "exec/run"\nmodule = true\n'
    assert problems(package(tmp_path, step)) == ["steps[0].module: the runner 'command' has no modules"]


@pytest.mark.parametrize(
    ("url", "fault"), [("ws://127.0.0.1:3585", ""), ("http://127.0.0.1", "is not a ws:// or wss:// URL")]
)
def test_the_address_of_an_app_server(tmp_path: Path, url: str, fault: str) -> None:
    step = f'[[steps]]\nname = "a"\nrunner = "code-mode"\nscript = "exec/hello.py"\napp_server = "{url}"\n'
    root = package(tmp_path, step)
    if not fault:
        assert load_flow(root).steps[0].app_server == url
    else:
        (reason,) = problems(root)
        assert reason.startswith(f"steps[0].app_server: {fault}")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("description = 1", "description"),
        ("config = []", "config"),
        ("guidance = 1", "guidance"),
        ("guidance.skills = [1]", "guidance.skills[0]"),
        ("guidance.tools = []", "guidance.tools"),
    ],
)
def test_what_the_seed_dropped_silently_is_an_error(tmp_path: Path, line: str, key: str) -> None:
    """Fault 35, and spec 1.1."""
    (reason,) = problems(package(tmp_path, top=line))
    assert reason.startswith(f"{key}: ")


def test_a_manifest_that_is_a_link_out_of_its_package_is_refused(tmp_path: Path) -> None:
    root = package(tmp_path / "demo")
    (root / "flow.toml").rename(tmp_path / "flow.toml")
    (root / "flow.toml").symlink_to(tmp_path / "flow.toml")
    assert problems(root) == ["is a symbolic link that leaves the package"]
    (root / "flow.toml").unlink()
    (root / "flow.toml").symlink_to("flow.toml")
    assert problems(root)


def test_all_problems_are_collected(tmp_path: Path) -> None:
    write(tmp_path / "flow.toml", 'versoin = 1\nconfig = 1\n[[steps]]\nrunner = "perl"\ntimeout_ms = 0\n')
    found = problems(tmp_path)
    keys = [reason.split(":")[0] for reason in found]
    assert set(keys) == {
        "name", "version", "versoin", "config",
        "steps[0].name", "steps[0].runner", "steps[0].timeout_ms", "steps[0].script",
    }  # fmt: skip


def test_an_unknown_key_comes_with_a_guess(tmp_path: Path) -> None:
    (reason,) = problems(with_step(tmp_path, "timeout_sm = 5"))
    assert reason == "steps[0].timeout_sm: unknown key. Did you mean `timeout_ms`?"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("timeout_ms = -1", "steps[0].timeout_ms: must be from 1 to 86_400_000"),
        ("timeout_ms = 86400001", "steps[0].timeout_ms: must be from 1 to 86_400_000"),
        ("timeout_ms = nan", "steps[0].timeout_ms: must be an integer, not a float"),
        ("timeout_ms = 1.5", "steps[0].timeout_ms: must be an integer, not a float"),
        ("timeout_ms = true", "steps[0].timeout_ms: must be an integer, not a boolean"),
        ('enabled = "no"', "steps[0].enabled: must be true or false, not a text"),
        ("pool = 2026-01-01", "steps[0].pool: must be a text, not a date or time"),
        ("trigger = 1", "steps[0].trigger: must be a table, not an integer"),
        ("[steps.trigger]", "steps[0].trigger.type: is required"),
        ('[steps.trigger]\ntype = "a"\nschema = 1', "steps[0].trigger.schema: must be a text, not an integer"),
        ('[steps.retry]\nmax_attempts = 2\nfactor = nan', "steps[0].retry.factor: must be finite"),
        ('[steps.retry]\nmax_attempts = 2\nfactor = inf', "steps[0].retry.factor: must be finite"),
        ("[steps.retry]\nmax_attempts = 2\ninitial_ms = 9\nmax_ms = 8",
         "steps[0].retry.max_ms: must not be less than initial_ms"),
        ('[steps.concurrency]\nkey = "repo"\nlimit = 1', "steps[0].concurrency.key: must begin with /"),
        ('[steps.concurrency]\nkey = "/a~2"\nlimit = 1', "steps[0].concurrency.key: has a ~ that is neither ~0 nor ~1"),
        ('[steps.concurrency]\nkey = "/a"\nlimit = 0', "steps[0].concurrency.limit: must be from 1 to 100_000"),
        ('env = ["A=B"]', "steps[0].env: 'A=B' is not the name of a variable"),
        ('env = [1]', "steps[0].env[0]: must be a text"),
        ('command = ["true"]', "steps[0].command: the runner 'python' takes a script"),
        ('pool = "git"\n[steps.concurrency]\nkey = "/type"\nlimit = 1',
         "steps[0].pool: a step with a concurrency has a pool of its own, since the limit is the step's"),
        ("module = 1", "steps[0].module: must be true or false, not an integer"),
        ('app_server = "ws://h:1"', "steps[0].app_server: the runner 'python' uses no app-server"),
        ("timeout_ms = 2147483648", "steps[0].timeout_ms: must be from 1 to 86_400_000"),
        ("timeout_ms = inf", "steps[0].timeout_ms: must be an integer, not a float"),
        (STEP, "steps: two steps are named 'hello'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(tmp_path: Path, lines: str, reason: str) -> None:
    assert problems(with_step(tmp_path, lines)) == [reason]


@pytest.mark.parametrize("name", ["", "  ", "a\\u0000", "a\\n", "x" * 129, "é" * 65])
def test_names_are_short_and_clean(tmp_path: Path, name: str) -> None:
    (reason,) = problems(package(tmp_path, name=name))
    assert reason.startswith("name: ")


@pytest.mark.parametrize(
    "top", ["[config]\nrate = nan", "[config]\nbig = 99999999999999999999", "[config]\na = [-inf]"]
)
def test_config_is_json(tmp_path: Path, top: str) -> None:
    (reason,) = problems(package(tmp_path, top=top))
    assert reason.startswith("config: config holds")


def test_deep_config_is_refused(tmp_path: Path) -> None:
    (reason,) = problems(package(tmp_path, top="config." + ".".join("a" * 3_000) + " = 1"))
    assert reason.startswith("config: ")


@pytest.mark.parametrize("version", ['"1"', "nan", "true", "inf"])
def test_a_version_is_a_finite_number(tmp_path: Path, version: str) -> None:
    package(tmp_path)
    write(tmp_path / "flow.toml", f'name = "a"\nversion = {version}\n{STEP}')
    (reason,) = problems(tmp_path)
    assert reason.startswith("version: must be")


@pytest.mark.parametrize("key", ["script", "cwd", "schema"])
@pytest.mark.parametrize("way", ["..", "absolute", "link"])
def test_paths_do_not_leave_the_package(tmp_path: Path, key: str, way: str) -> None:
    root, outside = tmp_path / "demo", tmp_path / "outside"
    write(outside / "x", "{}", 0o755)
    package(root)
    (root / "link").symlink_to(outside)
    target = outside if key == "cwd" else outside / "x"
    value = {"..": f"../{target.relative_to(tmp_path)}", "absolute": str(target), "link": f"link/{target.name}"}[way]
    value = "link" if way == "link" and key == "cwd" else value
    script = value if key == "script" else "exec/hello.py"
    line = {"cwd": f'cwd = "{value}"', "schema": f'trigger = {{type = "a", schema = "{value}"}}'}.get(key, "")
    step = f'[[steps]]\nname = "hello"\nrunner = "python"\nscript = "{script}"\n{line}\n'
    package(root, step)
    (reason,) = problems(root)
    assert reason.endswith("leaves the package")
    package(root, step + "allow_outside = true\n")
    assert load_flow(root).steps[0].allow_outside


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    package(tmp_path, '[[steps]]\nname = "a"\nrunner = "python"\nscript = "loop"\n')
    (tmp_path / "loop").symlink_to("loop")
    assert problems(tmp_path)


def test_the_script_exists_and_a_command_is_executable(tmp_path: Path) -> None:
    step = '[[steps]]\nname = "a"\nrunner = "command"\nscript = "exec/run"\n'
    package(tmp_path, step)
    (missing,) = problems(tmp_path)
    assert missing.endswith("is not a file")
    write(tmp_path / "exec" / "run", "#!/bin/sh\n")
    (plain,) = problems(tmp_path)
    assert plain.endswith("is not executable")
    (tmp_path / "exec" / "run").chmod(0o755)
    assert load_flow(tmp_path).steps[0].script == "exec/run"


def test_a_command_is_script_or_program_not_both(tmp_path: Path) -> None:
    step = '[[steps]]\nname = "a"\nrunner = "command"\n'
    assert load_flow(package(tmp_path, step + 'command = ["git", "status"]')).steps[0].command == ("git", "status")
    assert problems(package(tmp_path, step)) == ["steps[0].script: is required"]
    assert problems(package(tmp_path, step + "command = []")) == ["steps[0].command: must name a program"]
    write(tmp_path / "run", "", 0o755)
    both = problems(package(tmp_path, step + 'command = ["a"]\nscript = "run"'))
    assert both == ["steps[0].command: a step has either a script or a command"]


@pytest.mark.parametrize("text", ["a = ", "\xff\xfe", "a = " + "[" * 5_000, "a = 1\na = 2"])
def test_what_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "flow.toml").write_bytes(text.encode("latin-1"))
    (reason,) = problems(tmp_path)
    assert reason.startswith("is not TOML")


def test_a_pipe_in_place_of_a_manifest_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "flow.toml")
    assert problems(tmp_path) == ["is not a file"]


def test_no_steps_is_an_error(tmp_path: Path) -> None:
    assert problems(package(tmp_path, "steps = []")) == ["steps: is required"]
    assert problems(package(tmp_path, "steps = [1]")) == ["steps[0]: must be a table"]


def test_triggers_of_several_steps(tmp_path: Path) -> None:
    flow = load_flow(package(tmp_path, TRIGGERED + TRIGGERED.replace('"hello"', '"again"')))
    assert [step.name for step in flow.steps] == ["hello", "again"]
    assert flow.step("again") is flow.steps[1]
    assert flow.step("none") is None
