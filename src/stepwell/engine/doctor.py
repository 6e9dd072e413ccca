"""The doctor: checks every law that data can show, on a store of any size, in bounded memory."""

from collections.abc import Callable, Iterator

from msgspec import Struct

from stepwell.kernel.laws import Offence, check_run
from stepwell.model.rows import Entry, Event, Run
from stepwell.model.settings import Settings
from stepwell.store.port import Reader

PAGE = 100
#: A journal longer than this is checked in full all the same, but read in pages of this many entries.
ENTRIES = 5_000


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
        for run in runs:
            yield from _run(reader, run, run.no in told, settings, checked)
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


def _run(reader: Reader, run: Run, told: bool, settings: Settings, checked: Checked) -> list[Offence]:
    offences: list[Offence] = []
    for _ in range(5):
        entries = list(_journal(reader, run.no))
        tasks = reader.tasks_of(run.no)
        offences = check_run(run, entries, tasks, expects_message=told, settings=settings)
        if not offences:
            break
        again = reader.run_by_no(run.no)
        if again is None:
            return []
        told = bool(reader.messages_to([run.no]))
        if again == run and len(entries) == again.head_seq and tasks == reader.tasks_of(run.no):
            break
        run = again
    checked.runs += 1
    checked.entries += run.head_seq
    return offences


def _journal(reader: Reader, run_no: int) -> Iterator[Entry]:
    after, full = 0, True
    while full and (page := reader.entries(run_no, after=after, limit=ENTRIES)):
        yield from page
        after, full = page[-1].seq, len(page) == ENTRIES


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
