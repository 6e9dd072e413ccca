"""A program that uses every typed call as it is meant. Both checkers must find nothing in it, at their strictest."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from stepwell import (
    Action,
    ActionContext,
    App,
    Completion,
    Context,
    Dispatched,
    Entry,
    Event,
    Handle,
    Module,
    Mutation,
    MutationContext,
    NonRetryable,
    Output,
    Paged,
    Pool,
    Query,
    QueryContext,
    Retry,
    Run,
    Signal,
    State,
    StepError,
    Stepwell,
    Worker,
    Workflow,
    blocking,
)

admin = Module("admin")
app = App("shop", retry=Retry(5), migrations="migrations")
app.include(admin)
gpu = Pool("gpu", 20, per_key=2, rate="600/min")


@dataclass
class Order:
    id: str
    lines: list[str]
    total: int


@dataclass
class Decision:
    approved: bool


class CardDeclined(NonRetryable):
    """Never tried again."""


approval = Signal("approval", Decision)
progress = State("progress", str)


@app.action(retry=Retry(5, never=(ValueError,)), timeout=30, pool=gpu, key="a", priority=1)
async def charge(ctx: ActionContext, order: Order) -> str:
    if order.total <= 0:
        raise CardDeclined("nothing to charge")
    ctx.heartbeat({"at": 1})
    return ctx.idempotency_key


@app.action
async def pack(line: str) -> int:
    return len(line)


@app.action
def shrink(path: str, *, quality: int = 80) -> bytes:
    return path.encode() * quality


@app.action
def shout(ctx: ActionContext, text: str) -> str:
    return text + ctx.run_id


@app.action(timeout=timedelta(seconds=3))
def whisper(ctx: ActionContext, text: str) -> str:
    return text + ctx.run_id


@admin.mutation
def save(ctx: MutationContext, order_id: str, receipt: str) -> int:
    ctx.signal("run", approval, Decision(True))
    assert_type(ctx.start(checkout, Order("1", [], 1)), str)
    assert_type(ctx.call(receipts, order_id), list[str])
    return ctx.db.execute("insert into receipt (order_id, receipt) values (?, ?)", order_id, receipt)


@app.query(name="shop:receipts")
def receipts(ctx: QueryContext, order_id: str) -> list[str]:
    return ctx.db.all("select receipt from receipt where order_id = ?", order_id, type=str)


@app.mutation
def told(ctx: MutationContext, completion: Completion) -> None:
    if completion.error is not None:
        raise completion.error


@app.workflow
async def checkout(ctx: Context, order: Order) -> str:
    await ctx.set(progress, "waiting")
    try:
        decision = await ctx.wait_for_signal(approval, timeout=timedelta(hours=48))
    except TimeoutError:
        return "expired"
    assert_type(decision, Decision)
    try:
        receipt = await ctx.options(retry=True, deadline=3600).call(charge, order)
    except StepError as error:
        return error.type
    assert_type(receipt, str)
    assert_type(await ctx.call(save, order.id, receipt), int)
    assert_type(await ctx.call(receipts, order_id=order.id), list[str])
    assert_type(await ctx.call(shrink, "a", quality=3), bytes)
    assert_type(await ctx.call(shout, "a") + await ctx.call(whisper, "b"), str)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.call(pack, line), name=line) for line in order.lines]
    assert_type([task.result() for task in tasks], list[int])
    assert_type(await ctx.step("note", note, order), str)
    assert_type(await ctx.step(fetch, 3), int)
    assert_type(await ctx.step("now", lambda: 3), int)
    child = await ctx.options(id="child", tags={"a": "b"}).start(nested, 3)
    assert_type(await child.result(), tuple[int, str])
    assert_type(await ctx.call(nested, n=3), tuple[int, str])
    return await ctx.step("note", note, order)


@app.workflow(name="shop:nested", version="2", on="order.created", deadline=60)
async def nested(ctx: Context, n: int) -> tuple[int, str]:
    assert_type(await ctx.wait_for_signal("typed", Decision), Decision)
    async for decision in ctx.signals(approval):
        return n, str(decision.approved)
    return n, ""


@app.workflow
async def started(ctx: Context, event: Event[Order]) -> int:
    await ctx.dispatch(Event("order.reviewed", {"id": event.id}, source=event.source))
    return event.payload.total


def note(order: Order) -> str:
    return order.id


async def fetch(n: int) -> int:
    return n


async def program() -> None:
    sw = Stepwell("sqlite:///shop.db", app, slots=4, drain=timedelta(seconds=5))
    async with sw:
        run = await sw.start(checkout, Order("1", [], 1))
        assert_type(run, Handle[str])
        assert_type(await run.result(timeout=3), str)
        mine = sw.options(id="mine", if_exists="raise", tags={"a": "b"}, on_complete=told, context={"a": 1}, pool=gpu)
        assert_type(await mine.start(nested, n=3), Handle[tuple[int, str]])
        assert_type(sw.handle("mine"), Handle[Any])
        assert_type(await sw.handle("mine", nested).result(), tuple[int, str])
        await run.signal(approval, Decision(True), key="k")
        await run.signal("anything", [1])
        assert_type(await run.get(progress), str | None)
        await run.cancel("why")
        await run.terminate()
        assert_type([one async for one in run.watch()], list[Run])
        assert_type([one async for one in run.output(after=1, follow=True)], list[Output])
        assert_type([one async for one in run.journal()], list[Entry])
        assert_type(sw.runs(status="failed", tags={"a": "b"}), Paged[Run])
        assert_type(await sw.runs().page(limit=3), tuple[list[Run], str | None])
        assert_type(await sw.call(charge, Order("1", [], 1)), str)
        assert_type(await sw.call(save, "1", receipt="r"), int)
        assert_type(await sw.call(receipts, "1"), list[str])
        assert_type(await sw.dispatch(Event("a", {"b": 1}), wait=3), Dispatched)
        assert_type((await sw.replay("e", flows=["a"])).run_ids, list[str])
    await Worker(app, "sqlite:///shop.db", slots=2, pools=["gpu"]).run()


def script() -> None:
    with blocking.Stepwell("sqlite:///shop.db", app) as sw:
        run = sw.options(delay=3).start(checkout, Order("1", [], 1))
        assert_type(run, blocking.Handle[str])
        assert_type(run.result(timeout=3), str)
        assert_type(sw.handle("mine", nested).result(), tuple[int, str])
        run.signal(approval, Decision(True))
        run.signal("anything")
        assert_type(run.get(progress), str | None)
        assert_type(list(run.watch()), list[Run])
        assert_type(list(run.output()), list[Output])
        assert_type(list(run.journal()), list[Entry])
        assert_type(list(sw.runs()), list[Run])
        assert_type(sw.runs().page(), tuple[list[Run], str | None])
        assert_type(sw.call(charge, Order("1", [], 1)), str)
        assert_type(sw.dispatch(Event("a", 1)), Dispatched)


an_action: Action[[Order], str] = charge
a_plain_action: Action[[str], int] = pack
a_mutation: Mutation[[str, str], int] = save
a_query: Query[[str], list[str]] = receipts
a_workflow: Workflow[..., object] = nested  # covariant in its result
