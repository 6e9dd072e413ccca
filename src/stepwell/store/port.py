"""The port: what a store must be able to do. Rules are not its business, and the kernel does not know which one it is.

A lane owns one `Session` and uses it on its own thread: begin, load, (decide), flush, read, commit. Anything that reads
without deciding owns a `Reader`; a reader sees committed rows only.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from stepwell.kernel.calls import AppTables
from stepwell.kernel.unit import PoolKey, Reading, TaskKey, Unit
from stepwell.model.rows import Blob, Change, Entry, Event, Manifest, Message, Output, Pool, Request, Run, Task

#: (pool, requires, scope) of ready tasks: what a claim tells apart.
Group: TypeAlias = tuple[str, str, str]
#: (scope, pool, key) of blocked tasks: what a promotion tells apart.
Key: TypeAlias = tuple[str, str, str]


class Share(Struct, frozen=True):
    """What a claim may take of a group whose keys have a limit.

    Its `first` tasks, whatever their keys; and, however many are before them, of each key as many as it has `free`
    slots, but only `most` in all.
    """

    first: int
    free: Mapping[str, int]
    most: int


class Retry(Exception):
    """The batch met another writer (busy, deadlock, serialisation): nothing was written, run it again."""


class Refused(Exception):
    """The store refuses rows of this batch (encoding, constraint): nothing was written, take the batch apart."""


class Unknowable(Exception):
    """The answer to a commit was lost: only the lane's row knows whether it happened."""


class Broken(Exception):
    """The store cannot write at all now (disk full, no connection, …): nothing of the batch was written."""


class Ahead(Struct, frozen=True):
    """What a batch is going to ask for first; a hint, for a store far away, which brings it as it begins.

    Runs to write, by number and by (scope, id), and tasks; requests; pools to lease from; the names of pools of which
    `ready_groups` or `any_ready` is asked, "" for all; how many numbers of each kind.
    """

    runs: frozenset[int] = frozenset()
    ids: frozenset[tuple[str, str]] = frozenset()
    tasks: frozenset[TaskKey] = frozenset()
    requests: frozenset[tuple[str, str]] = frozenset()
    pools: frozenset[tuple[str, str]] = frozenset()
    ready: frozenset[str] = frozenset()
    numbers: Mapping[str, int] = {}


NOTHING = Ahead()


class AppMigration(Struct, frozen=True):
    """One forward step of an app's own schema."""

    no: int
    name: str
    script: str
    hash: str


