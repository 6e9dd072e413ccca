"""`Worker`: a process that runs an app's workflows and actions, and starts nothing itself (source: API, clients)."""

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from stepwell.functions.define import Duration, duration_ms
from stepwell.model.errors import Invalid
from stepwell.model.settings import Settings, settings_from
from stepwell.worker.ending import when_told_to_end
from stepwell.worker.local import open_local
from stepwell.workflow.app import App

DRAIN_S = 30.0


class Worker:
    """Runs what an app has, `slots` actions and steps of flows at once, on a database that others fill, too.

    `pools`: only runs and actions of these; none: of all. `flows`: a folder whose flow packages run here as well.
    `stepwell worker --app MODULE:APP` is the same from the command line.
    """

    def __init__(
        self,
        app: App,
        url: str,
        *,
        slots: int = 4,
        pools: Sequence[str] = (),
        flows: Path | str | None = None,
        settings: Settings | None = None,
    ) -> None:
        given: object = app
        if not isinstance(given, App):
            raise Invalid(f"a worker needs an App, not {type(given).__name__}", hint="Worker(app, 'sqlite:///app.db').")
        self._app, self._url, self._slots, self._pools = app, url, slots, tuple(pools)
        self._flows = None if flows is None else Path(flows)
        self._settings = settings_from(os.environ) if settings is None else settings
        self._told, self._over = asyncio.Event(), asyncio.Event()
        self._drain_s = DRAIN_S
        self._runs = False

    async def run(self) -> None:
        """Works until `stop`; on the main thread also until SIGTERM or SIGINT, and a second one hands back at once."""
        if self._runs:
            raise Invalid("the worker runs already", hint="Make a second Worker to have two.")
        self._runs = True
        self._told.clear()
        self._over.clear()
        try:
            await self._work()
        finally:
            self._runs = False
            self._over.set()

    async def _work(self) -> None:
        async with open_local(
            self._url,
            self._flows,
            settings=self._settings,
            slots=self._slots,
            pools=self._pools,
            drain_s=0,
            app=self._app,
        ) as local:
            worker = local.worker
            assert worker is not None, "slots were asked for"

            def end() -> None:
                if self._told.is_set():
                    worker.hurry()
                self._told.set()

            if threading.current_thread() is threading.main_thread():
                when_told_to_end(end)
            await self._told.wait()
            await worker.stop(drain_s=self._drain_s)

    async def stop(self, *, drain: Duration = DRAIN_S) -> None:
        """Claims nothing more, lets what runs end within `drain`, hands back the rest; returns when `run` has ended."""
        self._drain_s = duration_ms(drain, "drain") / 1_000
        self._told.set()
        if self._runs:
            await self._over.wait()
