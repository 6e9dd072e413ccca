"""What a result sends on: accepted with the end of its run, linked, bounded, and never half (fault 35)."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from stepwell.flows.backend import FRESH_S, FlowBackend
from stepwell.model import commands as c
from stepwell.model.rows import Event, Run
from stepwell.model.settings import Settings

from .site import true
from .support import OK, QUICK, House, house


def sending(*events: dict[str, Any], status: str = "completed") -> str:
    """The script of a step whose result sends events."""
    result = {"status": status, "next": events}
    return f"cat > /dev/null\ncat <<'END'\nFLOW_RESULT {json.dumps(result)}\nEND\n"


async def event(it: House, event_id: str) -> Event:
    found = await it.engine.read(lambda reader: reader.event("main", event_id))
    assert found is not None, event_id
    return found


async def ended(it: House, event_id: str) -> Run:
    """The one run of an event, at its end."""
    row = await event(it, event_id)
    runs = await it.engine.read(lambda reader: reader.scan_runs())
    return await it.end(next(run.id for run in runs if run.event_no == row.no))


def test_a_result_starts_what_its_events_match_and_both_ends_are_linked(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(sending({"id": "second", "type": "after", "payload": {"n": 1}}, {"type": "nobody.listens"}))
            it.add(OK, flow="later", type_="after")
            it.work()
            first = await it.one()
            assert (await it.end(first)).status == "completed"
            assert (await ended(it, "second")).status == "completed"
            named, unnamed = (await it.view(first))["nextEventIds"]
            assert named == "second"
            assert unnamed.startswith("evt_")
            assert [(one.cause, one.depth) for one in (await event(it, "second"), await event(it, unnamed))] == [
                (first, 1)
            ] * 2

    asyncio.run(main())


def test_a_chain_that_never_ends_is_ended_and_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        settings = Settings(poll_ms=50, sync="normal", event_depth=3)
        async with house(tmp_path, settings=settings) as it:
            it.add(sending({"type": "demo"}))
            it.work()
            run = await it.end(await it.one())
            for _ in range(3):
                run = await ended(it, (await it.view(run.id))["nextEventIds"][0])
            view = await it.view(run.id)
            assert (view["status"], view["failure"]["type"]) == ("failed", "too_large")
            assert "chain of 3 events" in view["error"]
            assert "nextEventIds" not in view

    asyncio.run(main())


def test_the_default_bound_is_32() -> None:
    assert Settings().event_depth == 32


def test_another_body_under_a_known_id_fails_the_step(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(sending({"id": "taken", "type": "x"}), "[steps.retry]\nmax_attempts = 3")
            await it.send("taken", payload="another", type_="x")
            it.work()
            view = await it.view((await it.end(await it.one())).id)
            assert (view["status"], view["failure"]["type"]) == ("failed", "conflict")
            assert len(view["attempts"]) == 1, "the next attempt would say the same"

    asyncio.run(main())


def test_a_failed_result_sends_only_when_it_is_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            again = "[steps.retry]\nmax_attempts = 2\ninitial_ms = 0"
            it.add(sending({"id": "alarm", "type": "x"}, status="failed"), again)
            it.work()
            run = await it.end(await it.one())
            view = await it.view(run.id)
            assert (run.status, len(view["attempts"]), view["nextEventIds"]) == ("failed", 2, ["alarm"])
            assert (await event(it, "alarm")).cause == run.id

    asyncio.run(main())


def test_flows_that_change_under_way_are_matched_anew(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            go = tmp_path / "now"
            it.add(f"while [ ! -e {go} ]; do sleep 0.01; done\n" + sending({"id": "second", "type": "after"}))
            it.work()
            first = await it.one()
            await true(lambda: it.workers[0].busy)
            it.add(OK, flow="later", type_="after")
            await asyncio.sleep(FRESH_S * 2)
            await it.engine.submit(c.SyncManifests(()))  # another server sees other folders
            go.touch()
            await it.end(first)
            assert (await ended(it, "second")).status == "completed"

    asyncio.run(main())


@pytest.mark.parametrize("bad", [{"type": ""}, {"id": "x"}, {"id": 7, "type": "x"}], ids=str)
def test_an_event_that_is_none_fails_the_step_that_made_it(tmp_path: Path, bad: dict[str, Any]) -> None:
    async def main() -> None:
        async with house(tmp_path, settings=QUICK) as it:
            it.add(sending({"id": "good", "type": "x"}, bad))
            it.work()
            view = await it.view((await it.end(await it.one())).id)
            assert (view["status"], view["failure"]["type"]) == ("failed", "bad_result")
            assert "next[1]" in view["error"]
            assert await it.engine.read(lambda reader: reader.event("main", "good")) is None

    asyncio.run(main())


def test_flows_that_cannot_be_looked_up_for_a_moment_do_not_run_the_step_again(tmp_path: Path) -> None:
    """The step has done its work; a worker that has not told of its flows yet has to do that first."""

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add("echo done\n" + sending({"id": "second", "type": "nobody.listens"}))
            run_id = await it.one()
            it.flows = FlowBackend(it.engine, tmp_path)
            it.away = (c.SyncManifests,)
            worker = it.work()
            await it.said_until(run_id, "done")
            await asyncio.sleep(0.3)
            assert worker.busy == 1
            it.away = ()
            assert (await it.end(run_id)).status == "completed"
            assert await it.kinds(run_id) == ["run.created", "attempt.started", "run.completed"]

    asyncio.run(main())
