"""Holds what a crowd left in journals and lines against the limits.

The order is that of the commits, by the server's `pg_xact_commit_timestamp`: a lease that another one made room for was
committed after that one's end. What a commit says of the time is when its batch began, so that is no order.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import msgspec
import psycopg
from msgspec import Struct, field

from tests.crash.crowd import Death
from tests.crash.crowd_app import LIMIT, RATE, Line

BEGINS = "attempt.started"
QUERY = """
select r.id, r.pool_key, e.kind, e.at, extract(epoch from pg_xact_commit_timestamp(e.xmin))::float8,
    e.xmin::text::bigint, e.data
from entry as e join run as r on r.no = e.run_no
where r.pool = %s and e.kind in
    ('run.created', 'attempt.started', 'attempt.ended', 'run.parked', 'run.completed', 'run.failed', 'run.canceled')
order by 5, 6, e.run_no, e.seq
"""


class Said(Struct):
    """An entry about a lease. `at`: the batch's time in ms; `committed`: in seconds; `by`: the transaction's number."""

    run: str
    key: str | None
    kind: str
    at: int
    committed: float
    by: int
    data: str

    @property
    def expired(self) -> bool:
        return self.kind == "attempt.ended" and '"reason":"expired"' in self.data


class Held(Struct):
    """How full a pool was, at once at most, and any key of it."""

    leases: int = 0
    most: int = 0
    keys: int = 0
    expired_ms: list[int] = field(default_factory=list)  # how long leases were that nobody ended


def entries_of(conninfo: str, pool: str) -> list[Said]:
    """All that was said about leases of a pool, in the order of the commits."""
    with psycopg.connect(conninfo) as db:
        return [Said(*row) for row in db.execute(QUERY, (pool,)).fetchall()]


def held_at_once(entries: Iterable[Said]) -> Held:
    """How full the pool and its keys were after each commit."""
    held, leased, keys = Held(), dict[str, int](), Counter[str | None]()
    for _, commit in groupby(entries, lambda one: one.by):
        for one in commit:
            if one.kind == BEGINS:
                assert one.run not in leased, f"{one.run} is leased twice"
                leased[one.run] = one.at
                keys[one.key] += 1
                held.leases += 1
            elif one.run in leased:
                began = leased.pop(one.run)
                keys[one.key] -= 1
                if one.expired:
                    held.expired_ms.append(one.at - began)
        held.most = max(held.most, len(leased))
        held.keys = max(held.keys, max(keys.values(), default=0))
    return held


def waits(entries: Iterable[Said], name: str) -> list[float]:
    """From the commit that started each run, whose id begins so, to that of its first lease, in seconds."""
    created: dict[str, float] = {}
    found: dict[str, float] = {}
    for one in entries:
        if one.run.startswith(f"{name}-"):
            if one.kind == "run.created":
                created[one.run] = one.committed
            elif one.kind == BEGINS and one.run not in found:
                found[one.run] = one.committed - created[one.run]
    assert found.keys() == created.keys(), f"never leased: {sorted(created.keys() - found.keys())[:5]}"
    return list(found.values())


def overtakings(entries: Iterable[Said]) -> list[tuple[str, str]]:
    """Runs of one key of which the second was begun before the first, and started after that one was there."""
    waiting: dict[str | None, dict[str, float]] = defaultdict(dict)  # when each that waits was committed, in that order
    started: dict[str, int] = {}
    found: list[tuple[str, str]] = []
    for one in entries:
        mine = waiting[one.key]
        if one.kind == "run.created":
            mine[one.run], started[one.run] = one.committed, one.at
        elif one.kind == BEGINS and one.run in mine:
            first = next(iter(mine))
            if first != one.run and mine[first] * 1_000 < started[one.run]:
                found.append((first, one.run))
            del mine[one.run]
    return found


def beyond_rate(entries: Iterable[Said]) -> float:
    """By how many leases some span of time had more than a full bucket and what flowed in since; 0 or less is right.

    The time of a lease is that of the latest batch until then, as a bucket that is filled knows it.
    """
    worst, lowest, number, now = float("-inf"), float("inf"), 0, 0
    for one in entries:
        if one.kind == BEGINS:
            now = max(now, one.at)
            flowed = RATE * now / 1_000
            lowest = min(lowest, number - flowed)  # of a span that begins with this lease
            number += 1
            worst = max(worst, number - flowed - lowest - RATE)
    return worst


# ── the lines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def spans(lines: Path, deaths: Iterable[Death]) -> Iterator[tuple[str, float, float]]:
    """When each task held its slot, as it saw it; a killed process held nothing any more."""
    died = {death.pid: death.at for death in deaths}
    begun: dict[tuple[str, int], float] = {}
    for text in lines.read_bytes().splitlines():
        line = msgspec.json.decode(text, type=Line)
        if line.begins:
            begun[line.run, line.pid] = line.at
        else:
            yield line.run, begun.pop((line.run, line.pid)), line.at
    for (run, pid), at in begun.items():
        assert pid in died, f"{run} begins and does not end in process {pid}, which lives"
        yield run, at, max(at, died[pid])


def seen_at_once(found: Iterable[tuple[str, float, float]], keys: dict[str, str | None]) -> tuple[int, int]:
    """How many held slots at once at most: of the pool, and of one key."""
    moments = sorted(
        moment for run, begins, ends in found for moment in ((begins, 1, run), (ends, -1, run)) if begins < ends
    )
    now, most, of_key, most_of_key = 0, 0, Counter[str | None](), 0
    for _, by, run in moments:
        now += by
        of_key[keys[run]] += by
        most, most_of_key = max(most, now), max(most_of_key, of_key[keys[run]])
    return most, most_of_key


def check_limits(entries: list[Said], lines: Path, deaths: Iterable[Death]) -> Held:
    """Never over: by the journal, and as the tasks saw it."""
    held = held_at_once(entries)
    assert held.most <= LIMIT
    assert held.keys <= 1
    keys = {one.run: one.key for one in entries}
    most, most_of_key = seen_at_once(spans(lines, deaths), keys)
    assert most <= LIMIT
    assert most_of_key <= 1
    return held
