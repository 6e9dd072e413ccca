"""`Stepwell` without `await`, for scripts and threads: the same calls, the same rules (source: API, clients).

The engine and the worker run on an event loop of their own, on a thread beside the program.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, Unpack, overload

from stepwell.client import handle as handles
from stepwell.client import paged
from stepwell.client import stepwell as client
from stepwell.client.background import Background
from stepwell.client.run import Entry, Output, Run
from stepwell.client.stepwell import DRAIN_S, SLOTS
from stepwell.functions.define import (
    Action,
    Dispatched,
    Duration,
    Event,
    Mutation,
    Query,
    Signal,
    StartOptions,
    Workflow,
)
from stepwell.model.settings import Settings
from stepwell.model.words import Status
from stepwell.workflow.app import App

__all__ = ["Handle", "Paged", "Stepwell"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
RC = TypeVar("RC", covariant=True)


class Stepwell:
    """`stepwell.Stepwell` for programs without an event loop: `with Stepwell("sqlite:///app.db", app) as sw:`.

    All threads may use it at once. At the end of the block the worker drains and the database is closed.
    """

    def __init__(
        self,
        url: str,
        app: App | None = None,
        *,
        worker: bool = True,
        slots: int = SLOTS,
        flows: Path | str | None = None,
        settings: Settings | None = None,
        drain: Duration = DRAIN_S,
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        self._background = Background()
        self._inner = client.Stepwell(
            url,
            app,
            worker=worker,
            slots=slots,
            flows=flows,
            settings=settings,
            drain=drain,
            clock_ms=clock_ms,
        )

    def __enter__(self) -> Self:
        self._background.check_stopped()
        try:
            self._background.start()
            self._background.do(self._inner.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """Closes it. An interrupt makes it hurry, a second one leaves it as it is."""
        try:
            if not self._background.runs:  # it is closed, or is the parent's of this fork
                return
            try:
                self._background.do(self._inner.__aexit__(None, None, None))
            except KeyboardInterrupt:
                self._background.do(self._inner.__aexit__(None, None, None))  # waits for the same end
                raise
        finally:
            self._background.stop()

    def options(self, **options: Unpack[StartOptions]) -> Self:
        """See `stepwell.Stepwell.options`."""
        view = object.__new__(type(self))
        view._background, view._inner = self._background, self._inner.options(**options)
        return view

    def start(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Handle[R]":
        """See `stepwell.Stepwell.start`."""
        return Handle(self._background, self._background.do(self._inner.start(workflow, *args, **kwargs)))

    @overload
    def handle(self, run_id: str) -> "Handle[Any]": ...
    @overload
    def handle(self, run_id: str, workflow: Workflow[..., R]) -> "Handle[R]": ...
    def handle(self, run_id: str, workflow: Workflow[..., Any] | None = None) -> "Handle[Any]":
        """See `stepwell.Stepwell.handle`."""
        found = self._inner.handle(run_id) if workflow is None else self._inner.handle(run_id, workflow)
        return Handle(self._background, found)

    def runs(
        self,
        *,
        status: Status | None = None,
        result_status: str | None = None,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        scope: str | None = None,
        event_id: str | None = None,
    ) -> "Paged[Run]":
        """See `stepwell.Stepwell.runs`."""
        found = self._inner.runs(
            status=status, result_status=result_status, name=name, tags=tags, scope=scope, event_id=event_id
        )
        return Paged(self._background, found)

    def call(self, fn: Query[P, R] | Mutation[P, R] | Action[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `stepwell.Stepwell.call`."""
        return self._background.do(self._inner.call(fn, *args, **kwargs))

    def dispatch(self, event: Event[Any], *, wait: Duration | None = None) -> Dispatched:
        """See `stepwell.Stepwell.dispatch`."""
        return self._background.do(self._inner.dispatch(event, wait=wait))

    def replay(self, event_id: str, *, flows: Sequence[str] = (), wait: Duration | None = None) -> Dispatched:
        """See `stepwell.Stepwell.replay`."""
        return self._background.do(self._inner.replay(event_id, flows=flows, wait=wait))


class Handle(Generic[RC]):
    """`stepwell.Handle` without `await`."""

    def __init__(self, background: Background, inner: handles.Handle[RC]) -> None:
        self.id = inner.id
        self._background, self._inner = background, inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def result(self, *, timeout: Duration | None = None) -> RC:
        """See `stepwell.Handle.result`."""
        return self._background.do(self._inner.result(timeout=timeout))

    def status(self) -> Run:
        """See `stepwell.Handle.status`."""
        return self._background.do(self._inner.status())

    @overload
    def signal(self, signal: Signal[T], value: T, *, key: str | None = None) -> None: ...
    @overload
    def signal(self, signal: str, value: Any = None, *, key: str | None = None) -> None: ...
    def signal(self, signal: Signal[Any] | str, value: Any = None, *, key: str | None = None) -> None:
        """See `stepwell.Handle.signal`."""
        if isinstance(signal, Signal):
            self._background.do(self._inner.signal(signal, value, key=key))
        else:
            self._background.do(self._inner.signal(signal, value, key=key))

    def get(self, state: handles.Readable[T]) -> T | None:
        """See `stepwell.Handle.get`."""
        reading = self._inner.get(state)
        return self._background.do(reading)

    def cancel(self, reason: str = "") -> None:
        """See `stepwell.Handle.cancel`."""
        self._background.do(self._inner.cancel(reason))

    def terminate(self, reason: str = "") -> None:
        """See `stepwell.Handle.terminate`."""
        self._background.do(self._inner.terminate(reason))

    def watch(self) -> Iterator[Run]:
        """See `stepwell.Handle.watch`."""
        return self._background.each(self._inner.watch())

    def output(self, *, after: int = 0, follow: bool = False) -> Iterator[Output]:
        """See `stepwell.Handle.output`."""
        return self._background.each(self._inner.output(after=after, follow=follow))

    def journal(self) -> Iterator[Entry]:
        """See `stepwell.Handle.journal`."""
        return self._background.each(self._inner.journal())


class Paged(Iterator[T]):
    """`stepwell.Paged` without `await`."""

    def __init__(self, background: Background, inner: paged.Paged[T]) -> None:
        self._inner, self._background = inner, background
        self._items = background.each(inner)

    def __next__(self) -> T:
        return next(self._items)

    def page(self, cursor: str | None = None, limit: int = 100) -> tuple[list[T], str | None]:
        """See `stepwell.Paged.page`."""
        return self._background.do(self._inner.page(cursor, limit))
