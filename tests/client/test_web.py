"""`Stepwell` in a FastAPI app that uvicorn serves: opened and closed by its lifespan, used by its requests."""

import asyncio
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from stepwell import Stepwell
from stepwell.model.settings import Settings
from tests.client.shop import Decision, Order, app, approval, approve, checkout
from tests.support import assert_lawful, durable, durable_url

SETTINGS = Settings(sync="normal", poll_ms=200)


def api_of(sw: Stepwell) -> FastAPI:
    api = FastAPI(lifespan=sw.lifespan)

    @api.post("/orders", status_code=202)
    async def create(order: Order) -> dict[str, str]:
        run = await sw.options(id=f"order-{order.id}", if_exists="return").start(checkout, order)
        return {"run": run.id}

    @api.post("/approvals/{order_id}")
    async def ask(order_id: str) -> dict[str, str]:
        return {"run": (await sw.options(id=f"approval-{order_id}").start(approve, order_id)).id}

    @api.post("/approvals/{order_id}/decide")
    async def decide(order_id: str, decision: Decision) -> Decision:
        run = sw.handle(f"approval-{order_id}", approve)
        await run.signal(approval, decision)
        return await run.result(timeout=10)

    @api.get("/runs/{run_id}")
    async def show(run_id: str) -> Any:
        return await sw.handle(run_id).result(timeout=10)

    return api


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def serving(api: FastAPI) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(api, log_level="warning"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        assert server.ready.wait(20)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


def ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=15) as response:
        return json.load(response)


def test_a_web_app_starts_signals_and_reads_runs_and_they_survive_it(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with serving(api_of(Stepwell(durable_url(path), app, settings=SETTINGS))) as url:
        order = {"id": "7", "total": 3}
        assert ask(f"{url}/orders", order) == ask(f"{url}/orders", order) == {"run": "order-7"}
        assert ask(f"{url}/runs/order-7") == "r-7, thanks"
        ask(f"{url}/approvals/1", {})
    with serving(api_of(Stepwell(durable_url(path), app, settings=SETTINGS))) as url:
        assert ask(f"{url}/approvals/1/decide", {"approved": True, "by": "ann"}) == {"approved": True, "by": "ann"}
    assert_lawful(durable(path), SETTINGS)
