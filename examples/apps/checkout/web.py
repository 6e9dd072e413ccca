"""The same shop behind a web API: the engine, its database and its worker live in the web server's process.

Run it: `pip install fastapi`, then `uvicorn --app-dir examples/apps/checkout web:api`.
"""

import os

from checkout import Decision, Order, app, approval, checkout, progress, receipts
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from stepwell import Stepwell, StepwellError

sw = Stepwell(os.environ.get("SHOP_DB", "sqlite:///shop.sqlite"), app)
api = FastAPI(lifespan=sw.lifespan)


@api.post("/orders", status_code=202)
async def create(order: Order) -> dict[str, str]:
    """The same order twice is one run."""
    run = await sw.options(id=f"order-{order.id}").start(checkout, order)
    return {"run": run.id}


@api.get("/orders/{order_id}")
async def show(order_id: str) -> dict[str, str | None]:
    run = sw.handle(f"order-{order_id}", checkout)
    status = await run.status()
    return {"status": status.status, "progress": await run.get(progress), "waiting_for": status.waiting_for}


@api.post("/orders/{order_id}/approve", status_code=202)
async def approve(order_id: str, decision: Decision) -> dict[str, str]:
    """The same decision of the same person twice is one signal."""
    await sw.handle(f"order-{order_id}", checkout).signal(approval, decision, key=decision.by)
    return {"approval": "sent"}


@api.get("/orders/{order_id}/receipts")
async def paid(order_id: str) -> list[str]:
    return await sw.call(receipts, order_id)


@api.exception_handler(StepwellError)
async def refused(request: Request, error: StepwellError) -> JSONResponse:
    """404 for an order that there is not, 409 for another order of its id, or a decision that comes too late."""
    return JSONResponse(error.as_json(), error.status)
