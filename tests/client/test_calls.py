"""Each call on each kind of client, against real steps."""

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.client import BlockingFlowClient, EmbeddedFlowClient, FlowClient, OutputChunk, Page, RunView
from stepwell.flows.events import parse_event
from stepwell.model.errors import Conflict, Ended, Invalid, Open, StepwellError, Timeout, TooLarge, Unavailable, Unknown
from tests.client.support import KINDS, Flows, opened, refused
from tests.server.support import OK, flow

SAYS = """echo one; while [ ! -e "$CODEX_FLOW_EVENT_ID.go" ]; do sleep 0.02; done; echo two >&2
echo 'FLOW_RESULT {"status":"blocked","message":"later"}'"""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def event(event_id: str = "e", payload: Any = None, type_: str = "demo") -> dict[str, Any]:
    return {"id": event_id, "type": type_, "payload": payload}


def test_all_clients_have_the_same_calls() -> None:
    def calls(client: type) -> dict[str, list[str]]:
        public = {name: one for name, one in vars(client).items() if not name.startswith("_") and callable(one)}
        return {name: [str(p) for p in inspect.signature(one).parameters.values()] for name, one in public.items()}

    assert calls(BlockingFlowClient) == calls(FlowClient) == calls(EmbeddedFlowClient)
    assert len(calls(FlowClient)) == 12


def test_an_event_runs_to_its_end_while_we_wait(tmp_path: Path, kind: str) -> None:
    flow(tmp_path, steps={"a": "echo hello Ada; " + OK, "b": "echo bad >&2; exit 3"})

    async def main() -> None:
        async with opened(kind, tmp_path) as flows:
            done = await flows.dispatch(event(), wait=True)
            assert (done.status, done.event_id, done.matched, done.ended, done.idempotent) == (
                "accepted", "e", 2, True, False,
            )  # fmt: skip
            assert [run.id for run in done.runs] == list(done.run_ids)
            a, b = [await flows.get_run(run_id) for run_id in done.run_ids]
            assert (a.flow_name, a.step_name, a.event_id, a.backend) == ("demo", "a", "e", "stepwell")
            assert (a.process_status, a.result_status, a.status, a.ended) == ("completed",) * 3 + (True,)
            assert a.result == {"status": "completed"}
            assert a.output[0].text.startswith("hello Ada")
            assert (a.attempt_count, a.attempts[0].ended, a.attempts[0].executor) == (1, "completed", "direct")
            assert (b.process_status, b.status, b.error) == ("failed", "failed", "the step exited with 3")
            assert b.failure["exitCode"] == 3
            assert (a.needs_attention, b.needs_attention) == (a.raw["needsAttention"], b.raw["needsAttention"])
            again = await flows.dispatch(event(), wait=5)
            assert (again.status, again.idempotent, again.matched, again.run_ids) == (
                "duplicate", True, 0, done.run_ids,
            )  # fmt: skip

    asyncio.run(main())


def test_a_run_is_watched_as_it_says_things(tmp_path: Path, kind: str) -> None:
    root = flow(tmp_path, steps={"go": SAYS})

    async def main() -> None:
        async with opened(kind, tmp_path) as flows:
            (run_id,) = (await flows.dispatch(event())).run_ids
            items = list[OutputChunk | RunView]()
            async for item in flows.watch(run_id):
                items.append(item)
                (root / "e.go").touch()  # only now does it go on: what was said came while it ran
            *chunks, run = items
            assert isinstance(run, RunView)
            assert (run.id, run.process_status, run.status, run.needs_attention) == (
                run_id, "completed", "blocked", True,
            )  # fmt: skip
            said = {chunk.kind: "" for chunk in chunks if isinstance(chunk, OutputChunk)}
            for chunk in chunks:
                assert isinstance(chunk, OutputChunk)
                said[chunk.kind] += chunk.text
            assert said["stderr"] == "two\n"
            assert said["stdout"].startswith("one\nFLOW_RESULT")
            page = await flows.output(run_id, limit=1)
            assert (page.chunks, page.next, page.ended) == (tuple(chunks[:1]), 1, False)
            rest = await flows.output(run_id, page.next)
            assert (rest.chunks, rest.ended) == (tuple(chunks[1:]), True)
            assert [item async for item in flows.watch(run_id, page.next)][:-1] == chunks[1:]

    asyncio.run(main())


