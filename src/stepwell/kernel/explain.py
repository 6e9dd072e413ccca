"""Why a run does not move, in a sentence: what an operator asks first. Pure."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from stepwell.model.rows import Pool, Run, Task

_HELD = {
    "paused": "somebody paused it",
    "poison": "it came back broken again and again, or its journal is at its bound",
    "mismatch": "its code and its journal do not agree",
    "stalled": "it made no step forward",
}


_START = "start one with `stepwell serve` or `stepwell worker`"
#: So long ready while a worker lives and nothing runs: no worker there has what it takes.
PASSED_OVER_MS = 5_000


class Around(Struct, frozen=True):
    """What lies around a run and keeps it from moving, as far as it is known.

    `workers`: whether one lives; `died`: whether the one that has the run is proven to be dead; `running`: runs under
    way, in `pool_runs` those of its pool, in `key_runs` the ids of those with its key. `unread`: signals that came and
    that a parked run did not ask for. `held_for` and `failed_with`: the reason of the hold and of the last failure in
    the journal; `callback_failed`: that of the `on_complete`.
    """

    workers: bool | None = None
    died: bool = False
    running: int | None = None
    pool: Pool | None = None
    pool_runs: int = 0
    key_runs: tuple[str, ...] = ()
    held_for: str = ""
    unread: tuple[str, ...] = ()
    failed_with: str = ""
    callback_failed: str = ""


def explain(run: Run, tasks: Sequence[Task], now: int, around: Around | None = None) -> str:
    """What a run waits for, and what will move it."""
    around = around or Around()
    if run.terminal:
        failed = f"; its on_complete failed: {around.callback_failed}" if around.callback_failed else ""
        return f"ended: {run.status}{failed}"
    if run.hold is not None:
        return _held(run, around)
    turn = next((task for task in tasks if task.k == run.turn), None)
    if turn is None:
        return "open without a task; run `stepwell doctor`"
    return _TELL[turn.state](run, turn, now, around)


def obstacle(run: Run, tasks: Sequence[Task], now: int, around: Around) -> str | None:
    """What somebody can do something about, in words that fit all runs that it stops; None: it moves by itself."""
    if run.terminal:
        return None
    if run.hold is not None:
        return f"held as {run.hold}: {_HELD.get(run.hold, '')}; `stepwell runs show RUN` says more"
    turn = next((task for task in tasks if task.k == run.turn), None)
    if turn is None:
        return "open without a task; run `stepwell doctor`"
    if turn.state == "ready":
        return _no_claim(turn, now, around)
    if turn.state == "blocked":
        return _blocked(run, turn, now, around)
    if turn.state == "leased" and around.workers is False:
        return f"its worker is gone; {_START}"
    return None


def _held(run: Run, around: Around) -> str:
    why = _HELD.get(run.hold or "", "")
    said = f" ({around.held_for})" if around.held_for not in ("", run.hold) else ""
    return f"held as {run.hold}: {why}{said}; `stepwell runs retry {run.id}` lets it go on"


def _ready(run: Run, task: Task, now: int, around: Around) -> str:
    since = f"ready for {_span(now - task.order)}"
    if task.lost:
        since += f" since a worker died with it ({task.lost} in a row)"
    return f"{since}: {_no_claim(task, now, around)}"


def _no_claim(task: Task, now: int, around: Around) -> str:
    pool = around.pool
    if pool is not None and pool.paused:
        return f"pool {task.pool} is paused; `stepwell pools resume {task.pool}` lets it go on"
    if around.workers is False:
        return f"no worker lives on this database; {_START}"
    if pool is not None and pool.limit is not None and around.pool_runs >= pool.limit:
        return f"pool {task.pool} is full ({around.pool_runs} of {pool.limit} run); goes on when one of them ends"
    needs = f" that has {task.requires}" if task.requires else ""
    rated = pool is not None and pool.rate
    if around.workers and around.running == 0 and not rated and now - task.order >= PASSED_OVER_MS:
        flow = f" has {task.requires}" if task.requires else " takes it"
        return f"no worker that lives{flow}; start one in its folder (--cwd), and see `stepwell flow check` there"
    rate = f", which starts {pool.rate} per {_span(pool.rate_ms)}" if pool is not None and pool.rate else ""
    more = f" ({around.running} runs are under way); `stepwell worker` brings more slots" if around.running else ""
    return f"waits for a worker with a free slot in pool {task.pool}{rate}{needs}{more}"


def _leased(run: Run, task: Task, now: int, around: Around) -> str:
    left = (task.lease_until or now) - now
    if around.died and task.kind != "step":  # whose process may live on, so it keeps its lease
        then = "it goes on at once" if around.workers else f"{_START}, which goes on with it at once"
        return f"attempt {task.attempt} ran at {task.worker}, which died; {then}"
    if around.workers is False:
        when = f"its lease ends in {_span(left)}" if left >= 0 else f"its lease ended {_span(-left)} ago"
        return f"attempt {task.attempt} ran at {task.worker}, which is gone ({when}); {_START}"
    if left < 0:
        return (
            f"attempt {task.attempt} ran at {task.worker}, whose lease ended {_span(-left)} ago without a word; "
            "it is given to another worker at once, if one lives"
        )
    what = f"attempt {task.attempt} runs at {task.worker} for {_span(now - (task.leased_at or now))}"
    if run.cancel_at is not None:
        return f"asked to cancel {_span(now - run.cancel_at)} ago: {what}, and is being stopped"
    return f"{what}; its lease is good for {_span(left)} more"


def _due(run: Run, task: Task, now: int, around: Around) -> str:
    left = _span((task.due_at or now) - now)
    if task.due_key:
        return f"sleeps on timer {task.due_key}, for {left} more"
    times = "once" if task.attempt == 1 else f"{task.attempt} times"
    said = f" ({around.failed_with})" if around.failed_with else ""
    return f"failed {times}{said}; is tried again in {left}"


def _parked(run: Run, task: Task, now: int, around: Around) -> str:
    waits: list[str] = msgspec.json.decode(run.waits) if run.waits else []
    unread = f"; unread signals: {', '.join(around.unread)}" if around.unread else ""
    return "waits for " + (", ".join(waits) or "nothing") + unread


def _blocked(run: Run, task: Task, now: int, around: Around) -> str:
    others = tuple(one for one in around.key_runs if one != run.id)
    by = f" with {', '.join(others[:3])}{' and others' if len(others) > 3 else ''}" if others else ""
    return f"key {task.pool_key} of pool {task.pool} is full{by}; goes on when one run of that key ends"


def _span(ms: int) -> str:
    """A time span as people say it."""
    seconds = max(0, ms) / 1_000
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


_TELL = {"ready": _ready, "leased": _leased, "due": _due, "parked": _parked, "blocked": _blocked}
