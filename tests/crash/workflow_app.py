"""The app of the workflow storm: a voyage of more than 20 steps of all kinds, and an errand of 10.

Whatever runs more than once by right, steps and actions, appends a line to a file before it does anything. Mutations
insert a row that nothing keeps from being there twice. Names of steps are given once in a run.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from stepwell import (
    ActionContext,
    App,
    Completion,
    Context,
    Event,
    MutationContext,
    NonRetryable,
    QueryContext,
    Retry,
    Signal,
    State,
    StepError,
    Stepwell,
)
from stepwell.engine.clock import wall_ms
from stepwell.model.settings import Settings
from tests.support import durable_url

#: The variable with the path of the file that steps and actions write to.
LOG = "STORM_LINES"
#: The variable with the seconds that a step or an action takes at the most.
PAUSE = "STORM_PAUSE"
#: What actions may fail, and more than any of them but `doomed` does.
ATTEMPTS = 4
DOOMED_ATTEMPTS = 2

app = App("sea", migrations=Path(__file__).parent / "workflow_migrations")
order = Signal("order", str)
flag = Signal("flag", str)
place = State("place", str)
patient = Retry(ATTEMPTS, initial=0.02, factor=1.5)


class Line(Struct):
    """What a step or an action writes down when it begins. `at` in ms; `attempt` is 0 where it cannot know."""

    what: Literal["step", "action"]
    run: str
    name: str
    attempt: int
    at: int
    pid: int


def short_leases(lease_ms: int) -> Settings:
    """Settings with leases that are shorter than any that a user can set, so that a storm sees many takeovers."""
    settings = Settings(poll_ms=100, lost_leases=1_000, linger_ms=300)
    msgspec.structs.force_setattr(settings, "lease_ms", lease_ms)
    return settings


def note(what: Literal["step", "action"], run: str, name: str, attempt: int = 0) -> None:
    """One write, which outlives a SIGKILL."""
    line = Line(what, run, name, attempt, time.time_ns() // 1_000_000, os.getpid())
    fd = os.open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(fd, msgspec.json.encode(line) + b"\n")
    finally:
        os.close(fd)


def a_while() -> float:
    return random.uniform(0.0, float(os.environ.get(PAUSE, "0")))


# ── what takes a slot ────────────────────────────────────────────────────────────────────────────────────────────────


@app.action(retry=patient, timeout=30)
async def trade(ctx: ActionContext, name: str, fails: int = 0) -> str:
    note("action", ctx.run_id, name, ctx.attempt)
    await asyncio.sleep(a_while())
    if ctx.attempt <= fails:
        raise OSError("a bad day")
    return f"{name} traded"


@app.action(retry=patient, timeout=30)
def weigh(ctx: ActionContext, name: str) -> str:
    note("action", ctx.run_id, name, ctx.attempt)
    time.sleep(a_while())
    return f"{name} weighed"


@app.action(retry=Retry(DOOMED_ATTEMPTS, initial=0.02))
async def doomed(ctx: ActionContext, name: str) -> None:
    note("action", ctx.run_id, name, ctx.attempt)
    raise OSError("there is no such land")


# ── what happens where the store is ──────────────────────────────────────────────────────────────────────────────────


@app.mutation
def stow(ctx: MutationContext, run: str, name: str, value: str) -> str:
    ctx.db.execute("insert into effect (run, name, value) values (?, ?, ?)", run, name, value)
    return f"{name} stowed"


@app.mutation
def arrived(ctx: MutationContext, completion: Completion) -> None:
    """Called at the end of a voyage, in its commit."""
    told = f"{completion.kind} of {completion.context}"
    ctx.db.execute("insert into effect (run, name, value) values (?, 'arrived', ?)", completion.run_id, told)


@app.query
def stowed(ctx: QueryContext, run: str) -> int:
    return ctx.db.all("select count(*) as n from effect where run = ?", run, type=int)[0]


# ── what runs inline ─────────────────────────────────────────────────────────────────────────────────────────────────


async def look(run: str, name: str, value: str) -> str:
    note("step", run, name)
    await asyncio.sleep(a_while())
    return value


def watch(run: str, name: str) -> str:
    note("step", run, name)
    time.sleep(a_while())
    return f"{name} watched"


async def pump(run: str, name: str) -> str:
    note("step", run, name)
    if random.random() < 0.4:
        raise OSError("the pump is stuck")
    return f"{name} pumped"


async def agreed(ctx: Context, name: str, value: str) -> str:
    """Records a value that the body made, and sees at every replay that it makes the same one again."""
    told = await ctx.step(name, look, ctx.run_id, name, value)
    if told != value:
        raise NonRetryable(f"{name} was {told} when it was recorded, and is {value} now")
    return value


# ── workflows ────────────────────────────────────────────────────────────────────────────────────────────────────────


@app.workflow
async def voyage(ctx: Context, number: int) -> dict[str, str]:
    me, said = ctx.run_id, {"number": str(number)}
    said["token"] = await agreed(ctx, "token", str(ctx.uuid()))
    await ctx.options(name="begin").call(stow, me, "begin", said["token"])
    await agreed(ctx, "course", str(ctx.random.random()))
    said["cargo"] = await ctx.options(name="cargo").call(trade, "cargo", number % 2)
    said["watch"] = await ctx.step("watch", watch, me, "watch")
    await agreed(ctx, "time", ctx.now().isoformat())
    said["left"], said["ahead"], said["log"], _ = await asyncio.gather(
        ctx.options(name="left").call(trade, "left", 1),
        ctx.step("ahead", look, me, "ahead", "land"),
        ctx.options(name="log").call(stow, me, "log", said["token"]),
        ctx.sleep(0.2, name="lull"),
    )
    said["boat"] = await ctx.options(name="boat", id=f"{me}.boat").call(boat, number)
    said["flag"] = await ctx.wait_for_signal(flag)
    await ctx.set(place, "harbour")
    landed = await ctx.options(name="landed").dispatch(Event("sea.landed", me))
    said["log book"] = landed.run_ids[0]
    said["order"] = await ctx.wait_for_signal(order, timeout=timedelta(hours=1))
    await ctx.options(name="order").call(stow, me, "order", said["order"])
    try:
        await ctx.options(name="doomed").call(doomed, "doomed")
    except StepError as error:
        said["doomed"] = f"{error.type} after {error.attempts}"
    leaks = ctx.options(retry=Retry(40, initial=0.01, factor=1))
    said["pump"] = await leaks.step("pump", pump, me, "pump")
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(ctx.options(name=name).call(weigh, name), name=name) for name in ("rope", "sail", "oar")
        ]
    said["gear"] = ", ".join(task.result() for task in tasks)
    said["stowed"] = str(await ctx.options(name="stowed").call(stowed, me))
    said["last"] = await agreed(ctx, "last", str(ctx.uuid()))
    await ctx.options(name="end").call(stow, me, "end", said["last"])
    return said


@app.workflow
async def boat(ctx: Context, number: int) -> str:
    me = ctx.run_id
    catch = await ctx.options(name="catch").call(trade, "catch")
    await ctx.options(name="fish").call(stow, me, "fish", catch)
    await ctx.handle(me.removesuffix(".boat")).signal(flag, f"{number} in sight")
    return await ctx.step("home", look, me, "home", f"boat {number} home")


@app.workflow(on="sea.landed")
async def log_book(ctx: Context, event: Event[str]) -> str:
    await ctx.options(name="entry").call(stow, ctx.run_id, "entry", event.payload)
    return event.payload


@app.workflow
async def errand(ctx: Context) -> dict[str, str]:
    me, said = ctx.run_id, {}
    said["token"] = await agreed(ctx, "token", str(ctx.uuid()))
    said["bread"] = await ctx.options(name="bread").call(trade, "bread")
    said["begin"] = await ctx.options(name="begin").call(stow, me, "begin", said["token"])
    said["watch"] = await ctx.step("watch", watch, me, "watch")
    await ctx.sleep(0.02, name="rest")
    said["milk"], said["road"] = await asyncio.gather(
        ctx.options(name="milk").call(weigh, "milk"), ctx.step("road", look, me, "road", "clear")
    )
    said["order"] = await ctx.wait_for_signal(order)
    await ctx.set(place, "home")
    said["end"] = await ctx.options(name="end").call(stow, me, "end", said["token"])
    return said


def open_sea(path: Path, settings: Settings, *, worker: bool = True, clock_ms: Callable[[], int] = wall_ms) -> Stepwell:
    """The app on a file, as any program opens it."""
    return Stepwell(durable_url(path), app, settings=settings, worker=worker, slots=6, drain=0, clock_ms=clock_ms)
