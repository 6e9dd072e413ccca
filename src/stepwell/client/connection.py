"""One opened database in this process, shared by a `Stepwell`, its views and its handles."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from stepwell.engine.engine import Engine
from stepwell.functions.define import Function
from stepwell.functions.start_options import scope_of
from stepwell.model.errors import Invalid, Unavailable, Unknown, UnknownFunction
from stepwell.model.rows import Run
from stepwell.model.settings import Settings, settings_from
from stepwell.store.address import public_address
from stepwell.store.port import Reader
from stepwell.worker.host import AppHost
from stepwell.worker.local import Local, open_local
from stepwell.workflow.app import App

T = TypeVar("T")
#: Who this is in the journals.
BY = "client"
_REMOTE = ("http://", "https://")


class Connection:
    """What is needed to open it, and while it is open, the engine. It belongs to the event loop that opened it."""

    def __init__(
        self,
        url: str,
        app: App | None,
        *,
        worker: bool,
        slots: int,
        flows: Path | str | None,
        settings: Settings | None,
        drain_s: float,
        clock_ms: Callable[[], int] | None,
    ) -> None:
        self.url, self.app = checked_url(url), checked_app(app)
        self._slots = slots if worker and (app is not None or flows is not None) else 0
        self._flows, self._drain_s = flows, drain_s
        self._settings = settings_from(os.environ) if settings is None else settings
        self._clock_ms = clock_ms
        self._local: Local | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack: AsyncExitStack | None = None
        self._opening: asyncio.Task[Local] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Opens the store and starts the worker. Raises `Invalid` when it is open already."""
        if self._stack is not None:
            raise Invalid("it is open already", hint="One `async with` is enough; its handles and views share it.")
        self._loop, self._stack = asyncio.get_running_loop(), AsyncExitStack()
        self._opening = asyncio.create_task(self._stack.enter_async_context(self._opened()), name="stepwell-open")
        try:
            self._local = await asyncio.shield(self._opening)
        except BaseException:  # half of it may be open, or all of it a moment later
            await self.close()
            raise

    def _opened(self) -> AbstractAsyncContextManager[Local]:
        return open_local(
            self.url,
            None if self._flows is None else Path(self._flows),
            settings=self._settings,
            slots=self._slots,
            drain_s=self._drain_s,
            app=self.app,
            clock_ms=self._clock_ms,
        )

    async def close(self) -> None:
        """Drains the worker and closes the store. Closing what is closed does nothing.

        When it is canceled, what runs is handed back at once, and it is closed all the same.
        """
        local, self._local = self._local, None
        if self._stack is None or self._opening is None:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._ended(self._stack, self._opening), name="stepwell-close")
        closing = self._closing
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            if local is not None and local.worker is not None:
                local.worker.hurry()
            await asyncio.wait([closing])
            raise

    async def _ended(self, stack: AsyncExitStack, opening: asyncio.Task[Local]) -> None:
        try:
            await asyncio.wait([opening])
            await stack.aclose()
        finally:
            self._stack = self._opening = self._closing = self._local = None

    @property
    def local(self) -> Local:
        """What is open. Raises `Unavailable` when nothing is, `Invalid` on another event loop."""
        if self._local is None:
            hint = "Make the call inside of `async with Stepwell(url, app) as sw:`, or while its lifespan runs."
            raise Unavailable(f"{public_address(self.url)} is not open", hint=hint)
        if asyncio.get_running_loop() is not self._loop:
            hint = "Call it where it was opened; stepwell.blocking.Stepwell may be used from any thread."
            raise Invalid("it was opened on another event loop", hint=hint)
        return self._local

    @property
    def engine(self) -> Engine:
        """The engine. Raises as `local`."""
        return self.local.engine

    @property
    def host(self) -> AppHost:
        """The app as it is open here. Raises `UnknownFunction` where there is none."""
        host = self.local.app
        if host is None:
            hint = "Open Stepwell with the app: mutations and queries run where the database is."
            raise UnknownFunction("there is no app here", hint=hint)
        return host

    def use_pool(self, function: Function[Any, Any], options: Mapping[str, Any]) -> None:
        """The pool of a start that comes next gets its limits."""
        pool = options.get("pool") or function.options.get("pool")
        if pool is not None:
            self.local.limits.use(pool, scope_of(options))

    async def run(self, scope: str, run_id: str) -> Run:
        """A run's row. Raises `Unknown`."""
        return await self.engine.read(lambda reader: known(reader, scope, run_id))

    async def changes(self, number: int, look: Callable[[Reader], T]) -> AsyncIterator[T]:
        """What `look` sees, now and whenever something may have changed about a run: hints, and a bounded poll."""
        engine = self.engine
        with engine.run_hint(number) as hint:
            while True:
                hint.clear()
                yield await engine.read(look)
                try:
                    async with asyncio.timeout(engine.settings.poll_ms / 1_000):
                        await hint.wait()
                except TimeoutError:
                    continue  # a hint may be lost: look all the same


def known(reader: Reader, scope: str, run_id: str) -> Run:
    """A run's row, or `Unknown`."""
    run = reader.run(scope, run_id)
    if run is None:
        raise Unknown(f"no run {run_id!r:.300}", run_id=run_id)
    return run


def checked_url(url: object) -> str:
    """A URL of a database that can be opened here, or `Invalid`."""
    if not isinstance(url, str) or not url:
        raise Invalid(f"no database at {url!r:.80}", hint="Use sqlite:///FILE or postgresql://USER@HOST/DATABASE.")
    if url.startswith(_REMOTE):
        raise Invalid(
            f"{public_address(url):.200} is a server, and Stepwell opens a database in this process",
            hint="Give a database here; for events and runs of a server there is stepwell.client.FlowClient.",
        )
    return url


def checked_app(app: object) -> App | None:
    """An App or None, or `Invalid`."""
    if app is not None and not isinstance(app, App):
        hint = "Give app = App('name') with its functions, or None to only look and send."
        raise Invalid(f"app must be an App, not {type(app).__name__}", hint=hint)
    return app
