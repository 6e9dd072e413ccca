"""What docs/cli.md says of the JSON is what the commands print, key by key; so it cannot change unnoticed."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import OK, Shop, flow, write_event
from tests.flows.originals import OriginalFile, fill
from tests.server.support import ROOT, serving

PAGE = (ROOT / "docs/cli.md").read_text()
EXAMPLES = dict(re.findall(r"^`stepwell ([^`]+)`\n\n```json\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))


def rows(text: str) -> list[list[str]]:
    """The cells of the first table in a text."""
    lines = [line for line in text.splitlines() if line][:200]
    start = next(n for n, line in enumerate(lines) if line.startswith("|---"))
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in takewhile(lambda line: line.startswith("|"), lines[start + 1 :])
    ]


def shape(name: str) -> dict[str, bool]:
    """The keys of a documented shape, and whether each is always there."""
    keys = {row[0].strip("`"): row[1] == "yes" for row in rows(PAGE.partition(f"\n### {name}\n")[2])}
    return shape("Run") | keys if name == "FullRun" else keys


COMMANDS = {
    row[0].strip("`").removeprefix("stepwell "): row[1].strip("`") for row in rows(PAGE.partition("## Commands")[2])
}


def check(value: Any, said: str, where: str) -> None:
    """Whether a value has the keys that `said` gives: a shape, [shape], or {key, key?, key: shape}."""
    if said.startswith("["):
        assert isinstance(value, list), where
        for one in value:
            check(one, said[1:-1], where)
    elif said.startswith("{"):
        parts = [part.partition(": ")[::2] for part in said[1:-1].split(", ")]
        keys = {key.rstrip("?"): (not key.endswith("?"), inner) for key, inner in parts}
        fits(value, {key: always for key, (always, _) in keys.items()}, where)
        for key, (_, inner) in keys.items():
            if inner and key in value:
                check(value[key], inner, f"{where}.{key}")
    elif said != "object":
        fits(value, shape(said), f"{where} ({said})")


def fits(value: Any, keys: dict[str, bool], where: str) -> None:
    assert isinstance(value, dict), where
    assert set(value) <= set(keys), f"{where} has {set(value) - set(keys)}, which docs/cli.md does not know"
    missing = {key for key, always in keys.items() if always} - set(value)
    assert not missing, f"{where} has no {missing}"


def test_every_command_has_an_example_of_its_documented_shape() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()
    for command, said in COMMANDS.items():
        check(json.loads(EXAMPLES[command]), said, f"the example of {command}")


def calls(shop: Shop) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Every documented command with arguments that work, and its exit code."""
    event = write_event(shop.cwd, "e9", type_="good")
    (bad,) = shop.json("runs", "list", "--name", "bad/go")["runs"]
    yield "flow list", ("flow", "list"), 0
    flow(shop.cwd / "broken", "x", type_="x")
    (shop.cwd / "broken/flows/x/flow.toml").write_text("")
    yield "flow check", ("flow", "check", "broken"), 1
    yield "flow new NAME", ("flow", "new", "fresh", "--dir", "elsewhere"), 0
    yield "flow fire --event FILE", ("flow", "fire", "--event", event), 0
    yield "flow run FLOW STEP --event FILE", ("flow", "run", "bad", "go", "--event", event), 1
    yield "events list", ("events", "list", "--limit", "1"), 0
    yield "events show EVENT", ("events", "show", "good one"), 0
    yield "events dispatch --event FILE", ("events", "dispatch", "--event", event, "--wait"), 1
    yield "events replay EVENT", ("events", "replay", "bad one"), 0
    (queued,) = shop.json("runs", "list", "--status", "queued")["runs"]
    yield "runs list", ("runs", "list", "--limit", "3"), 0
    yield "runs show RUN", ("runs", "show", bad["id"]), 0
    yield "runs output RUN", ("runs", "output", bad["id"]), 0
    yield "runs cancel RUN", ("runs", "cancel", queued["id"]), 0
    yield "runs retry RUN", ("runs", "retry", queued["id"]), 0
    yield "pools set NAME", ("pools", "set", "slow", "--key-limit", "2", "--rate", "3"), 0
    yield "pools list", ("pools", "list"), 0
    yield "doctor", ("doctor",), 0
    yield "db migrate", ("db", "migrate"), 0
    yield "db status", ("db", "status"), 0
    yield "db backup FILE", ("db", "backup", "copy.sqlite"), 0
    yield "db verify FILE", ("db", "verify", "copy.sqlite"), 0
    yield "db restore FILE", ("db", "restore", "copy.sqlite", "--db", "new.sqlite"), 0
    yield "db copy SOURCE TARGET", ("db", "copy", "new.sqlite", "newer.sqlite"), 0
    with closing(OriginalFile(shop.cwd / "theirs", at_ms=time.time_ns() // 1_000_000 - 86_400_000)) as original:
        fill(original)
    command = ("import", "codex-flow-systemd-local", "theirs", "--dry-run")
    yield "import codex-flow-systemd-local DIR", command, 0
    with serving(shop.cwd, "--no-worker") as server:
        yield "smoke", ("smoke", "--url", server.url), 0


@pytest.mark.stores("sqlite")
def test_commands_print_what_is_documented(tmp_path: Path) -> None:
    flow(tmp_path, "good", {"go": f"echo working; {OK}"}, type_="good")
    flow(tmp_path, "bad", {"go": "echo broken >&2; exit 3"}, type_="bad")
    shop = Shop(tmp_path)
    shop.fire("good one", type_="good")
    shop.fire("bad one", code=1, type_="bad")
    tried = set()
    for command, args, code in calls(shop):
        done = shop.call(*args)
        assert done.returncode == code, done
        check(json.loads(done.stdout), COMMANDS[command], command)
        tried.add(command)
    assert tried == COMMANDS.keys()


def test_watching_prints_an_object_a_line(tmp_path: Path) -> None:
    """Each has the keys of its row, and the end comes last."""
    flow(tmp_path, "good", {"go": f"echo working; {OK}"}, type_="good")
    flow(tmp_path, "bad", {"go": "echo broken >&2; exit 3"}, type_="bad")
    shop = Shop(tmp_path)
    ids = [shop.fire("a", type_="good")[0]["runId"], shop.fire("b", code=1, type_="bad")[0]["runId"]]
    said = {kind: keys.strip("`") for kind, keys in rows(PAGE.partition("one object a line")[2])}
    for args, ends in ((("watch", *ids), ["completed", "failed"]), (("output", ids[1], "--follow"), ["failed"])):
        lines = [json.loads(line) for line in shop.ok("runs", *args, code=1).splitlines()]
        for line in lines:
            check(line, said[line["type"]], args[0])
        assert sorted(line["status"] for line in lines if line["type"] == "end") == ends
        assert lines[-1]["type"] == "end"
        assert "broken\n" in [line.get("text") for line in lines]


def test_a_list_goes_on_where_its_cursor_says(tmp_path: Path) -> None:
    flow(tmp_path)
    shop = Shop(tmp_path)
    for n in range(5):
        shop.fire(f"e{n}")
    for command, key in (("events", "events"), ("runs", "runs")):
        seen: list[str] = []
        page: dict[str, Any] = {"cursor": None}
        while "cursor" in page:
            more = ("--cursor", page["cursor"]) if page["cursor"] else ()
            page = shop.json(command, "list", "--limit", "2", *more)
            seen += [one["id"] for one in page[key]]
        assert len(seen) == len(set(seen)) == 5
    done = shop.call("runs", "list", "--limit", "2", "--no-json")
    assert re.fullmatch(r"there are more: --cursor \d+\n", done.stderr)


@pytest.mark.parametrize("name", ["Run", "Event", "Pool", "Accepted"])
def test_a_key_that_is_not_documented_is_found(name: str) -> None:
    """The check itself can fail."""
    keys = shape(name)
    whole = dict.fromkeys(keys, 1)
    fits(whole, keys, name)
    with pytest.raises(AssertionError):
        fits(whole | {"new": 1}, keys, name)
    with pytest.raises(AssertionError):
        fits({}, keys, name)
