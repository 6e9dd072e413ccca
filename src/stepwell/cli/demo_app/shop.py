"""An order that is so large that somebody has to say yes: as code, and it survives a kill at any moment.

Its worker: `stepwell worker --app shop:app`, in the folder of this file. Change it, and try.
"""

from dataclasses import dataclass
from datetime import timedelta

from stepwell import App, Context, MutationContext, Retry, Signal, State

app = App("shop", migrations="migrations")


@dataclass
class Order:
    id: str
    customer: str
    total: float


@dataclass
class Decision:
    approved: bool
    by: str


approval = Signal("approval", Decision)
progress = State("progress", str)


@app.mutation
def book(ctx: MutationContext, order_id: str, what: str) -> None:
    """The row is written in the commit that records this call: both are there, or neither is."""
    ctx.db.execute("insert into booking (order_id, what) values (?, ?)", order_id, what)


@app.action(retry=Retry(5), timeout=30)
async def charge(order: Order) -> str:
    """Stands for a bank: any worker may call it."""
    return f"{order.total:.2f} from {order.customer}"


@app.workflow
async def large_order(ctx: Context, order: Order) -> str:
    await ctx.call(book, order.id, "reserved")
    await ctx.set(progress, "waits for an approval")
    try:
        decision = await ctx.wait_for_signal(approval, timeout=timedelta(hours=48))
    except TimeoutError:
        return "expired"
    if not decision.approved:
        return f"refused by {decision.by}"
    receipt = await ctx.call(charge, order)
    await ctx.call(book, order.id, f"paid: {receipt}")
    return await ctx.step("note", thank, order, decision)


def thank(order: Order, decision: Decision) -> str:
    return f"Thank you, {order.customer}: {decision.by} has approved order {order.id}"