def test_a_wait_ends_with_the_run_or_with_its_time(tmp_path: Path, kind: str) -> None:
    root = flow(tmp_path, steps={"go": SAYS})

    async def main() -> None:
        async with opened(kind, tmp_path) as flows:
            late = await flows.dispatch(event("late"), wait=0.2)
            assert (late.ended, late.runs[0].process_status in ("queued", "running")) == (False, True)
            (run_id,) = late.run_ids
            error = await refused(flows.wait(run_id, 0.2), Timeout, run_id, "after 0.2 s")
            assert error.fields["run_id"] == run_id
            waiting = asyncio.create_task(flows.wait(run_id, 20))
            await asyncio.sleep(0)
            (root / "late.go").touch()
            run = await waiting
            assert (run.status, run.latest_output is not None) == ("blocked", True)

    asyncio.run(main())


def test_events_are_listed_shown_and_replayed(tmp_path: Path, kind: str) -> None:
    flow(tmp_path, "one")
    flow(tmp_path, "two")

    async def main() -> None:
        async with opened(kind, tmp_path) as flows:
            for name in ("a/b", "..", "%2F", "ü ?&#"):
                assert (await flows.dispatch(event(name, {"n": name}), wait=True)).ended
            await flows.dispatch(event("other", type_="other"))
            page = await flows.list_events(limit=2)
            assert ([one.id for one in page], page.cursor is None) == (["other", "ü ?&#"], False)
            rest = await flows.list_events(cursor=page.cursor)
            assert ([one.id for one in rest], rest.cursor) == (["%2F", "..", "a/b"], None)
            assert [one.id for one in await flows.list_events(type="other")] == ["other"]
            shown = await flows.get_event("..")
            assert (shown.id, shown.type, shown.payload, shown.matched) == ("..", "demo", {"n": ".."}, 2)
            assert shown.raw["payload"] == {"n": ".."}
            assert {run.flow_name for run in shown.runs} == {"one", "two"}
            assert shown.run_ids == tuple(run.id for run in shown.runs)
            again = await flows.replay("..", steps=["two"], wait=True)
            assert ([run.flow_name for run in again.runs], again.ended) == (["two"], True)
            assert (await flows.get_run(again.run_ids[0])).replay == 1
            assert len((await flows.get_event("..")).run_ids) == 3
            both = await flows.replay("a/b", wait=5)
            assert (both.matched, both.ended) == (2, True)

    asyncio.run(main())


def test_runs_are_listed_by_what_is_asked_for(tmp_path: Path, kind: str) -> None:
    flow(tmp_path, steps={"ok": OK, "stuck": """echo 'FLOW_RESULT {"status":"blocked"}'"""})

    async def main() -> None:
        async with opened(kind, tmp_path) as flows:
            for name in "abc":
                await flows.dispatch(event(name), wait=True)

            async def ids(**where: Any) -> list[tuple[str | None, str | None]]:
                page: Page[RunView] = await flows.list_runs(**where)
                return [(run.event_id, run.step_name) for run in page]

            assert len(await ids()) == 6
            assert set(await ids(event_id="b")) == {("b", "ok"), ("b", "stuck")}
            assert await ids(event_id="none") == []
            assert {step for _, step in await ids(result_status="blocked")} == {"stuck"}
            assert {step for _, step in await ids(needs_attention=True)} == {"stuck"}
            assert await ids(status="failed") == []
            assert len(await ids(name="demo/ok", status="completed")) == 3
            page = await flows.list_runs(limit=4)
            assert len(page) + len(await flows.list_runs(cursor=page.cursor)) == 6

    asyncio.run(main())


