"""The engine inside of the client: what it keeps, and what several of them do together (fault 33)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stepwell.client import open_flow_client
from stepwell.model.errors import Invalid, StepwellError
from stepwell.model.settings import Settings
from tests.server.support import OK, flow
from tests.support import assert_lawful, durable, durable_url, on_postgres

RAN = {"go": 'echo "$CODEX_FLOW_EVENT_ID" >> ran; ' + OK}


def ran(cwd: Path) -> list[str]:
    """The events whose step has run, once for each time."""
    return sorted((cwd / "flows/demo/ran").read_text().split())


def test_fault_33_two_dispatches_of_one_id_at_once_execute_once(tmp_path: Path) -> None:
    flow(tmp_path, steps=RAN)

    async def main() -> None:
        async with open_flow_client(tmp_path) as flows:
            found = await asyncio.gather(*(flows.dispatch({"id": "e", "type": "demo"}, wait=True) for _ in range(8)))
            assert sorted(one.status for one in found) == ["accepted"] + ["duplicate"] * 7
            assert {one.run_ids for one in found} == {found[0].run_ids}
            assert all(one.ended for one in found)

    asyncio.run(main())
    assert ran(tmp_path) == ["e"]


def test_fault_33_two_clients_on_one_file_lose_nothing(tmp_path: Path) -> None:
    flow(tmp_path, steps=RAN)
    db = tmp_path / "state/flows.sqlite"
    url = durable_url(db) if on_postgres() else str(db)

    async def main() -> None:
        async with open_flow_client(tmp_path, db=url) as one, open_flow_client(tmp_path, db=url) as two:
            sent = [(one, two)[n % 2].dispatch({"id": f"e{n}", "type": "demo"}, wait=True) for n in range(12)]
            both = [flows.dispatch({"id": "both", "type": "demo"}, wait=True) for flows in (one, two)]
            found = await asyncio.gather(*sent, *both)
            assert all(done.ended for done in found)
            assert found[-1].run_ids == found[-2].run_ids
            for flows in (one, two):
                assert {event.id for event in await flows.list_events()} == {*(f"e{n}" for n in range(12)), "both"}
                assert len(await flows.list_runs(status="completed")) == 13

    asyncio.run(main())
    assert ran(tmp_path) == sorted([*(f"e{n}" for n in range(12)), "both"])
    assert_lawful(durable(db), Settings())


def test_a_file_is_kept_and_memory_is_not(tmp_path: Path) -> None:
    flow(tmp_path)

    async def send(db: str) -> tuple[str, tuple[str, ...]]:
        async with open_flow_client(tmp_path, db=db) as flows:
            done = await flows.dispatch({"id": "e", "type": "demo"}, wait=True)
            return done.status, done.run_ids

    path = tmp_path / "x.sqlite"
    url = durable_url(path) if on_postgres() else str(path)

    async def main() -> None:
        status, run_ids = await send(url)
        assert status == "accepted"
        assert await send(durable_url(path)) == ("duplicate", run_ids)
        assert (await send("memory:"))[0] == (await send("memory:"))[0] == "accepted"

    asyncio.run(main())


def test_a_client_without_slots_leaves_steps_to_another(tmp_path: Path) -> None:
    flow(tmp_path, steps=RAN)
    db = str(tmp_path / "x.sqlite")

    async def main() -> None:
        async with open_flow_client(tmp_path, db=db, slots=0) as sender:
            late = await sender.dispatch({"id": "e", "type": "demo"}, wait=0.1)
            assert (late.ended, late.runs[0].process_status) == (False, "queued")
            assert "worker" in (late.runs[0].why or "")
            async with open_flow_client(tmp_path, db=db):
                assert (await sender.wait(late.run_ids[0], 20)).status == "completed"

    asyncio.run(main())


@pytest.mark.parametrize("db", ["", None, 3, "mysql://x/y"])
def test_a_store_that_is_none_is_refused(tmp_path: Path, db: Any) -> None:
    async def main() -> None:
        async with open_flow_client(tmp_path, db=db):
            pass

    with pytest.raises(StepwellError) as caught:
        asyncio.run(main())
    assert isinstance(caught.value, Invalid)
    assert caught.value.hint
