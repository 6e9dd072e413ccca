"""The same shop behind a web API: the engine, its database and its worker live in the web server's process.

Run it: `pip install fastapi`, then `uvicorn --app-dir examples/apps/checkout web:api`.
"""

import os

from checkout import Decision, Order, app, approval, checkout, progress, receipts
from fastapi import FastAPI, HTTPException

from stepwell import Conflict, NotFound, Stepwell

sw = Stepwell(os.environ.get("SHOP_DB", "sqlite:///shop.sqlite"), app)
api = FastAPI(lifespan=sw.lifespan)


@api.post("/orders", status_code=202)
async def create(order: Order) -> dict[str, str]:
    """The same order twice is one run."""
    run = await sw.options(id=f"order-{order.id}", if_exists="return").start(checkout, order)
    return {"run": run.id}


@api.get("/orders/{order_id}")
async def show(order_id: str) -> dict[str, str | None]:
    run = sw.handle(f"order-{order_id}", checkout)
    try:
        status = await run.status()
    except NotFound:
        raise HTTPException(404, "no such order") from None
    return {"status": status.status, "progress": await run.get(progress), "waiting_for": status.waiting_for}


@api.post("/orders/{order_id}/approve", status_code=202)
async def approve(order_id: str, decision: Decision) -> dict[str, str]:
    try:
        await sw.handle(f"order-{order_id}", checkout).signal(approval, decision, key=decision.by)
    except NotFound:
        raise HTTPException(404, "no such order") from None
    except Conflict as over:
        raise HTTPException(409, over.message) from None
    return {"approval": "sent"}


@api.get("/orders/{order_id}/receipts")
async def paid(order_id: str) -> list[str]:
    return await sw.call(receipts, order_id)