class Session(Protocol):
    """One lane's writing connection. Every method may raise one of the four exceptions above.

    What finds work (ready, late, expired, leased_by, overdue, due, messages, blocked, prunable_*) leaves out what
    another lane has under its hands, and never waits for it.
    """

    @property
    def now(self) -> int | None:
        """What the clock of the store's server said when the session was opened or last began, ms since the epoch.

        None: there is no such clock.
        """

    @property
    def heals(self) -> bool:
        """Whether a `Broken` store may work again while the lane is open, as a server that is started again does."""

    @property
    def app(self) -> AppTables:
        """The app's tables, in the transaction that is under way."""

    def begin(self, ahead: Ahead = NOTHING) -> None:
        """Begins a transaction that no other writer can interleave with."""

    def runs(self, numbers: Collection[int], ids: Collection[tuple[str, str]] = ()) -> list[Run]:
        """Runs to write, by number and by (scope, id). Once they are here, no other lane writes them or their tasks.

        Whoever has them at the moment is waited for.
        """

    def take(self, numbers: Collection[int], ids: Collection[tuple[str, str]] = ()) -> tuple[list[Run], list[Run]]:
        """As `runs`, but nobody is waited for: those to write, and those to look at that another lane has now."""

    def runs_by_no(self, numbers: Collection[int]) -> list[Run]:
        """Runs to look at: another lane may be writing them."""

    def runs_by_id(self, ids: Collection[tuple[str, str]]) -> list[Run]:
        """The same by (scope, id)."""

    def tasks(self, keys: Collection[TaskKey]) -> list[Task]: ...

    def open_tasks(self, runs: Collection[int]) -> list[Task]:
        """All tasks of the runs that are not done."""

    def children(self, runs: Collection[int]) -> list[tuple[int, int]]:
        """(parent, child) for every open attached child."""

    def events(self, keys: Collection[tuple[str, str]]) -> list[Event]: ...

    def event_runs(self, events: Collection[int]) -> list[tuple[int, str]]:
        """(event, run id) for every run of the events, in the order they were made."""

    def manifests(self, scopes: Collection[str]) -> list[Manifest]: ...

    def meta(self, keys: Collection[str]) -> list[tuple[str, int]]: ...

    def pools(self, keys: Collection[tuple[str, str]]) -> list[Pool]:
        """Pools to lease from: no other lane does until the commit. Whoever has them is waited for, as for runs."""

    def requests(self, keys: Collection[tuple[str, str]]) -> list[Request]: ...

    def leased_counts(self, slots: Sequence[PoolKey]) -> list[int]:
        """How many tasks of each (scope, pool, key) are leased; no key: of the pool."""

    def ready_groups(self, pools: Collection[str]) -> list[Group]:
        """The different (pool, requires, scope) among ready tasks; no pools: of all.

        Where there are very many, some of them, in turn: a claim looks at a bounded number.
        """

    def ready(self, wanted: Mapping[Group, int]) -> list[Task]:
        """The first ready tasks of each group by (priority, order), so many of each."""

    def ready_keys(self, groups: Collection[Group]) -> dict[Group, dict[str, int]]:
        """The different pool keys in each group, and how many tasks of each are leased in the pool.

        Where there are very many, some of them, in turn.
        """

    def ready_shares(self, shares: Mapping[Group, Share]) -> list[Task]:
        """The ready tasks of each share, each of its parts by (priority, order); what is in both comes once."""

    def any_ready(self, scope: str, pool: str) -> bool: ...

    def entries_of(self, run_no: int, kinds: Collection[str], until: int) -> list[Entry]:
        """A run's entries of some kinds up to one, in full; and all its restarts."""

    def blobs(self, keys: Collection[tuple[int, str]]) -> list[Blob]:
        """Payloads of runs that are kept elsewhere, by (run, hash)."""

    def late(self, now: int, limit: int) -> list[Task]:
        """Open tasks past their deadline, the longest past first."""

    def expired(self, now: int, limit: int) -> list[Task]: ...

    def leased_by(self, worker: str, limit: int) -> list[Task]:
        """Leased tasks of a worker, but no steps of flows; those first whose leases end first."""

    def overdue(self, now: int, asked_before: int, limit: int) -> list[Run]:
        """Open runs past their deadline, and those whose turn is leased and that were asked to cancel before a time."""

    def due(self, now: int, limit: int) -> list[Task]: ...

    def messages(self, limit: int, functions: Collection[str] = ()) -> tuple[list[Message], bool]:
        """The oldest messages; of callbacks (kind callback, key function) those that call one of `functions`.

        And whether some were left out.
        """

    def blocked_keys(self, after: Key, limit: int) -> list[Key]:
        """The different (scope, pool, key) among blocked tasks that come after one, in order."""

    def blocked(self, wanted: Mapping[Key, int]) -> list[Task]:
        """The first blocked tasks of each (scope, pool, key) by (priority, order), so many of each."""

    def blocked_besides(self, keys: Collection[Key], tasks: Collection[Task]) -> list[Key]:
        """Those of the (scope, pool, key) that have blocked tasks besides these, whoever has their runs."""

    def prunable_runs(self, before: int, limit: int) -> list[Run]:
        """Ended runs, oldest first, that ended before a time."""

    def prunable_events(self, before: int, runs: Collection[Run], limit: int) -> list[Event]:
        """Events accepted before a time that nothing matched, and those that have no run but these."""

    def prunable_requests(self, now: int, limit: int) -> list[Request]: ...

    def prunable_changes(self, keep: int, limit: int) -> int:
        """Up to which commit changes may go so that about `keep` stay, `limit` at a time; 0: nothing to do.

        The number is the store's own. What has no position yet stays.
        """

    def numbers(self, kind: str, count: int) -> int:
        """Reserves `count` internal numbers of a kind (run, event); answers the first. They are never given twice."""

    def flush(self, unit: Unit, now: int) -> None:
        """Writes the unit, its change rows, and the lane's own next number.

        Changes that are pruned raise the floors of their scopes.
        """

    def read(self, readings: Sequence[Reading]) -> None:
        """Fills what replies want from the journal, own flush included."""

    def commit(self) -> None: ...

    def abandon(self) -> None:
        """Ends a transaction that flushed nothing."""

    def rollback(self) -> None: ...

    def committed(self) -> bool:
        """After `Unknowable`: connects anew and reads from the lane's row whether the commit happened."""

    def close(self) -> None: ...


