"""`Stepwell` and `Handle` on a real engine: what a program does with workflows, and what it is told when it errs."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stepwell import (
    App,
    ArgumentError,
    Conflict,
    Event,
    Invalid,
    NotFound,
    NotJson,
    Pool,
    RunCanceled,
    RunError,
    StepError,
    Stepwell,
    Unavailable,
)
from stepwell.functions.errors import RunTerminated
from stepwell.model.errors import UnknownFunction
from stepwell.model.settings import Settings
from stepwell.worker.local import open_store
from tests.client.shop import (
    Decision,
    Order,
    app,
    approval,
    approve,
    bake,
    bakery,
    charge,
    checkout,
    ended,
    ovens,
    paid,
    progress,
    receipts,
    save,
    start_later,
    tidy,
)
from tests.support import assert_lawful, durable_url
from tests.support.stores import CHOICE

SETTINGS = Settings(sync="normal", poll_ms=200)
Test = Callable[[Stepwell], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(CHOICE, request.param)
    return "memory:" if request.param == "memory" else durable_url(tmp_path / "shop.db")


def within(url: str, test: Test, **options: Any) -> None:
    """Runs a test in an open Stepwell; the laws hold at its end."""

    async def main() -> None:
        async with Stepwell(url, app, settings=SETTINGS, **options) as sw:
            await asyncio.wait_for(test(sw), 20)

    asyncio.run(main())
    if url != "memory:":
        assert_lawful(open_store(url, SETTINGS), SETTINGS)


async def refused(call: Awaitable[Any], kind: type[Exception], *texts: str) -> Any:
    with pytest.raises(kind) as caught:
        await call
    said = f"{caught.value} {getattr(caught.value, 'hint', '')}"
    assert all(text in said for text in texts), said
    return caught.value


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_from_its_start_to_its_typed_result(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        run = await sw.options(id="order-7", tags={"customer": "c"}).start(checkout, Order("7"))
        assert await run.result(timeout=5) == "r-7, thanks"
        view = await run.status()
        assert (view.id, view.name, view.status, view.version) == ("order-7", "shop:checkout", "completed", "1")
        assert view.tags == {"customer": "c"}
        assert view.ended
        assert await sw.call(receipts, "7") == ["r-7"]
        kinds = [entry.kind async for entry in run.journal()]
        assert kinds[0] == "run.created"
        assert kinds[-1] == "run.completed"
        assert await sw.handle("order-7").result() == "r-7, thanks"
        assert await sw.handle("order-7", checkout).result() == "r-7, thanks"

    within(url, test)


def test_a_result_is_of_the_annotated_type_where_the_workflow_is_known(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        run = await sw.start(approve, "1")
        await run.signal(approval, Decision(True, "ann"))
        assert await run.result(timeout=5) == Decision(True, "ann")
        assert await sw.handle(run.id).result() == {"approved": True, "by": "ann"}
        await refused(sw.handle(run.id, checkout).result(), Conflict, "shop:approve")

    within(url, test)


def test_an_id_of_the_callers_own_names_one_run(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        mine = sw.options(id="mine")
        first, second = await asyncio.gather(mine.start(tidy), mine.start(tidy))
        assert first.id == second.id == "mine"
        await refused(mine.start(approve, "1"), Conflict, "mine")
        await refused(mine.options(if_exists="raise").start(tidy), Conflict, "mine")
        replaced = await mine.options(if_exists="replace").start(tidy)
        assert (await replaced.status()).generation == 2
        same = await sw.options(id="order").start(checkout, Order("1"))
        assert (await sw.options(id="order").start(checkout, order=Order(id="1", total=7), note="thanks")).id == same.id
        await refused(sw.options(id="order").start(checkout, Order("2")), Conflict, "order")

    within(url, test)


def test_failures_reach_whoever_asks_for_the_result(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        error = await refused((await sw.start(checkout, Order("1", -1))).result(timeout=5), RunError, "nothing to")
        assert (error.type, error.data) == ("NonRetryable", {"order": "1"})
        run = await sw.start(bakery, "bun", 2)
        assert await run.result(timeout=5) == "bun, baked at try 3"
        error = await refused((await sw.start(bakery, "bun", 3)).result(timeout=5), RunError, "cold")
        assert error.type == "OSError"

    within(url, test)


def test_cancel_asks_and_terminate_does_not(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        asked, killed = await sw.start(tidy), await sw.start(tidy)
        await _begun(asked)
        await asked.cancel("no longer wanted")
        await refused(asked.result(timeout=5), RunCanceled, "no longer wanted")
        assert await asked.get(progress) == "tidied"
        await _begun(killed)
        await killed.terminate("now")
        await refused(killed.result(timeout=5), RunTerminated, "terminated: now")
        assert await killed.get(progress) is None
        await refused(asked.cancel(), Conflict, "canceled")
        await refused(killed.terminate(), Conflict, "canceled")
        await refused(asked.signal(approval, Decision(True)), Conflict, "canceled")

    within(url, test)


async def _begun(run: Any) -> None:
    async for view in run.watch():
        if view.started_at is not None:
            return


def test_result_waits_no_longer_than_it_is_told(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        run = await sw.start(tidy)
        error = await refused(run.result(timeout=0.05), TimeoutError, run.id)
        assert error.code == "timeout"
        await refused(run.result(timeout=timedelta(0)), TimeoutError)
        await refused(run.result(timeout=-1), Invalid, "timeout")

    within(url, test)


def test_signals_are_typed_and_deduplicated(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        run = await sw.start(approve, "1")
        wrong: Any = {"approved": "perhaps"}
        await refused(run.signal(approval, wrong), NotJson)
        await run.signal("unknown", [1])
        await run.signal(approval, Decision(True), key="k")
        await run.signal(approval, Decision(True), key="k")
        await refused(run.signal(approval, Decision(False), key="k"), Conflict, "k")
        await run.result(timeout=5)
        names = [entry.body["name"] async for entry in run.journal() if entry.kind == "signal.received"]
        assert names == ["unknown", "approval"]

    within(url, test)


def test_watch_tells_each_change_until_the_end(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        run = await sw.start(approve, "1")
        seen: list[str] = []
        async for view in run.watch():
            seen.append(view.status)
            if await run.get(progress) == "waits" and "signaled" not in seen:
                seen.append("signaled")
                await run.signal(approval, Decision(True))
        assert seen[-1] == "completed"
        assert await run.get(progress) == "decided"

    within(url, test)


def test_output_is_told_from_where_one_was(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        run = await sw.start(bakery, "bun", 1)
        said = [chunk async for chunk in run.output(follow=True)]
        assert [chunk.text for chunk in said] == ["try 1\n", "try 2\n"]
        assert [chunk.text async for chunk in run.output(after=said[0].seq)] == ["try 2\n"]

    within(url, test)


def test_options_of_a_start(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        later = await sw.options(delay=timedelta(hours=1), deadline=timedelta(hours=2)).start(tidy)
        view = await later.status()
        assert view.deadline is not None
        assert timedelta(hours=1.9) < view.deadline - datetime.now(UTC) < timedelta(hours=2.1)
        soon = await sw.options(at=datetime.now(UTC) + timedelta(seconds=0.1)).start(checkout, Order("1"))
        assert await soon.result(timeout=5) == "r-1, thanks"
        over = await sw.options(deadline=0.05).start(tidy)
        await refused(over.result(timeout=5), RunError, "deadline")
        deaf: Any = save
        await refused(sw.options(on_complete=deaf).start(checkout, Order("2")), Invalid, "completion: Completion")
        told = await sw.options(on_complete=ended, context="c").start(checkout, Order("2"))
        await told.result(timeout=5)
        assert await sw.call(receipts, told.id) == ["success c"]

    within(url, test)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"idd": "x"}, "idd"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": "\ud800"}, "id"),
        ({"key": ""}, "key"),
        ({"tags": {"\ud800": "a"}}, "tags"),
        ({"if_exists": "maybe"}, "if_exists"),
        ({"delay": -1}, "delay"),
        ({"at": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001 - that is the mistake
        ({"pool": "gpu"}, "Pool"),
        ({"tags": {"a": 1}}, "tags"),
        ({"priority": "high"}, "priority"),
        ({"on_complete": print}, "on_complete"),
        ({"detached": True}, "detached"),
    ],
)
def test_options_that_cannot_be_are_refused_where_they_are_written(options: dict[str, Any], text: str) -> None:
    with pytest.raises(Invalid, match=text):
        Stepwell("memory:", app).options(**options)


def test_lists_by_name_status_tags_and_page(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        for n in range(5):
            await sw.options(id=f"t{n}", tags={"odd": str(n % 2)}).start(tidy)
        done = await sw.start(checkout, Order("1"))
        await done.result(timeout=5)
        assert [run.id async for run in sw.runs(name="shop:tidy")] == ["t4", "t3", "t2", "t1", "t0"]
        assert [run.id async for run in sw.runs(tags={"odd": "1"})] == ["t3", "t1"]
        page, cursor = await sw.runs(tags={"odd": "0"}).page(limit=2)
        assert [run.id for run in page] == ["t4", "t2"]
        page, cursor = await sw.runs(tags={"odd": "0"}).page(cursor, limit=2)
        assert ([run.id for run in page], cursor) == (["t0"], None)
        assert [run.id async for run in sw.runs(tags={"odd": "0", "even": "0"})] == []
        assert [run.id async for run in sw.runs(status="completed")] == [done.id]
        assert [run.id async for run in sw.runs(scope="other")] == []
        page, cursor = await sw.runs(name="shop:tidy").page(limit=2)
        assert [run.id for run in page] == ["t4", "t3"]
        rest, over = await sw.runs(name="shop:tidy").page(cursor, limit=3)
        assert [run.id for run in rest] == ["t2", "t1", "t0"]
        assert over is None
        await refused(sw.runs().page("x"), Invalid, "cursor")
        await refused(sw.runs().page(limit=0), Invalid, "limit")

    within(url, test, worker=True)


# ── functions and events ─────────────────────────────────────────────────────────────────────────────────────────────


def test_calls_of_each_kind(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        assert await sw.call(save, "1", "r") == 1
        assert await sw.call(receipts, "1") == ["r"]
        error = await refused(sw.call(save, "1", ""), StepError, "no receipt")
        assert error.type == "ValueError"
        assert await sw.call(receipts, "1") == ["r"]
        assert await sw.call(charge, Order("2")) == "r-2"
        assert await sw.call(bake, "bun", fail=2) == "bun, baked at try 3"
        await refused(sw.call(charge, Order("2", -1)), StepError, "nothing to charge")
        assert await sw.handle(await sw.call(start_later, "3")).result(timeout=5) == "r-3, thanks"

    within(url, test)


def test_what_is_no_function_of_the_app_is_said_clearly(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        plain: Any = print
        any_event: Any = Event
        await refused(sw.call(plain, 1), Invalid, "@app.query")
        workflow: Any = checkout
        await refused(sw.call(workflow, Order("1")), Invalid, "sw.start(checkout")
        action: Any = charge
        await refused(sw.start(action, Order("1")), Invalid, "sw.call(charge")
        await refused(sw.start(plain), Invalid, "@app.workflow")
        nothing: Any = None
        await refused(sw.start(checkout, nothing), ArgumentError, "order")
        await refused(sw.dispatch(nothing), Invalid, "Event")
        late: Any = any_event("order.paid", {}, occurred_at="noon")
        await refused(sw.dispatch(late), Invalid, "occurred_at")
        await refused(sw.dispatch(Event("order.paid", {}), wait=-1), Invalid, "wait")
        await refused(sw.replay("e", flows="packing"), Invalid, "list of names")
        await refused(sw.replay("e", wait=-1), Invalid, "wait")
        bads: list[Any] = [nothing, 3, "", "\ud800"]
        for bad in bads:
            await refused(sw.replay(bad), Invalid, "event_id")
            for make in (sw.handle, lambda bad: sw.runs(name=bad or ""), lambda bad: sw.runs(scope=bad or "")):
                with pytest.raises(Invalid):
                    make(bad)
        with pytest.raises(Invalid, match="tags"):
            sw.runs(tags={"a": nothing})
        states: list[Any] = [nothing, "progress"]
        for state in states:
            await refused(sw.handle("nobody").get(state), Invalid, "State(")
        assert [run.id async for run in sw.runs()] == []  # what was refused has sent nothing
        await refused(sw.handle("nobody").status(), NotFound, "nobody")
        await refused(sw.handle("nobody").result(), NotFound, "nobody")
        await refused(sw.handle("nobody").signal("x"), NotFound, "nobody")

    within(url, test)


def test_an_event_starts_the_workflow_that_listens(url: str) -> None:
    async def test(sw: Stepwell) -> None:
        event = Event("order.paid", {"total": 7}, id="e1")
        first = await sw.dispatch(event, wait=5)
        assert (first.event_id, first.duplicate) == ("e1", False)
        (run_id,) = first.run_ids
        assert await sw.handle(run_id, paid).result(timeout=0.5) == "e1 7"
        again = await sw.dispatch(event)
        assert (again.duplicate, again.run_ids) == (True, [run_id])
        await refused(sw.dispatch(Event("order.paid", {"total": 8}, id="e1")), Conflict)
        replayed = await sw.replay("e1", wait=5)
        assert replayed.run_ids != [run_id]
        assert [run.id async for run in sw.runs(event_id="e1")] == [*replayed.run_ids, run_id]
        await refused(sw.replay("nobody"), NotFound)
        assert (await sw.dispatch(Event("unheard", None))).run_ids == []

    within(url, test)


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_several_on_one_file_share_what_is_there(tmp_path: Path) -> None:
    url = durable_url(tmp_path / "shop.db")

    async def main() -> None:
        async with Stepwell(url, settings=SETTINGS) as sender, Stepwell(url, app, settings=SETTINGS) as worker:
            run = await sender.start(checkout, Order("1"))
            assert await run.result(timeout=10) == "r-1, thanks"
            assert (await worker.handle(run.id).status()).status == "completed"
            await refused(sender.call(receipts, "1"), UnknownFunction, "with the app")
            assert await sender.call(charge, Order("2")) == "r-2"

    asyncio.run(main())


def test_what_ran_goes_on_when_it_is_opened_again(tmp_path: Path) -> None:
    url = durable_url(tmp_path / "shop.db")

    async def main() -> None:
        sw = Stepwell(url, app, settings=SETTINGS)
        async with sw:
            run = await sw.start(approve, "1")
            await _begun(run)
        await refused(run.status(), Unavailable, "not open")
        async with sw:
            await run.signal(approval, Decision(True))
            assert await run.result(timeout=10) == Decision(True)
            await refused(sw.__aenter__(), Invalid, "open already")

    asyncio.run(main())


@pytest.mark.parametrize("url", ["http://127.0.0.1:7345", "https://example.org"])
def test_a_server_is_not_opened_and_the_error_says_what_to_use(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        Stepwell(url, app)
    assert "stepwell.client.FlowClient" in caught.value.hint


def test_what_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    async def main() -> None:
        sw = Stepwell("mysql:///x", app)
        for _ in range(2):
            await refused(sw.__aenter__(), Invalid, "sqlite:///")
        nothing: Any = "shop:app"
        with pytest.raises(Invalid, match="App"):
            Stepwell("memory:", nothing)

    asyncio.run(main())


def test_another_event_loop_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stepwell("memory:", app, settings=SETTINGS) as sw:
            error = await asyncio.to_thread(lambda: asyncio.run(_caught(sw)))
            assert "stepwell.blocking" in error.hint

    asyncio.run(main())


async def _caught(sw: Stepwell) -> Invalid:
    with pytest.raises(Invalid) as caught:
        await sw.start(tidy)
    return caught.value


def test_the_pools_of_the_code_are_limits_of_the_store(tmp_path: Path) -> None:
    async def test(sw: Stepwell) -> None:
        pools = await sw._connection.engine.read(lambda reader: reader.pools("main"))
        assert [(pool.name, pool.limit, pool.key_limit) for pool in pools] == [(ovens.name, 2, 1)]

    within("memory:", test)


def test_two_pools_of_one_name_with_other_limits_are_refused() -> None:
    two = App("two")

    @two.action(pool=Pool("ovens", 2))
    async def one() -> None: ...

    @two.action(pool=Pool("ovens", 3))
    async def other() -> None: ...

    async def main() -> None:
        await refused(Stepwell("memory:", two).__aenter__(), Invalid, "ovens", "one Pool")

    asyncio.run(main())
