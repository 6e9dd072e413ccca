"""Area A, dispatch and storage: no package is everybody's fault, and nobody's name is somebody else's."""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.flows.backend import FRESH_S
from stepwell.flows.events import parse_event
from stepwell.model import commands as c
from stepwell.model.settings import Settings
from tests.cli.support import Shop
from tests.worker.site import true
from tests.worker.support import OK, House, house

CONCURRENCY = '[steps.concurrency]\nkey = "/payload/repo"\nlimit = 1\n'
SCHEMA = 'schema = "schema.json"\n'
NULL = {"properties": {"a": None}}
SELF = {"$ref": "#", "properties": {"repo": {"pattern": "^(a+)+$"}}}
SMILE = "\U0001f600"


def package(cwd: Path, name: str, *, folder: str = "bad", top: str = "", steps: str = "", schema: Any = None) -> Path:
    """A package that listens to the same events as the good one."""
    root = cwd / "flows" / folder
    (root / "exec").mkdir(parents=True)
    script = root / "exec/go.sh"
    script.write_text("#!/bin/sh\n" + OK)
    script.chmod(0o755)
    (root / "flow.toml").write_text(f'name = "{name}"\nversion = 1\n{top}\n{steps or step()}', encoding="utf-8")
    if schema is not None:
        (root / "schema.json").write_text(json.dumps(schema))
    return root


def step(name: str = "go", keys: str = "", trigger: str = "") -> str:
    head = f'[[steps]]\nname = "{name}"\nrunner = "command"\nscript = "exec/go.sh"\n'
    return f'{head}{keys}\n[steps.trigger]\ntype = "demo"\n{trigger}'


def a_folder_of_bytes(cwd: Path) -> Path:
    return package(cwd, "bad", folder=os.fsdecode(b"b\xffd"))


def a_pipe(cwd: Path) -> None:
    (cwd / "flows/bad").mkdir(parents=True)
    os.mkfifo(cwd / "flows/bad/flow.toml")


def a_hundred_long_reasons(cwd: Path) -> Path:
    keys = [SMILE * 400 + str(n) for n in range(12)]
    steps = "".join(step(f"s{n}", trigger=SCHEMA) for n in range(100))
    return package(cwd, "bad", steps=steps, schema={"type": "object", "required": keys})


PACKAGES: dict[str, Callable[[Path], object]] = {
    "a pool with a long name": lambda cwd: package(cwd, "ü" * 60, steps=step("ö" * 60, CONCURRENCY)),
    "an empty key": lambda cwd: package(cwd, "bad", steps=step(keys=CONCURRENCY)),
    "a path that is no text": a_folder_of_bytes,
    "a name with a slash": lambda cwd: package(cwd, "a/b"),
    "a large manifest": lambda cwd: package(cwd, "bad", top=f'[config]\ntext = "{"x" * 1_048_300}"'),
    "a large number": lambda cwd: package(cwd, "bad", top="[config]\nnumber = 99999999999999999999999"),
    "a pipe": a_pipe,
    "no schema": lambda cwd: package(cwd, "bad", steps=step(trigger=SCHEMA)),
    "a schema of itself": lambda cwd: package(cwd, "bad", steps=step(trigger=SCHEMA), schema=SELF),
    "a schema with null": lambda cwd: package(
        cwd, "bad", steps=step(trigger=SCHEMA), schema={"properties": {"a": None}}
    ),
    "long reasons": a_hundred_long_reasons,
}
PAYLOADS = ({"repo": ""}, {"repo": None}, {"repo": "a" * 5_000}, {"repo": {"a": ["\x00"]}}, None, [SMILE])


@pytest.mark.parametrize("name", PACKAGES)
def test_fault_2_whatever_a_package_is_like_others_run(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(OK, flow="good")
            PACKAGES[name](tmp_path)
            runs = [run for n, payload in enumerate(PAYLOADS) for run in await it.send(f"e{n}", payload)]
            it.work()
            ended = [await it.end(run) for run in runs]
            assert [run.name for run in ended].count("good/go") == len(PAYLOADS)
            assert {run.status for run in ended} == {"completed"}

    asyncio.run(main())


def test_fault_2_a_folder_whose_name_is_no_text_is_told_by_every_command(tmp_path: Path) -> None:
    a_folder_of_bytes(tmp_path)
    package(tmp_path, "good", folder="good")
    shop = Shop(tmp_path)
    (problem,) = shop.json("flow", "list", code=1)["problems"]
    (finding,) = shop.json("flow", "check", code=1)["diagnostics"]
    assert problem["path"] == finding["file"] == str(tmp_path / "flows/b\\xffd/flow.toml")
    assert problem["reason"] == finding["reason"] == "its path is not valid Unicode"
    assert "its path is not valid Unicode" in shop.call("flow", "list", "--no-json").stderr
    assert "its path is not valid Unicode" in shop.text("flow", "check", code=1)


async def misses(it: House, event_id: str) -> list[dict[str, str]]:
    row = await it.engine.read(lambda reader: reader.event("main", event_id))
    assert row is not None
    found: list[dict[str, str]] = json.loads(row.misses or "[]")
    return found


def test_fault_2_a_manifest_over_the_bound_of_the_store_is_a_problem_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path, settings=Settings(payload_bytes=2_048, sync="normal")) as it:
            it.add(OK, flow="good")
            package(tmp_path, "bad", top=f'[config]\ntext = "{"x" * 2_048}"')
            assert len(await it.send()) == 1
            (problem,) = it.flows.discover().problems
            assert problem.path == tmp_path / "flows/bad/flow.toml"
            assert "the limit is 2,048" in problem.reason
            (miss,) = await misses(it, "e")
            assert (miss["flow"], miss["step"]) == ("bad", "*")

    asyncio.run(main())


