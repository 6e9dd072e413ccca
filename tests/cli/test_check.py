"""`flow check` finds everything, and what `flow new` writes runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import OK, Shop, flow


def check(shop: Shop, *args: str, code: int = 0, **env: Any) -> dict[str, Any]:
    return shop.json("flow", "check", *args, code=code, **env)


def found(answer: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Severity, package and key of each finding."""
    return {(one["severity"], Path(one["file"]).parent.name, one["key"]) for one in answer["diagnostics"]}


def edit(root: Path, more: str) -> None:
    path = root / "flow.toml"
    path.write_text(path.read_text() + more)


def test_a_good_package_has_no_findings(shop: Shop) -> None:
    answer = check(shop, "--strict")
    assert answer == {"ok": True, "flows": 1, "steps": 1, "errors": 0, "warnings": 0, "diagnostics": []}
    assert shop.text("flow", "check") == "1 flows, 1 steps: 0 errors, 0 warnings\n"


def test_every_reason_of_a_broken_manifest_is_told_with_its_key(shop: Shop) -> None:
    """Fault 35: unknown keys, and scripts that leave the package, are not silent."""
    root = flow(shop.cwd, "worse")
    (root / "flow.toml").write_text(
        'name = "worse"\nversion = "1"\nkolor = 1\n[[steps]]\nname = "x"\nrunner = "nope"\n'
    )
    answer = check(shop, code=1)
    keys = {key for severity, package, key in found(answer) if (severity, package) == ("error", "worse")}
    assert {"version", "kolor", "steps[0].runner", "steps[0].script"} <= keys
    assert all(one["reason"] and one["hint"] for one in answer["diagnostics"])
    text = shop.text("flow", "check", code=1)
    assert f"error: {root}/flow.toml: version: " in text
    assert "  hint: " in text


def test_what_is_wrong_beside_the_manifest(shop: Shop) -> None:
    schema = flow(shop.cwd, "schema")
    edit(schema, 'schema = "a.json"\n')
    (schema / "a.json").write_text('{"type": "nonsense"}')
    gone = flow(shop.cwd, "gone")
    edit(gone, 'schema = "gone.json"\n')
    cwd = flow(shop.cwd, "cwd")
    text = (cwd / "flow.toml").read_text()
    (cwd / "flow.toml").write_text(text.replace("[steps.trigger]", 'cwd = "nowhere"\n[steps.trigger]'))
    tool = flow(shop.cwd, "tool")
    text = (tool / "flow.toml").read_text()
    (tool / "flow.toml").write_text(text.replace('script = "exec/go"', 'command = ["no-such-program-here"]'))
    bits = flow(shop.cwd, "bits")
    text = (bits / "flow.toml").read_text()
    (bits / "flow.toml").write_text(text.replace('script = "exec/go"', 'command = ["exec/go"]'))
    (bits / "exec/go").chmod(0o644)
    assert found(check(shop, code=1)) == {
        ("error", "schema", "steps[0].trigger.schema"),
        ("error", "gone", "steps[0].trigger.schema"),
        ("error", "cwd", "steps[0].cwd"),
        ("error", "tool", "steps[0].runner"),
        ("error", "bits", "steps[0].command"),
    }


def test_what_is_odd_is_a_warning_and_fails_only_when_strict(shop: Shop) -> None:
    (shop.cwd / ".codex").mkdir()
    flow(shop.cwd / ".codex", "demo")
    (shop.cwd / "flows/other").mkdir()
    plain = flow(shop.cwd, "plain")
    (plain / "exec/go").write_text(OK)
    expected = {("warning", "demo", "name"), ("warning", "plain", "steps[0].script")}
    answer = check(shop)
    assert found(answer) == expected
    assert (answer["ok"], answer["warnings"]) == (True, 2)
    assert found(check(shop, "--strict", code=1)) == expected
    empty = shop.cwd / "empty"
    empty.mkdir()
    assert [one["reason"] for one in check(shop, str(empty))["diagnostics"]] == ["has no flow packages"]