def test_runs_are_canceled_and_retried(tmp_path: Path, kind: str) -> None:
    root = flow(tmp_path, steps={"go": SAYS})

    async def main() -> None:
        async with opened(kind, tmp_path) as flows:
            (run_id,) = (await flows.dispatch(event())).run_ids
            await anext(aiter(flows.watch(run_id)))
            await refused(flows.retry(run_id), Open, run_id)
            assert "cancelRequestedAt" in (await flows.cancel(run_id, reason="enough")).raw
            assert (await flows.wait(run_id, 20)).process_status == "canceled"
            await refused(flows.cancel(run_id), Ended)
            (root / "e.go").touch()
            assert (await flows.retry(run_id)).process_status in ("queued", "running")
            run = await flows.wait(run_id, 20)
            assert (run.status, run.raw["generation"]) == ("blocked", 2)
            (root / "e.go").unlink()
            (other,) = (await flows.dispatch(event("e"), wait=False)).run_ids
            assert other == run_id
            (third,) = (await flows.replay("e")).run_ids
            assert (await flows.cancel(third, terminate=True)).process_status == "canceled"

    asyncio.run(main())


def test_an_event_may_be_a_flow_event(tmp_path: Path, kind: str) -> None:
    flow(tmp_path)
    body = event("typed", {"n": 1}) | {"source": "here", "mine": True}

    async def main() -> None:
        async with opened(kind, tmp_path) as flows:
            assert (await flows.dispatch(parse_event(body, now_iso="2026-01-01T00:00:00Z"), wait=True)).ended
            shown = await flows.get_event("typed")
            assert (shown.source, shown.received_at, shown.raw["mine"]) == ("here", "2026-01-01T00:00:00Z", True)
            assert (await flows.dispatch(body)).idempotent

    asyncio.run(main())


WRONG: tuple[tuple[Callable[[Flows], Any], type[Exception]], ...] = (
    (lambda flows: flows.get_run("nope"), Unknown),
    (lambda flows: flows.get_event("nope"), Unknown),
    (lambda flows: flows.output("nope"), Unknown),
    (lambda flows: flows.cancel("nope"), Unknown),
    (lambda flows: flows.retry("nope"), Unknown),
    (lambda flows: flows.wait("nope", 1), Unknown),
    (lambda flows: flows.replay("nope"), Unknown),
    (lambda flows: anext(aiter(flows.watch("nope"))), Unknown),
    (lambda flows: flows.replay("e", steps=["nope"]), Unknown),
    (lambda flows: flows.replay("e", steps="demo"), Invalid),
    (lambda flows: flows.dispatch(event("e", 2)), Conflict),
    (lambda flows: flows.dispatch(event("big", "x" * (2 << 20))), TooLarge),
    (lambda flows: flows.dispatch({"type": "demo"}), Invalid),
    (lambda flows: flows.dispatch({"id": "x"}), Invalid),
    (lambda flows: flows.dispatch({"id": "", "type": "demo"}), Invalid),
    (lambda flows: flows.dispatch(event("x", {1, 2})), Invalid),
    (lambda flows: flows.dispatch(event("x", float("nan"))), Invalid),
    (lambda flows: flows.dispatch(event("x", "\ud800")), Invalid),
    (lambda flows: flows.dispatch(event("x\0")), Invalid),
    (lambda flows: flows.dispatch([]), Invalid),
    (lambda flows: flows.dispatch(event("x"), wait=-1), Invalid),
    (lambda flows: flows.dispatch(event("x"), wait=float("nan")), Invalid),
    (lambda flows: flows.dispatch(event("x"), wait="yes"), Invalid),
    (lambda flows: flows.wait("x", float("inf")), Invalid),
    (lambda flows: flows.list_runs(status="done"), Invalid),
    (lambda flows: flows.list_runs(limit=-1), Invalid),
    (lambda flows: flows.list_events(cursor="x"), Invalid),
)


def test_a_wrong_call_is_refused_with_a_hint_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    flow(tmp_path)

    async def main() -> None:
        async with opened(kind, tmp_path) as flows:
            await flows.dispatch(event("e", 1), wait=True)
            for call, expected in WRONG:
                error = await refused(call(flows), StepwellError)
                assert isinstance(error, expected), (inspect.getsource(call), error)
            assert [one.id for one in await flows.list_events()] == ["e"]
            assert len(await flows.list_runs()) == 1

    asyncio.run(main())


def test_a_closed_client_says_so(tmp_path: Path, kind: str) -> None:
    flow(tmp_path)

    async def main() -> None:
        async with opened(kind, tmp_path) as flows:
            pass
        await refused(flows.list_runs(), Unavailable, "closed")
        await refused(flows.dispatch(event()), Unavailable, "closed")
        await refused(flows.wait("x", 5), Unavailable, "closed")

    asyncio.run(main())
