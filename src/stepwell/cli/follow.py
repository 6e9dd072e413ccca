"""Following runs: what they say while they say it, and how they end; for people, or as JSON, an object a line."""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import click

from stepwell.cli.common import clean, color_of, need_run, on_terminal, print_json_line, status_text
from stepwell.engine.engine import Engine
from stepwell.flows.views import output_view, run_view
from stepwell.model.rows import Output, Run
from stepwell.store.port import Reader
from stepwell.worker.why import why_of

EVERY_S = 0.1
WHY_S = 1.0
QUIET_S = 5.0


class Teller(Protocol):
    """Whoever is told of one run."""

    def show(self, run: Run, output: Sequence[Output]) -> bool:
        """Takes the run as it is and what it said since; answers whether something was new."""
        ...

    def quiet(self, run: Run, why: str, now_s: float) -> None:
        """Nothing is new; `why` the run does not move."""
        ...


async def follow(engine: Engine, run_ids: Sequence[str], tellers: Callable[[], Teller], *, after: int = 0) -> list[Run]:
    """Tells of runs, to a teller each, until all have ended; answers them in the order of the ids.

    Of output, what comes after chunk `after`.
    """
    return list(await asyncio.gather(*(_follow(engine, run_id, tellers(), after) for run_id in run_ids)))


async def _follow(engine: Engine, run_id: str, teller: Teller, after: int) -> Run:
    seen, asked_at = after, time.monotonic()
    while True:
        asks = time.monotonic() - asked_at >= WHY_S
        run, output, why = await engine.read(partial(_look, run_id=run_id, seen=seen, engine=engine if asks else None))
        seen = output[-1].n if output else seen
        if not teller.show(run, output) and asks:
            asked_at = time.monotonic()
            teller.quiet(run, why, asked_at)
        if run.terminal and not output:
            return run
        await asyncio.sleep(0 if output else EVERY_S)


def _look(reader: Reader, *, run_id: str, seen: int, engine: Engine | None) -> tuple[Run, list[Output], str]:
    run = need_run(reader, run_id)
    return run, reader.output(run.no, after=seen), why_of(reader, run, engine) if engine else ""


def tellers(*, quiet: bool) -> Callable[[], Teller]:
    """For commands that wait: lines, and on a terminal a status line below them; or nothing at all."""
    live = Live(on_terminal(sys.stdout) and os.environ.get("TERM") != "dumb")
    return Nobody if quiet else lambda: Screen(live)


class Nobody:
    """Tells nothing."""

    def show(self, run: Run, output: Sequence[Output]) -> bool:
        return True

    def quiet(self, run: Run, why: str, now_s: float) -> None: ...


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────────────


class Live:
    """The output of several runs, and below it, on a terminal, one line that says how they stand."""

    def __init__(self, terminal: bool = False) -> None:
        self.terminal = terminal
        self._shown = ""
        self._open: dict[str, str] = {}
        self._ended = 0

    def line(self, text: str) -> None:
        """A line that stays."""
        click.echo(self._wiped() + text)
        self._shown = ""

    def stands(self, run: Run, why: str) -> None:
        """How an open run stands now."""
        self._open[run.id] = f"{run.name}: {why}"
        self._draw()

    def ended(self, run: Run) -> None:
        """The run has ended."""
        self._open.pop(run.id, None)
        self._ended += 1
        self._draw()

    def _draw(self) -> None:
        if not self.terminal:
            return
        first = clean(next(iter(self._open.values()), ""))
        more = f"[{self._ended}/{self._ended + len(self._open)}] " if self._ended + len(self._open) > 1 else ""
        text = (more + first)[: shutil.get_terminal_size().columns - 1] if first else ""
        if text != self._shown:
            click.echo(self._wiped() + (click.style(text, dim=True) if text else ""), nl=False)
            self._shown = text

    def _wiped(self) -> str:
        """Overwrites the status line; by blanks, since colours and all that is like them may be turned off."""
        return f"\r{' ' * len(self._shown)}\r" if self._shown else ""


