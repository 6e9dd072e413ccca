"""The app that the tests of `Stepwell` open: a shop, with one function of each kind."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell import (
    ActionContext,
    App,
    Completion,
    Context,
    Event,
    MutationContext,
    NonRetryable,
    Pool,
    QueryContext,
    Retry,
    Signal,
    State,
)

MIGRATIONS = Path(__file__).parent / "shop_migrations"
app = App("shop", migrations=MIGRATIONS)
ovens = Pool("ovens", 2, per_key=1)


@dataclass
class Order:
    id: str
    total: int = 7


@dataclass
class Decision:
    approved: bool
    by: str = ""


approval = Signal("approval", Decision)
progress = State("progress", str)


@app.action
async def charge(order: Order) -> str:
    if order.total < 0:
        raise NonRetryable("nothing to charge", data={"order": order.id})
    return f"r-{order.id}"


@app.action(retry=Retry(3, initial=0), pool=ovens)
def bake(ctx: ActionContext, name: str, fail: int = 0) -> str:
    ctx.output(f"try {ctx.attempt}\n")
    if ctx.attempt <= fail:
        raise OSError("the oven is cold")
    return f"{name}, baked at try {ctx.attempt}"


@app.mutation
def save(ctx: MutationContext, order_id: str, receipt: str) -> int:
    if not receipt:
        raise ValueError("no receipt")
    return ctx.db.execute("insert into receipt (order_id, receipt) values (?, ?)", order_id, receipt)


@app.mutation
def start_later(ctx: MutationContext, order_id: str) -> str:
    return ctx.options(id=f"later-{order_id}").start(checkout, Order(order_id))


@app.mutation
def ended(ctx: MutationContext, completion: Completion) -> None:
    told = f"{completion.kind} {completion.context}"
    ctx.db.execute("insert into receipt (order_id, receipt) values (?, ?)", completion.run_id, told)


@app.query
def receipts(ctx: QueryContext, order_id: str) -> list[str]:
    return ctx.db.all("select receipt from receipt where order_id = ? order by receipt", order_id, type=str)


@app.workflow
async def checkout(ctx: Context, order: Order, note: str = "thanks") -> str:
    receipt = await ctx.call(charge, order)
    await ctx.call(save, order.id, receipt)
    return f"{receipt}, {note}"


@app.workflow
async def approve(ctx: Context, order_id: str) -> Decision:
    await ctx.set(progress, "waits")
    decision = await ctx.wait_for_signal(approval)
    await ctx.set(progress, "decided")
    return decision


@app.workflow
async def bakery(ctx: Context, name: str, fail: int = 0) -> str:
    return await ctx.call(bake, name, fail)


@app.workflow(on="order.paid")
async def paid(ctx: Context, event: Event[dict[str, Any]]) -> str:
    return f"{event.id} {event.payload['total']}"


@app.workflow
async def tidy(ctx: Context) -> None:
    try:
        await ctx.sleep(3_600)
    except asyncio.CancelledError:
        await ctx.set(progress, "tidied")
        raise
