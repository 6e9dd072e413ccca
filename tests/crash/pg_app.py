"""The app of the storm on PostgreSQL: the voyages of the workflow storm, and ferries, which are called back."""

import asyncio

from stepwell import Context
from tests.crash.workflow_app import app, order, stow, trade

__all__ = ["app", "child", "family", "ferry", "tug"]


@app.workflow
async def ferry(ctx: Context, number: int) -> None:
    """Waits for a tug that never comes, until it is canceled; then it turns around, which takes a mutation."""
    me = ctx.run_id
    await ctx.options(name="off").call(stow, me, "off", str(number))
    try:
        await ctx.options(name="tug", id=f"{me}.tug").call(tug)
    except asyncio.CancelledError:
        await ctx.options(name="back").call(stow, me, "back", str(number))
        raise


@app.workflow
async def tug(ctx: Context) -> str:
    """Waits for an order that nobody gives."""
    coal = await ctx.options(name="coal").call(trade, "coal")
    return coal + await ctx.wait_for_signal(order)


@app.workflow
async def family(ctx: Context, children: int) -> int:
    """Sends all children out at once."""
    return sum(await asyncio.gather(*(ctx.call(child, number) for number in range(children))))


@app.workflow
async def child(ctx: Context, number: int) -> int:
    """Does one step."""
    return await ctx.step("think", lambda: number)
