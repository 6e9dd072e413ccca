"""A place for one test: an app, a store, a clock that can be put forward, and a look at what is sent to the kernel."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import msgspec
import pytest

from stepwell import App, Entry, Handle, MutationContext, QueryContext, Retry, Run, StepwellError
from stepwell import Stepwell as Client
from stepwell.engine.clock import wall_ms
from stepwell.model import commands as c
from stepwell.model.errors import Unavailable
from stepwell.model.settings import Settings
from stepwell.worker.local import open_store
from tests.support import assert_lawful

P = ParamSpec("P")
T = TypeVar("T")
PATIENCE_S = 60.0
#: Runs stay in memory as long as the test lasts: what they see, they see live.
RESIDENT = Settings(poll_ms=20, lease_ms=10_000, kill_grace_ms=200, sync="normal", linger_ms=600_000)
#: Runs leave the memory whenever they wait: what they see, they see in a replay.
PARKING = msgspec.structs.replace(RESIDENT, linger_ms=0)
#: What shows how a run moves, and not what it does.
_MOVES = frozenset(("attempt.started", "attempt.ended", "run.parked"))


def on_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that is a coroutine, and takes no longer than a test may."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def within() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await test(*args, **kwargs)

        asyncio.run(within())

    return run


class Time:
    """The wall clock, which a test may put forward and back."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return wall_ms() + self.ahead_ms

    def forward(self, seconds: float) -> None:
        self.ahead_ms += round(seconds * 1_000)


class Place:
    """Where the functions of a test run. `away`: the kernel cannot be reached with these commands."""

    def __init__(self, url: str, settings: Settings, patch: pytest.MonkeyPatch) -> None:
        self.url, self.settings, self.time = url, settings, Time()
        self.away: tuple[type[c.Command], ...] = ()
        self.sent: list[c.Command] = []
        self.app, self.opened = new_app(), False
        self._patch = patch

    def set(self, **settings: Any) -> None:
        self.settings = msgspec.structs.replace(self.settings, **settings)

    @property
    def stays(self) -> bool:
        """Whether runs stay in memory while they wait."""
        return self.settings.linger_ms > 0

    @asynccontextmanager
    async def open(self, app: App | None = None, **options: Any) -> AsyncIterator[Client]:
        """The place, open. At the end what runs is handed back."""
        sw = Client(self.url, app or self.app, settings=self.settings, clock_ms=self.time, **{"drain": 0, **options})
        async with sw:
            self.opened = True
            lane = sw._connection.engine.lanes
            submit = lane.submit

            def gate(command: c.Command, *rest: Any) -> None:
                self.sent.append(command)
                if isinstance(command, self.away):
                    raise Unavailable("the kernel is away")
                submit(command, *rest)

            self._patch.setattr(lane, "submit", gate)
            try:
                yield sw
            finally:
                self.away = ()

    def lawful(self) -> None:
        if self.opened and self.url != "memory:":
            assert_lawful(open_store(self.url, self.settings), self.settings)


def new_app(retry: Retry | None = None) -> App:
    """An app with a table of notes."""
    return App("t", retry=retry, migrations="migrations")


def notes(app: App) -> tuple[Any, Any]:
    """A mutation that takes a note, and refuses bad ones after it has taken them, and a query of all notes."""

    @app.mutation
    def note(ctx: MutationContext, text: str) -> int:
        ctx.db.execute("insert into note (text) values (?)", text)
        if text.startswith("bad"):
            raise ValueError(f"{text} is no note")
        return len(text)

    @app.query
    def noted(ctx: QueryContext) -> list[str]:
        return ctx.db.all("select text from note order by text", type=str)

    return note, noted


async def entries(run: Handle[Any], kind: str = "") -> list[Entry]:
    """The journal of a run, or the entries of it whose kind begins so."""
    return [entry async for entry in run.journal() if entry.kind.startswith(kind)]


async def story(run: Handle[Any]) -> list[str]:
    """What the journal tells of what a run did, wherever and in how many lives it did so."""
    return [entry.kind for entry in await entries(run) if entry.kind not in _MOVES]


async def until(run: Handle[Any], fits: Callable[[Run], Awaitable[bool]]) -> Run:
    """The run as soon as it is as it should be."""
    async for view in run.watch():
        if await fits(view):
            return view
    raise AssertionError(f"{view!r} has ended: {await entries(run)}")


async def seen(run: Handle[Any], kind: str, count: int = 1) -> list[Entry]:
    """The entries of a kind, as soon as there are so many."""

    async def enough(view: Run) -> bool:
        return len(await entries(run, kind)) >= count

    await until(run, enough)
    return await entries(run, kind)


async def resting(run: Handle[Any]) -> Run:
    """The run when it has left the memory."""

    async def rests(view: Run) -> bool:
        return view.status in ("waiting", "sleeping")

    return await until(run, rests)


async def refused(call: Awaitable[Any], kind: type[BaseException], *texts: str) -> Any:
    """The error of a call, which says all of this."""
    with pytest.raises(kind) as caught:
        await call
    error = caught.value
    said = f"{error} {error.hint if isinstance(error, StepwellError) else ''}"
    assert all(text in said for text in texts), said
    return error