class Page(Struct, frozen=True):
    """Part of a list, newest first; `cursor` gets the next part, None at the end."""

    rows: list[Any]
    cursor: int | None


#: How many runs a page looks at for those with tags: it may be short, never slow.
LOOKED_AT = 50_000


class RunFilter(Struct, frozen=True, kw_only=True):
    """Which runs a list shows. None, and no tags: whatever it is. A page with `tags` may be short, and go on."""

    scope: str = "main"
    status: str | None = None
    result_status: str | None = None
    name: str | None = None
    event_no: int | None = None
    hold: str | None = None
    attention: bool = False
    tags: Mapping[str, str] = {}

    def fits_tags(self, tags: str | None) -> bool:
        """Whether a run with these tags, as JSON, has all that are asked for."""
        has = msgspec.json.decode(tags) if self.tags and tags else {}
        return all(has.get(name) == text for name, text in self.tags.items())


class Reader(Protocol):
    """A reading connection, for one thread at a time. Payloads come resolved: never a blob reference."""

    @property
    def app(self) -> AppTables:
        """The app's tables, to read."""

    def snapshot(self) -> AbstractContextManager[None]:
        """All that is read inside is of one moment. Keep it short: a store keeps what a snapshot may still need."""

    def run(self, scope: str, run_id: str) -> Run | None: ...

    def run_by_no(self, number: int) -> Run | None: ...

    def list_runs(self, where: RunFilter, *, limit: int, before: int | None = None) -> Page: ...

    def event(self, scope: str, event_id: str) -> Event | None: ...

    def event_by_no(self, number: int) -> Event | None: ...

    def list_events(self, scope: str, *, of_type: str | None = None, limit: int, before: int | None = None) -> Page: ...

    def entries(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Entry]: ...

    def state(self, run_no: int, name: str) -> str | None:
        """The last value of a name that the run's present journal sets, as JSON; None: never set."""

    def tasks_of(self, run_no: int, until: int | None = None) -> list[Task]:
        """Those of a run, by number; with `until`, of all runs from it to that one."""

    def output(self, run_no: int, *, after: int = 0, limit: int = 1_000) -> list[Output]: ...

    def pools(self, scope: str) -> list[Pool]: ...

    def manifests(self, scope: str) -> list[Manifest]: ...

    def meta(self, key: str) -> int | None: ...

    def changes(self, scope: str, *, after: int, limit: int = 1_000) -> list[Change]:
        """What commits did to a scope, in their order: positions `after + 1`, `after + 2` and so on.

        Those below the floor are gone: who asks for them has to read the scope anew. "" is what belongs to no scope.
        """

    def head(self, scope: str) -> int:
        """The position of the scope's last change; 0: it never had one.

        What was read in the same snapshot has all changes up to there, and may have later ones.
        """

    def floor(self, scope: str) -> int:
        """The position of the last change of the scope that was pruned; 0: none."""

    def others(self, lanes: Collection[str]) -> int:
        """A number that grows with each commit that is not one of these lanes', and with nothing else."""

    def next_due(self) -> int | None:
        """When the earliest timer, retry or delayed start is."""

    def scan_runs(self, *, after: int = 0, limit: int = 500) -> list[Run]:
        """Every run by number: for checks of the whole store."""

    def scan_entries(self, *, after: tuple[int, int], until: int, limit: int) -> list[Entry]:
        """Entries of all runs up to number `until`, by run and place, behind one that is named by both."""

    def scan_events(self, *, after: int = 0, limit: int = 500) -> list[Event]: ...

    def orphans(self, limit: int = 100) -> list[str]:
        """Rows that belong to nothing, named: entries, tasks, outputs and blobs without their run or event."""

    def first_run_counts(self, events: Collection[int]) -> dict[int, int]:
        """How many runs of the first dispatch each event has."""

    def messages_to(self, runs: Collection[int]) -> set[int]:
        """Which of the runs have a message that waits for delivery."""

    def counts(self) -> dict[str, int]:
        """Open runs by status, and tasks by state."""

    def close(self) -> None: ...


