"""The doctor: checks every law that data can show, on a store of any size, in bounded memory."""

from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from typing import NamedTuple

from msgspec import Struct

from stepwell.kernel.laws import Offence, check_run
from stepwell.model.rows import Entry, Event, Run, Task
from stepwell.model.settings import Settings
from stepwell.store.port import Reader

PAGE = 100
#: A journal longer than this is checked in full all the same, but read in pages of this many entries.
ENTRIES = 5_000
#: How often a run is looked at that changes all the time.
LOOKS = 5


class Checked(Struct):
    """How much was looked at."""

    runs: int = 0
    entries: int = 0
    events: int = 0


def examine(
    reader: Reader, settings: Settings, checked: Checked, progress: Callable[[Checked], None] = lambda _: None
) -> Iterator[Offence]:
    """Yields each offender. A run that changed while it was looked at is looked at again before it is named."""
    after = 0
    while runs := reader.scan_runs(after=after, limit=PAGE):
        told = reader.messages_to([run.no for run in runs])
        for look in _looks(reader, runs, told):
            yield from _offences(reader, look, settings)
            checked.runs += 1
            checked.entries += look.run.head_seq
        after = runs[-1].no
        progress(checked)
    after = 0
    while events := reader.scan_events(after=after, limit=PAGE):
        yield from _events(reader, events)
        checked.events += len(events)
        after = events[-1].no
        progress(checked)
    for orphan in reader.orphans():
        yield Offence(1, orphan, "belongs to nothing")


class _Look(NamedTuple):
    """What a look at a run found."""

    run: Run
    entries: list[Entry]
    tasks: list[Task]
    is_told: bool


def _looks(reader: Reader, runs: list[Run], told: Collection[int]) -> Iterator[_Look]:
    """At a page of runs; one journal of them is in memory at a time."""
    first, last = runs[0].no, runs[-1].no
    tasks = {no: list(some) for no, some in groupby(reader.tasks_of(first, last), lambda task: task.run_no)}
    journals = ((no, list(some)) for no, some in groupby(_entries(reader, first, last), lambda entry: entry.run_no))
    number, entries = next(journals, (last, []))
    for run in runs:
        while number < run.no:  # of a run that is not on the page: it was just made, or is being pruned
            number, entries = next(journals, (last, []))
        yield _Look(run, entries if number == run.no else [], tasks.get(run.no, []), run.no in told)


def _look_again(reader: Reader, run_no: int) -> _Look | None:
    run = reader.run_by_no(run_no)
    if run is None:
        return None
    is_told = bool(reader.messages_to([run_no]))
    return _Look(run, list(_entries(reader, run_no, run_no)), reader.tasks_of(run_no), is_told)


def _offences(reader: Reader, look: _Look, settings: Settings) -> list[Offence]:
    """Named when two looks at the run have found the same."""
    for _ in range(LOOKS):
        offences = check_run(look.run, look.entries, look.tasks, expects_message=look.is_told, settings=settings)
        again = _look_again(reader, look.run.no) if offences else None
        if again is None or again == look:
            break
        look = again
    return offences if again is not None else []


def _entries(reader: Reader, first: int, last: int) -> Iterator[Entry]:
    after, full = (first, 0), True
    while full and (page := reader.scan_entries(after=after, until=last, limit=ENTRIES)):
        yield from page
        after, full = (page[-1].run_no, page[-1].seq), len(page) == ENTRIES


def _events(reader: Reader, events: list[Event]) -> Iterator[Offence]:
    """Law 5: the runs of an accepted event are there, as long as none of them can have been pruned."""
    counts = reader.first_run_counts([event.no for event in events])
    floors: dict[str, int] = {}
    for event in events:
        if event.scope not in floors:
            floors[event.scope] = reader.meta(f"floor:{event.scope}") or 0
        if event.created_at > floors[event.scope] and counts[event.no] != event.matched:
            what = f"{event.matched} steps matched, {counts[event.no]} runs are there"
            yield Offence(5, f"event {event.id}", what)
