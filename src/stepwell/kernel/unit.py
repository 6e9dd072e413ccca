"""The unit of work: the rows that a batch loaded, what commands did to them, and the way back to a command's mark."""

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from copy import copy
from typing import Any, Generic, Literal, Protocol, TypeVar

from msgspec import Struct

from stepwell.kernel.calls import CALL_DEPTH, AppTables, Call, Called, Calls, Postponed, Undo
from stepwell.model.commands import Claim, Command
from stepwell.model.errors import UnknownFunction
from stepwell.model.rows import Blob, Entry, Event, Manifest, Message, Output, Pool, Request, Run, Task, Touched
from stepwell.model.settings import Settings

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
MISSING: Any = object()
NEW, CHANGED, GONE = "new", "changed", "gone"
TaskKey = tuple[int, int]
PoolKey = tuple[str, str, str | None]
#: Where a task stands among those of its key: priority, order, run, k.
Place = tuple[int, int, int, int]


class Mutations(Protocol):
    """The functions that run inside a lane's transaction."""

    @property
    def names(self) -> Collection[str]:
        """The mutations that are known here."""

    def call(self, unit: "Unit", call: Call, now: int) -> Called:
        """Runs one. What it raises is told in `Called`; only a failure of the store comes out, as `Away`."""


class Table(Generic[K, V]):
    """Rows by key. Every change is noted in the unit's undo log; `dirty` says what the store has to write."""

    __slots__ = ("_owned", "_undo", "dirty", "rows")

    def __init__(self, unit: "Unit") -> None:
        self.rows: dict[K, V] = {}
        self.dirty: dict[K, str] = {}
        self._undo, self._owned = unit.undo, unit.owned  # not the unit itself: see `Unit.close`

    def get(self, key: K) -> V | None:
        """The row, or None when it does not exist or was not loaded."""
        return self.rows.get(key)

    def seed(self, key: K, row: V) -> None:
        """Takes in a row from the store, unless the batch has it already, or has deleted it."""
        if key not in self.rows and key not in self.dirty:
            self.replace(key, row)

    def renew(self, key: K, row: V) -> None:
        """Takes in a row as it stands in the store now, unless a command of this batch has changed it."""
        if key not in self.dirty:
            self.replace(key, row)

    def replace(self, key: K, row: V) -> None:
        """What is known of a row now, with nothing to write.

        It goes with what is taken back: a store that goes back to a savepoint gives up the locks that came after it.
        """
        self._undo.append((self, key, self.rows.get(key, MISSING), self.dirty.get(key)))
        self.rows[key] = row

    def put(self, key: K, row: V) -> None:
        """Adds or replaces a row."""
        before = self.rows.get(key, MISSING)
        state = self.dirty.get(key)
        self._undo.append((self, key, before, state))
        self.rows[key] = row
        self.dirty[key] = NEW if state == NEW or (before is MISSING and state != GONE) else CHANGED

    def edit(self, key: K) -> V:
        """The row as this command may change it: a copy, made once a command."""
        row = self.rows[key]
        if id(row) in self._owned:
            return row
        mine = copy(row)
        self.put(key, mine)
        self._owned.add(id(mine))
        return mine

    def drop(self, key: K) -> None:
        """Deletes a row."""
        state = self.dirty.get(key)
        self._undo.append((self, key, self.rows.pop(key, MISSING), state))
        if state == NEW:
            del self.dirty[key]
        else:
            self.dirty[key] = GONE

    def restore(self, key: K, row: Any, state: str | None) -> None:
        """Takes one change back."""
        if row is MISSING:
            self.rows.pop(key, None)
        else:
            self.rows[key] = row
        if state is None:
            self.dirty.pop(key, None)
        else:
            self.dirty[key] = state

    def written(self, *states: str) -> Iterable[tuple[K, V]]:
        """Keys and rows that are in one of the states, in the order they got there."""
        return [(key, self.rows[key]) for key, state in self.dirty.items() if state in states]

    def gone(self) -> list[K]:
        """Keys of deleted rows."""
        return [key for key, state in self.dirty.items() if state == GONE]


class Reading(Struct, gc=False):
    """Something that a reply needs and that no rule looks at: read after the flush, before the commit.

    `what` is missed (deliverable entries with `after` < seq < `until`), own (those between that a worker numbered),
    at (the time of entry `until`), journal (the kept entries up to `until`), blob (the text of `hash`) or event. The
    store sets attribute `field` of `reply` to it.
    """

    reply: Any
    field: str
    what: Literal["missed", "own", "at", "journal", "blob", "event"]
    run_no: int = 0
    after: int = 0
    until: int = 0
    event_no: int = 0
    hash: str = ""