def test_what_is_worth_knowing_is_a_note(shop: Shop) -> None:
    root = flow(shop.cwd, steps={"go": OK, "off": OK})
    text = (root / "flow.toml").read_text().replace('[steps.trigger]\ntype = "demo"\n', "", 1)
    (root / "flow.toml").write_text(text.replace("[steps.trigger]", "enabled = false\n[steps.trigger]"))
    answer = check(shop, "--strict")
    assert found(answer) == {("note", "demo", "steps[0].trigger"), ("note", "demo", "steps[1].enabled")}


def test_a_folder_may_be_a_package_packages_or_a_place(shop: Shop) -> None:
    (shop.cwd / "sub").mkdir()
    for folder in (shop.cwd, shop.cwd / "flows", shop.cwd / "flows/demo"):
        assert check(Shop(shop.cwd / "sub"), str(folder))["flows"] == 1
    assert check(shop, "flows/demo", "flows/demo/../demo/.")["flows"] == 2
    assert "does not exist" in shop.misused("flow", "check", "nowhere")


# ── flow new ─────────────────────────────────────────────────────────────────────────────────────────────────────


SCRIPTS, MODULES = ("python", "bun", "node", "command"), ("python", "bun", "node")


@pytest.mark.parametrize(("runner", "module"), [*((one, False) for one in SCRIPTS), *((one, True) for one in MODULES)])
def test_a_new_package_is_clean_and_runs(tmp_path: Path, runner: str, module: bool) -> None:
    shop = Shop(tmp_path)
    made = shop.json("flow", "new", "hello", "--runner", runner, *(["--module"] if module else []))
    assert made["root"] == str(tmp_path / "flows/hello")
    assert {str(path.relative_to(made["root"])) for path in Path(made["root"]).rglob("*") if path.is_file()} == set(
        made["files"]
    )
    assert check(shop, "--strict")["diagnostics"] == []
    assert made["next"] == "stepwell flow fire --event flows/hello/event.json"
    (result,) = shop.json(*made["next"].split()[1:])["results"]
    assert (result["flow"], result["step"], result["result"]["status"]) == ("hello", "greet", "completed")
    assert "hello Ada" in shop.text("runs", "output", result["runId"]).splitlines()
    event = json.loads((tmp_path / "flows/hello/event.json").read_text())
    (tmp_path / "bad.json").write_text(json.dumps({**event, "payload": {}}))
    assert shop.json("flow", "fire", "--event", "bad.json")["results"] == [], "its schema is used"


def test_the_next_command_is_printed_and_is_right_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "else where").mkdir()
    text = Shop(tmp_path).text("flow", "new", "hello", "--cwd", "else where", "--dir", "my flows")
    root = tmp_path / "else where/my flows/hello"
    assert str(root / "flow.toml") in text.splitlines()
    assert text.splitlines()[-1] == (
        f"Next: stepwell flow fire --event 'else where/my flows/hello/event.json' --cwd '{tmp_path / 'else where'}'"
    )


def test_nothing_is_overwritten(shop: Shop) -> None:
    before = (shop.cwd / "flows/demo/flow.toml").read_text()
    assert "is there already" in shop.refused("flow", "new", "demo")
    assert (shop.cwd / "flows/demo/flow.toml").read_text() == before
    (shop.cwd / "flows/file").write_text("x")
    assert "is there already" in shop.refused("flow", "new", "file")
    assert (shop.cwd / "flows/file").read_text() == "x"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", ".x", "-x1"[1:] + "é", "a" * 65, "a\nb"])
def test_a_name_that_cannot_be_one(shop: Shop, name: str) -> None:
    assert "cannot be the name of a new flow" in shop.refused("flow", "new", name)


def test_a_command_is_no_module(shop: Shop) -> None:
    assert "has no modules" in shop.refused("flow", "new", "x", "--runner", "command", "--module")
    assert not (shop.cwd / "flows/x").exists()
