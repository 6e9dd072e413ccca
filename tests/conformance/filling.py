"""Rows to fill a store with, and transactions to do it in."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from stepwell.kernel.unit import Unit
from stepwell.model.rows import Blob, Entry, Event, Manifest, Message, Output, Pool, Request, Run, Task
from stepwell.model.settings import Settings
from stepwell.store.port import Reader, Session, Store

T = TypeVar("T")
NOW = 1_700_000_000_000
#: Ids and texts that something on the way could trip over.
ODD = ("a:b", "a/b", "100%", "#1", "it's", '"quoted"', "two words", "🦀", "naïve", "\\n", "a,b", "{}", "--", "x" * 256)


@contextmanager
def writing(session: Session, now: int = NOW) -> Iterator[Unit]:
    """A transaction that writes what its block puts into the unit."""
    session.begin()
    unit = Unit(Settings())
    yield unit
    sent(session, unit, now)


def sent(session: Session, unit: Unit, now: int = NOW) -> None:
    """Flushed and committed: a store may say at either that it refuses a row."""
    session.flush(unit, now)
    session.commit()


@contextmanager
def loading(session: Session) -> Iterator[Session]:
    """A transaction that only looks."""
    session.begin()
    yield session
    session.abandon()


def look(store: Store, query: Callable[[Reader], T]) -> T:
    with closing(store.reader()) as reader:
        return query(reader)


def run(no: int, run_id: str = "", **fields: Any) -> Run:
    made = Run(no, "main", run_id or f"r{no}", head_seq=1, created_at=NOW, updated_at=NOW)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def task(run_no: int, k: int = 1, **fields: Any) -> Task:
    made = Task(run_no, k, "main", "turn", "ready", "p")
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def event(no: int, event_id: str = "", **fields: Any) -> Event:
    made = Event(no, "main", event_id or f"e{no}", "t", "h", None, None, "2026", 0, 0, NOW, "{}")
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def put(unit: Unit, *rows: Any) -> None:
    """Puts rows of any table where a command would."""
    for row in rows:
        match row:
            case Run():
                unit.runs.put(row.no, row)
                unit.ids.put((row.scope, row.id), row.no)
                unit.next_no.put("run", max(row.no + 1, unit.next_no.get("run") or 0))
            case Task():
                unit.tasks.put((row.run_no, row.k), row)
            case Event():
                unit.events.put((row.scope, row.id), row)
                unit.next_no.put("event", max(row.no + 1, unit.next_no.get("event") or 0))
            case Manifest():
                unit.manifests.put((row.scope, row.name), row)
            case Pool():
                unit.pools.put((row.scope, row.name), row)
            case Request():
                unit.requests.put((row.scope, row.key), row)
            case Blob():
                unit.blobs.put((row.run_no, row.event_no, row.hash), row)
            case Entry():
                unit.entries.append(row)
            case Output():
                unit.outputs.append(row)
            case Message():
                unit.sent.append(row)


def fill(session: Session, *rows: Any) -> None:
    """One commit of these rows, and of a run for each task that would have none."""
    with writing(session) as unit:
        new = {row.no for row in rows if isinstance(row, Run)}
        without = {row.run_no for row in rows if isinstance(row, Task)} - new
        put(unit, *map(run, sorted(without - {one.no for one in session.runs(without)})))
        for row in rows:
            if isinstance(row, Entry | Output) and row.run_no not in new:
                unit.runs.seed(row.run_no, run(row.run_no))
        put(unit, *rows)


def entry(run_no: int, seq: int, kind: str = "step.completed", data: str = "{}", **fields: Any) -> Entry:
    made = Entry(run_no, seq, kind, None, 0, 1, NOW, data)
    for name, value in fields.items():
        setattr(made, name, value)
    return made