#: How long a text may be that processes say to each other.
SAID_BYTES = 7_900


class Stamped(Struct, frozen=True):
    """What became of a stamper's turn.

    `count`: changes that got a position now; `more`: others may have one at once. `waits_ms`: how old the oldest change
    is that waits, since a transaction that began before it is still under way. `held_ms`: how long another stamper has
    the duty at least.
    """

    count: int = 0
    more: bool = False
    waits_ms: int | None = None
    held_ms: int = 0


class Stamper(Protocol):
    """Gives changes their positions after the commit. One of all processes has the duty; two do no harm."""

    def stamp(self, limit: int) -> Stamped:
        """Takes a turn: about `limit` changes. Raises `Unavailable` where the store is not there."""

    def close(self) -> None:
        """Gives the duty back."""


class Store(Protocol):
    """A database."""

    @property
    def url(self) -> str: ...

    @property
    def many_lanes(self) -> bool:
        """Whether several sessions can commit at once; else a second one would only wait for the first."""

    @property
    def dialect(self) -> str:
        """Whose SQL its app speaks: sqlite or postgres."""

    def exists(self) -> bool:
        """Whether tables of Stepwell are there."""

    def migrate(self) -> None:
        """Brings the schema up to date; refuses one that is newer than this code."""

    def migrate_app(self, app: str, migrations: Sequence[AppMigration]) -> list[int]:
        """Applies what is missing of an app's migrations, each in a transaction; answers their numbers.

        Raises `Invalid` for one that changed after it was applied, that is not SQL, or that touches the kernel's.
        """

    def session(self, lane: str) -> Session: ...

    def reader(self) -> Reader: ...

    def stamper(self, holder: str) -> Stamper | None:
        """What gives changes their positions, for a process of that name; None where a commit does it by itself."""

    def listen(self, told: Callable[[str], None], say: Callable[[], Sequence[str]]) -> Callable[[], None] | None:
        """Joins the processes that tell each other of their commits, until the store is closed: hints.

        `told` hears what another one said, or "" when it may have missed something. Answers what to call, from any
        thread, when there is something to say; `say` is asked for it soon, texts of at most `SAID_BYTES`. None where
        nobody is told: look at `version`.
        """

    def version(self) -> int:
        """A number that changes when another connection or process has committed, and may change when none has.

        A look at memory that never waits.
        """

    def cut(self) -> None:
        """Ends every wait for a server that does not answer, as if it were not there. From any thread, once."""

    def close(self) -> None: ...


def scan_all(reader: Reader) -> Iterator[Run]:
    """Every run of a store, in bounded pages."""
    after = 0
    while page := reader.scan_runs(after=after):
        yield from page
        after = page[-1].no
