"""An order that waits for an approval, is paid once, and is packed line by line.

`python examples/apps/checkout/checkout.py` waits for somebody. Kill it, as hard as you like; then run it with a name,
`checkout.py ann`: Ann says yes, and the order goes on where it was.
"""

import asyncio
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from stepwell import (
    ActionContext,
    App,
    Context,
    MutationContext,
    NonRetryable,
    QueryContext,
    Retry,
    Signal,
    State,
    Stepwell,
)

app = App("shop", migrations=Path(__file__).parent / "migrations")


@dataclass
class Order:
    id: str
    lines: list[str]
    total: int  # in cents


@dataclass
class Decision:
    approved: bool
    by: str


approval = Signal("approval", Decision)
progress = State("progress", str)
APPROVE_FROM = 1_000_00


@app.action(retry=Retry(5, never=(ValueError,)), timeout=30)
async def charge(ctx: ActionContext, order: Order) -> str:
    if order.total <= 0:
        raise NonRetryable("nothing to charge")
    return await bank_charge(order.total, idempotency_key=ctx.idempotency_key)


@app.action
async def pack(line: str) -> str:
    return f"packed {line}"


@app.mutation
def save(ctx: MutationContext, order_id: str, receipt: str) -> None:
    ctx.db.execute("insert into receipt (order_id, receipt) values (?, ?)", order_id, receipt)


@app.query
def receipts(ctx: QueryContext, order_id: str) -> list[str]:
    return ctx.db.all("select receipt from receipt where order_id = ?", order_id, type=str)


@app.workflow
async def checkout(ctx: Context, order: Order) -> str:
    if order.total > APPROVE_FROM:
        await ctx.set(progress, "waiting for approval")
        try:
            decision = await ctx.wait_for_signal(approval, timeout=timedelta(hours=48))
        except TimeoutError:
            return "expired"
        if not decision.approved:
            return f"refused by {decision.by}"
    await ctx.set(progress, "paying")
    receipt = await ctx.call(charge, order)  # dispatched, leased, retried
    await ctx.call(save, order.id, receipt)  # in one transaction with the journal entry
    async with asyncio.TaskGroup() as group:
        for line in order.lines:
            group.create_task(ctx.call(pack, line), name=line)
    return await ctx.step("note", make_note, order)  # inline, here


def make_note(order: Order) -> str:
    return f"Thank you for order {order.id}"


async def bank_charge(amount: int, *, idempotency_key: str) -> str:
    """Stands for a bank that takes the same key once."""
    return f"r-{amount}"


async def main(approver: str | None) -> None:
    async with Stepwell("sqlite:///shop.sqlite", app) as sw:
        order = Order("7", ["tea", "cup"], 2_000_00)
        run = await sw.options(id="order-7").start(checkout, order)  # a second time: the same run
        if approver is None:
            print("order-7 waits for an approval", flush=True)
        else:
            await run.signal(approval, Decision(True, approver), key=approver)
        print(await run.result())
        print("receipts:", await sw.call(receipts, order.id))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
