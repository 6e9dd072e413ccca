"""Two stores under two lanes that are sent the same: whatever one says, the other must say."""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

from stepwell.kernel.calls import Call
from stepwell.kernel.laws import check_run
from stepwell.model import commands as c
from stepwell.model.errors import Internal, StepwellError
from stepwell.model.settings import Settings
from stepwell.store.memory import MemoryStore
from stepwell.store.port import Store
from stepwell.store.postgres.store import PostgresStore
from tests.support import Bench, Clock, assert_lawful, open_store, plain, snapshot
from tests.support.mutations import Scripted

SCOPES = ("main", "b")
SETTINGS = Settings(
    lease_ms=10_000,
    blob_over_bytes=1_024,
    journal_entries=100,
    payload_bytes=4_096,
    output_bytes=1_024,
    lost_leases=3,
    event_retention_days=1,
    request_retention_h=1,
    change_retention=1_000,
)


class Crash(BaseException):
    """The process ends here."""


def mutation(call: Call) -> tuple[bool, str]:
    """A mutation that says what it was given."""
    return call.function != "m:bad", call.args


MUTATIONS = Scripted(mutation)


class Pair:
    """A memory store and a durable one, the same clock, the same names, and so the same answers."""

    def __init__(self, coverage: Counter[str], kind: str = "sqlite") -> None:
        self._kind = kind
        self._folder = tempfile.TemporaryDirectory(prefix="stepwell-")
        self.clock, self.coverage, self._crash_at = Clock(), coverage, ""
        self._memory = MemoryStore()
        self._opened = 0
        self.broken = False
        self._open()

    def _open(self) -> None:
        self._opened += 1
        durable = open_store(self._kind, Path(self._folder.name))
        if isinstance(durable, PostgresStore):
            _go_on(durable, self._memory.tables.next)
        self.stores: tuple[Store, Store] = (self._memory, durable)
        name = f"lane{self._opened}"
        self.benches = [
            Bench(
                store, settings=SETTINGS, clock=self.clock, mutations=Scripted(mutation), fault=self._fault, name=name
            )
            for store in self.stores
        ]

    def _fault(self, point: str) -> None:
        if point == self._crash_at:
            raise Crash

    def reopen(self) -> None:
        """What a new process does: nothing stays but the file."""
        for bench, store in zip(self.benches, self.stores, strict=True):
            bench.close()
            store.close()
        self._open()

    def crash(self, batch: Sequence[c.Command], point: str) -> None:
        """A process that dies in the middle of a batch leaves what was there before, or after `committed`, all."""
        before = snapshot(self.stores[1], SCOPES)
        self._crash_at = point
        for bench in self.benches:
            try:
                bench.all(*deepcopy(batch))
            except Crash:
                bench.lane._session.rollback()
        self._crash_at = ""
        self.reopen()
        if point != "committed":
            assert snapshot(self.stores[1], SCOPES) == before

    def send(self, *batch: c.Command) -> list[Any]:
        """The replies of one batch, which both stores give."""
        self.broken = True
        replies, others = (bench.all(*deepcopy(batch)) for bench in self.benches)
        for command, reply, other in zip(batch, replies, others, strict=True):
            assert shown(reply) == shown(other), f"{command}: memory, then {self._kind}"
            assert not isinstance(reply, Internal), (command, reply)
            refused = isinstance(reply, StepwellError)
            name = type(command).__name__
            self.coverage[f"{name} {reply.code}" if isinstance(reply, StepwellError) else name] += 1
            if refused and name in ("Sweep", "Bury", "Fire", "Deliver", "Promote", "Prune"):
                raise AssertionError(f"{name} was refused: {reply!r}")
        self._look()
        self.broken = False
        return replies

    def _look(self) -> None:
        """The laws of every run, after every batch; in memory, where that is cheap."""
        reader = self._memory.reader()
        runs = reader.scan_runs()
        told = reader.messages_to([run.no for run in runs])
        for run in runs:
            entries, tasks = reader.entries(run.no), reader.tasks_of(run.no)
            found = check_run(run, entries, tasks, expects_message=run.no in told, settings=SETTINGS)
            assert found == [], found

    def compare(self) -> None:
        """All that the two show is the same, and lawful."""
        memory, durable = (snapshot(store, SCOPES) for store in self.stores)
        for part in memory.keys() | durable.keys():
            assert memory.get(part) == durable.get(part), part
        for store in self.stores:
            assert_lawful(store, SETTINGS)

    def close(self) -> None:
        for bench, store in zip(self.benches, self.stores, strict=True):
            bench.close()
            store.close()
        self._folder.cleanup()


def _go_on(store: PostgresStore, following: Mapping[str, int]) -> None:
    """A process that died may leave a gap in the numbers of a sequence; without it, they can be compared."""
    with closing(store.connect()) as db:
        for kind in ("run", "event"):
            db.execute("select setval($1::regclass, $2, false)", (f"{kind}_no", following[kind]))


def shown(reply: Any) -> Any:
    """A reply, or a refusal, as values that can be compared."""
    if isinstance(reply, StepwellError):
        return reply.code, reply.message, reply.fields, plain(getattr(reply, "entries", []))
    return type(reply).__name__, plain(reply)
