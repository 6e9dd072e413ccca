"""What was measured, and how it is told: median, spread, budget."""

import statistics
import sys
from collections.abc import Iterable, Sequence

from msgspec import Struct


class Budget(Struct, frozen=True):
    """A bound on a median: at most, or at least."""

    limit: float
    most: bool = True

    def met(self, value: float) -> bool:
        """Whether a median keeps it."""
        return value <= self.limit if self.most else value >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.most else '≥'} {number(self.limit)}"


class Row(Struct):
    """One line of the report; `samples` are repetitions of the same measure, each already in `unit`."""

    name: str
    unit: str
    samples: list[float]
    note: str = ""
    budget: Budget | None = None
    subject: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        """Whether the budget is kept; None without one."""
        return None if self.budget is None else self.budget.met(self.median)


def at_most(limit: float) -> Budget:
    return Budget(limit)


def at_least(limit: float) -> Budget:
    return Budget(limit, most=False)


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latencies(name: str, seconds: Sequence[float], note: str = "", budget: Budget | None = None) -> Row:
    """A row of latencies in milliseconds: its median is p50, and its note has the tail."""
    ms = [one * 1_000 for one in seconds]
    tail = f"p99 {number(quantile(ms, 0.99))}, max {number(max(ms))}, n {len(ms)}"
    return Row(name, "ms", ms, f"{tail}{'; ' if note else ''}{note}", budget)


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def line(row: Row) -> str:
    """A row for people. The spread is from the lowest to the highest sample."""
    samples = row.samples
    spread = f"{number(min(samples))} to {number(max(samples))}" if len(samples) > 1 else "one sample"
    verdict = "" if row.budget is None else f"  [{row.budget}: {'kept' if row.met else 'MISSED'}]"
    note = f"  · {row.note}" if row.note else ""
    return f"  {row.name:<52} {number(row.median):>10} {row.unit:<9} ({spread}){verdict}{note}"


def say(text: str) -> None:
    """Prints at once, on stderr, so that --json leaves stdout to the data."""
    print(text, file=sys.stderr, flush=True)