class Screen:
    """What was shown of one run: its status, and the lines that have not ended yet."""

    def __init__(self, live: Live | None = None, *, bare: bool = False) -> None:
        self._live, self._bare = live or Live(), bare
        self._status = ""
        self._partial: dict[str, str] = {}
        self._attempt: int | None = None
        self._since: float | None = None

    def show(self, run: Run, output: Sequence[Output]) -> bool:
        """Prints what is new, a status before what is said in it, the end after everything; answers if there was."""
        changed = status_text(run) != self._status
        if changed and not run.terminal:
            self._tell(run)
        self.take(run, output)
        if changed and run.terminal and not output:
            self.rest(run)
            self._tell(run)
            self._live.ended(run)
        if output:
            self._since = None
        return changed or bool(output)

    def quiet(self, run: Run, why: str, now_s: float) -> None:
        """On a terminal the status line says why; elsewhere a line does, now and then."""
        if self._live.terminal and not run.terminal:
            self._live.stands(run, why)
            return
        self._since = now_s if self._since is None else self._since
        if now_s - self._since >= QUIET_S:
            self._live.line(click.style(clean(f"{run.name}: {why}"), dim=True))
            self._since = now_s

    def take(self, run: Run, output: Sequence[Output]) -> None:
        """Prints the lines that these chunks end; what an attempt did not end is no part of the next one's line."""
        for chunk in output:
            if chunk.attempt != self._attempt:
                self.rest(run)
                self._attempt = chunk.attempt
            *lines, self._partial[chunk.kind] = (self._partial.get(chunk.kind, "") + chunk.text).split("\n")
            for line in lines:
                self._say(run, chunk.kind, line)

    def rest(self, run: Run) -> None:
        """Prints the lines that nothing has ended."""
        for kind, rest in self._partial.items():
            if rest:
                self._say(run, kind, rest)
        self._partial.clear()

    def _tell(self, run: Run) -> None:
        self._status = status_text(run)
        color = color_of(run.result_status or run.status)
        self._live.line(f"{click.style(run.name, fg='cyan')} {click.style(self._status, fg=color)}")

    def _say(self, run: Run, kind: str, line: str) -> None:
        """A line that a run said, with its name; its result is shown as its status. Bare: as it was said."""
        if self._bare:
            self._live.line(clean(line))
        elif not line.startswith("FLOW_RESULT "):
            self._live.line(f"{click.style(run.name, fg='cyan')} {'!' if kind == 'stderr' else '|'} {clean(line)}")


# ── for programs ─────────────────────────────────────────────────────────────────────────────────────────────────


class JsonLines:
    """{"type": "status" | "output" | "end", "runId", ...}, one object a line."""

    def __init__(self) -> None:
        self._status: tuple[Any, ...] = ()

    def show(self, run: Run, output: Sequence[Output]) -> bool:
        status = (run.status, run.result_status, run.hold, run.generation)
        changed = status != self._status
        if changed and not run.terminal:
            self._status = status
            print_json_line(status_line(run))
        for chunk in output:
            print_json_line({"type": "output", "runId": run.id, **output_view(chunk)})
        if changed and run.terminal and not output:
            self._status = status
            print_json_line(end_line(run))
        return True

    def quiet(self, run: Run, why: str, now_s: float) -> None: ...


def status_line(run: Run) -> dict[str, Any]:
    """{type, runId, name, status, hold?}."""
    told = {"type": "status", "runId": run.id, "name": run.name, "status": run.status, "hold": run.hold}
    return {key: value for key, value in told.items() if value is not None}


def end_line(run: Run) -> dict[str, Any]:
    """{type, runId, name, status, resultStatus?, result?, error?, failure?}."""
    view = run_view(run)
    kept = ("name", "status", "resultStatus", "result", "error", "failure")
    return {"type": "end", "runId": run.id} | {key: view[key] for key in kept if key in view}