def test_fault_2_a_package_that_breaks_later_is_logged_once_and_named_by_the_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            root = it.add(OK)
            await it.send("before")
            (root / "flow.toml").write_text("name = ")
            await true(lambda: it.flows.discover().problems)
            for n in range(3):
                assert await it.send(f"e{n}") == []
            assert [record.getMessage().partition(":")[0] for record in caplog.records] == [str(root / "flow.toml")]
            (miss,) = await misses(it, "e2")
            assert (miss["flow"], miss["step"]) == ("demo", "*")
            assert "is not TOML" in miss["reason"]

    with caplog.at_level(logging.WARNING, "stepwell.flows"):
        asyncio.run(main())


def test_fault_2_reasons_that_are_too_long_to_be_kept_are_said_shortly(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            a_hundred_long_reasons(tmp_path)
            assert await it.send("e", {}) == []
            told = await misses(it, "e")
            assert [one["step"] for one in told] == [f"s{n}" for n in range(100)]
            assert SMILE in told[0]["reason"]
            assert told[-1]["reason"] == "the reason is too long to be kept"

    asyncio.run(main())


def test_steps_with_long_names_have_pools_of_their_own(tmp_path: Path) -> None:
    """Cut to 128 signs, both would wait for the other's limit."""

    async def main() -> None:
        async with house(tmp_path) as it:
            name = "u" * 128
            package(tmp_path, name, steps=step("a", CONCURRENCY) + step("b", CONCURRENCY))
            runs = [await it.run(run_id) for run_id in await it.send("e", {"repo": "r"})]
            assert len({run.pool for run in runs}) == 2
            pools = await it.engine.read(lambda reader: reader.pools("main"))
            assert {pool.name for pool in pools} == {run.pool for run in runs}

    asyncio.run(main())


# ── fault 1: accepted, and never run ─────────────────────────────────────────────────────────────────────────────


async def again(it: House, payload: Any = None) -> c.Accepted:
    event = {"id": "e", "type": "demo", "payload": payload}
    return await it.flows.dispatch(parse_event(event, now_iso="2026-01-01T00:00:00Z"))


async def changed(it: House, change: Callable[[], object], problems: int = 0) -> None:
    """Changes the packages, and waits until the backend looks again."""
    change()
    await asyncio.sleep(2 * FRESH_S)
    assert len(it.flows.discover().problems) == problems


def without_schema(cwd: Path) -> Callable[[], object]:
    root = package(cwd, "bad", steps=step(trigger=SCHEMA))
    return lambda: (root / "schema.json").write_text("{}")


def without_manifest(cwd: Path) -> Callable[[], object]:
    manifest = package(cwd, "bad") / "flow.toml"
    whole = manifest.read_text()
    manifest.write_text(whole[:20])
    return lambda: manifest.write_text(whole)


@pytest.mark.parametrize("broken", [without_schema, without_manifest])
def test_fault_1_a_redelivery_runs_what_a_fault_kept_from_running(
    tmp_path: Path, broken: Callable[[Path], Callable[[], object]]
) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(OK, flow="good")
            mend = broken(tmp_path)
            (good,) = await it.send()
            (miss,) = await misses(it, "e")
            assert miss["flow"] == "bad"
            first = await again(it)
            assert (first.status, first.matched, first.run_ids) == ("duplicate", 0, [good])
            await changed(it, mend)
            made_up = await asyncio.gather(*(again(it) for _ in range(10)))
            assert sorted(one.matched for one in made_up) == [0] * 9 + [1]
            assert {(one.status, *one.run_ids) for one in made_up} == {("duplicate", good, made_up[0].run_ids[1])}
            it.work()
            run = await it.end(made_up[0].run_ids[1])
            assert (run.name, run.status) == ("bad/go", "completed")
            assert await misses(it, "e") == []
            row = await it.engine.read(lambda reader: reader.event("main", "e"))
            assert row is not None
            assert row.matched == 2

    asyncio.run(main())


def test_fault_1_a_payload_that_did_not_fit_is_no_fault_and_a_new_flow_is_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            root = package(tmp_path, "bad", steps=step(trigger=SCHEMA), schema={"type": "object"})
            assert await it.send() == []
            await changed(it, lambda: ((root / "schema.json").write_text("{}"), it.add(OK, flow="new")))
            assert (await again(it)).run_ids == []

    asyncio.run(main())


@pytest.mark.parametrize("broken", [without_schema, without_manifest])
def test_fault_1_what_a_replay_has_run_is_not_run_again(
    tmp_path: Path, broken: Callable[[Path], Callable[[], object]]
) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            mend = broken(tmp_path)
            assert await it.send() == []
            await changed(it, mend)
            (replayed,) = (await it.flows.replay("e")).run_ids
            told = await again(it)
            assert (told.status, told.matched, told.run_ids) == ("duplicate", 0, [replayed])

    asyncio.run(main())