class Work(Struct, gc=False):
    """What the internal commands of the batch found to do, by the indexes of the store."""

    late: list[TaskKey] = []
    expired: list[TaskKey] = []
    dead: dict[str, list[TaskKey]] = {}
    overdue: list[int] = []
    due: list[TaskKey] = []
    messages: list[Message] = []
    left_out: bool = False  # there are messages for runs that another lane has
    blocked: list[TaskKey] = []
    #: The (scope, pool, key) that have a free slot for a blocked task of a run that another lane has.
    blocked_left: tuple[tuple[str, str, str], ...] = ()
    promoted_to: tuple[str, str, str] | None = None
    prune_runs: list[int] = []
    prune_events: list[tuple[str, str]] = []
    prune_requests: list[tuple[str, str]] = []
    prune_changes: int = 0


class Unit:
    """One batch's working memory. Stores fill it and write it; only `decide` changes it."""

    def __init__(
        self,
        settings: Settings,
        *,
        mutations: Mutations | None = None,
        app: AppTables | None = None,
        elsewhere: bool = False,
    ) -> None:
        self.settings = settings
        self.mutations, self.app = mutations, app
        self.bring: Callable[[Command], None] = _nothing  # loads for a command inside another one
        self.calls = Calls(app, elsewhere)
        self.undo: list[Undo] = []
        self.owned: set[int] = set()
        self.runs: Table[int, Run] = Table(self)
        self.ids: Table[tuple[str, str], int] = Table(self)
        self.tasks: Table[TaskKey, Task] = Table(self)
        self.events: Table[tuple[str, str], Event] = Table(self)
        self.manifests: Table[tuple[str, str], Manifest] = Table(self)
        self.revisions: Table[str, int] = Table(self)
        self.pools: Table[tuple[str, str], Pool] = Table(self)
        self.used: Table[PoolKey, int] = Table(self)
        self.first_blocked: Table[PoolKey, Place] = Table(self)  # as it was loaded, or before it: not after
        self.requests: Table[tuple[str, str], Request] = Table(self)
        self.floors: Table[str, int] = Table(self)
        self.blobs: Table[tuple[int, int, str], Blob] = Table(self)
        self.entries: list[Entry] = []
        self.outputs: list[Output] = []
        self.sent: list[Message] = []
        self.delivered: list[int] = []
        self.readings: list[Reading] = []
        self.pruned_runs: list[int] = []
        self.busy: set[int | tuple[str, str]] = set()  # runs that another lane has, by number and by (scope, id)
        self.looked_at: set[int] = set()  # runs that this batch must not write
        #: Runs whose bodies others wrote to, with what was the last entry for the body before this batch.
        self.woken: dict[int, int] = {}
        self.mutated: list[str] = []  # the mutations whose changes stand
        self.pruned_changes = 0
        self.next_no: Table[str, int] = Table(self)
        self.open_tasks: Table[int, tuple[int, ...]] = Table(self)
        self.children: Table[int, tuple[int, ...]] = Table(self)
        self.event_runs: Table[int, tuple[str, ...]] = Table(self)
        self.kept: dict[tuple[int, int], list[Entry]] = {}  # of a restart, by (run, keep_seq): see kernel.again
        self.candidates: dict[tuple[Any, ...], list[TaskKey]] = {}
        self.queues: dict[tuple[Any, ...], deque[TaskKey]] = {}
        self.cut_off = set[tuple[Any, ...]]()  # claims for which there may be more than was loaded
        self.ready_ahead: Table[tuple[str, str], bool] = Table(self)
        self.work = Work()
        self.lists: tuple[list[Any], ...] = (
            self.entries,
            self.outputs,
            self.sent,
            self.delivered,
            self.readings,
            self.pruned_runs,
            self.mutated,
        )

    def close(self) -> None:
        """The batch is over: lets go of what holds itself, since the collector would have to look for it every time."""
        self.undo.clear()
        self.bring = _nothing

    def mark(self) -> tuple[int, ...]:
        """From here `rollback` finds the way back. Marks nest: a part of a command may have its own."""
        self.owned.clear()
        return (
            len(self.undo),
            len(self.entries),
            len(self.outputs),
            len(self.sent),
            len(self.delivered),
            len(self.readings),
            len(self.pruned_runs),
            len(self.mutated),
        )

    def rollback(self, mark: tuple[int, ...]) -> None:
        """Takes back everything since the mark."""
        for table, key, row, state in reversed(self.undo[mark[0] :]):
            table.restore(key, row, state)
        for rows, length in zip((self.undo, *self.lists), mark, strict=True):
            del rows[length:]
        self.owned.clear()

    def is_stored_as(self, stored: str | None, text: str) -> bool:
        """Whether a row's payload is this text, wherever it is kept."""
        if stored is None or not stored.startswith("@"):
            return stored == text
        return stored[1:] == hashlib.sha256(text.encode()).hexdigest()

    def text(self, run_no: int, stored: str | None) -> str | None:
        """A payload as it was given. One that is kept elsewhere must have been loaded."""
        if stored is None or not stored.startswith("@"):
            return stored
        return self.blobs.rows[(run_no, 0, stored[1:])].data

    def spill(self, run_no: int, text: str | None, event_no: int = 0) -> str | None:
        """How a payload stands in its row: itself, or past the threshold `@` and its hash, with a blob row."""
        limit = self.settings.blob_over_bytes
        if text is None or len(text) * 4 <= limit:
            return text
        data = text.encode()
        if len(data) <= limit:
            return text
        digest = hashlib.sha256(data).hexdigest()
        key = (run_no, event_no, digest)
        if self.blobs.get(key) is None:
            self.blobs.put(key, Blob(run_no, event_no, digest, text))
        return "@" + digest

    def call(self, call: Call, now: int) -> Called:
        """Runs a mutation in this transaction. One that fails leaves nothing, in no table.

        Its savepoint stays open until the command is decided, so a refusal after the call takes it back, too.
        """
        function, calls = call.function, self.calls
        if self.mutations is None or function not in self.mutations.names:
            raise UnknownFunction(f"no mutation {function!r} here", function=function)
        if calls.depth >= CALL_DEPTH:
            raise UnknownFunction(f"{function!r} would be the {calls.depth + 1}th call in a call", function=function)
        if calls.full:
            raise Postponed
        if calls.elsewhere:
            raise UnknownFunction(f"{function!r} runs in another lane", function=function)
        mark = self.savepoint()
        calls.depth += 1
        try:
            called = self.mutations.call(self, call, now)
        finally:
            calls.depth -= 1
        if calls.depth == 0:
            calls.spent_ms += called.took_ms
        if called.done:
            self.mutated.append(function)
        else:
            self.rollback(mark)
        return called

    def savepoint(self) -> tuple[int, ...]:
        """A mark that `rollback` takes the app's tables back to as well."""
        mark = self.mark()
        self.undo.append(self.calls.save())
        return mark

    def take_no(self, kind: str) -> int:
        """The next internal number of a kind (run, event), from the block that the load reserved.

        A command that is refused later gives it back.
        """
        number = self.next_no.rows[kind]
        self.next_no.put(kind, number + 1)
        return number

    def run_by_id(self, scope: str, run_id: str) -> Run | None:
        """A loaded run by its id."""
        number = self.ids.get((scope, run_id))
        return None if number is None else self.runs.get(number)

    def touched(self) -> dict[str, Touched]:
        """What the commit touched, by scope; under "" what belongs to none: the tables of the app."""
        spans: dict[int, tuple[int, int]] = {}
        for entry in self.entries:
            spans[entry.run_no] = (spans.get(entry.run_no, (entry.seq,))[0], entry.seq)
        found: dict[str, Touched] = {}
        for number, span in spans.items():
            _of(found, self.runs.rows[number].scope).runs.append((number, *span))
        for name, scopes in self._touched_tables():
            for scope in sorted(scopes):
                _of(found, scope).tables.append(name)
        return found

    def _touched_tables(self) -> Iterator[tuple[str, set[str]]]:
        """The tables with the scopes whose rows were written."""
        for name in TABLES:
            if dirty := getattr(self, name).dirty:
                yield name, {scope for scope, _ in dirty}
        rows = self.runs.rows
        if self.outputs:
            yield "output", {rows[output.run_no].scope for output in self.outputs}
        if self.pruned_runs:
            yield "pruned", {rows[number].scope for number in self.pruned_runs}
        if self.mutated:
            yield "app", {""}

    @property
    def changed(self) -> bool:
        """Whether there is anything to flush."""
        return bool(
            any(self.lists[:4])
            or self.pruned_runs
            or self.mutated
            or self.pruned_changes
            or self.runs.dirty
            or self.tasks.dirty
            or any(getattr(self, name).dirty for name in (*TABLES, "requests", "floors", "blobs", "revisions"))
        )


TABLES = ("events", "manifests", "pools")


def _of(found: dict[str, Touched], scope: str) -> Touched:
    if scope not in found:
        found[scope] = Touched()
    return found[scope]


def claim_signature(claim: Claim) -> tuple[Any, ...]:
    """Claims with the same signature choose among the same candidates."""
    return (claim.pools, claim.requires, claim.scope)


def _nothing(command: Command) -> None:
    return
