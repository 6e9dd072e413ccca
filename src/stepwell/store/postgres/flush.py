"""What a unit has to write, as acts with one parameter each: JSON rows, or keys. Pure.

Rows that two lanes may make or change at once go in the order of their names. Each waits for the other at the first
of them; in any other order, each could wait for the other.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct, defstruct

from stepwell.kernel.unit import CHANGED, NEW, Table, Unit
from stepwell.model.rows import Change, Output, Run
from stepwell.store.columns import columns
from stepwell.store.postgres.text import kept_text

Act: TypeAlias = tuple[str, Any]
LANE_KEPT_MS = 7 * 86_400_000

_COLUMNS = columns("run")
_SELDOM, _STATUS, _OFTEN = (_COLUMNS.index(name) for name in ("generation", "status", "head_seq"))
_seldom, _status = attrgetter(*_COLUMNS[_SELDOM:_STATUS]), attrgetter(*_COLUMNS[_STATUS:_OFTEN])
_json = msgspec.json.Encoder().encode
_NAME, _RUN_NAME = itemgetter(0), attrgetter("scope", "id")


def _tail(at: int) -> type[Struct]:
    """A run's number and its columns from one on: what did not change need not cross the wire."""
    return defstruct("Tail", [("no", int), *((name, Any) for name in _COLUMNS[at:])], gc=False)


_TAILS = {
    "flush/update_run": _tail(_SELDOM),
    "flush/update_run_status": _tail(_STATUS),
    "flush/advance_run": _tail(_OFTEN),
}


class Named(Struct, gc=False):
    """The key of a row to delete."""

    scope: str
    name: str


class Meta(Struct, gc=False):
    """A row of `meta`."""

    key: str
    value: int


def acts(unit: Unit, loaded: Mapping[int, Run], now: int) -> list[Act]:
    """Everything that the unit changed, and its change rows. `loaded`: its runs as they stand in the store."""
    changes = [Change(scope, 0, now, _json(touched).decode()) for scope, touched in unit.touched().items()]
    found = [*_runs(unit, loaded), *_tasks(unit), *_events(unit), *_appended(unit), *_small(unit), *_pruned(unit, now)]
    return [*found, *_rows("flush/insert_change", changes)]


def _rows(act: str, rows: Sequence[Struct]) -> Iterator[Act]:
    if rows:
        yield act, _json(rows).decode()


def _keys(act: str, keys: Collection[int]) -> Iterator[Act]:
    if keys:
        yield act, list(keys)


def _written(table: Table[Any, Any], *states: str) -> list[Any]:
    return [row for _, row in table.written(*states)] if table.dirty else []


def _by_name(table: Table[tuple[str, str], Any], *states: str) -> list[Any]:
    return [row for _, row in sorted(table.written(*states), key=_NAME)] if table.dirty else []


def _gone(act: str, table: Table[tuple[str, str], Any]) -> Iterator[Act]:
    if table.dirty:
        yield from _rows(act, [Named(*key) for key in sorted(table.gone())])


def _runs(unit: Unit, loaded: Mapping[int, Run]) -> Iterator[Act]:
    yield from _rows("flush/insert_run", sorted(_written(unit.runs, NEW), key=_RUN_NAME))
    changed: dict[str, list[Run]] = {}
    for number, run in unit.runs.written(CHANGED):
        changed.setdefault(_what_changed(loaded.get(number), run), []).append(run)
    for act, runs in changed.items():
        yield from _rows(act, [msgspec.convert(run, _TAILS[act], from_attributes=True) for run in runs])


def _what_changed(before: Run | None, run: Run) -> str:
    if before is None or _seldom(before) != _seldom(run):
        return "flush/update_run"
    return "flush/advance_run" if _status(before) == _status(run) else "flush/update_run_status"


def _tasks(unit: Unit) -> Iterator[Act]:
    yield from _rows("flush/insert_task", _written(unit.tasks, NEW))
    yield from _rows("flush/update_task", _written(unit.tasks, CHANGED))


def _events(unit: Unit) -> Iterator[Act]:
    yield from _rows("flush/insert_event", _by_name(unit.events, NEW))
    yield from _rows("flush/update_event", _written(unit.events, CHANGED))
    yield from _gone("flush/delete_event_blobs", unit.events)
    yield from _gone("flush/delete_event", unit.events)


def _appended(unit: Unit) -> Iterator[Act]:
    yield from _rows("flush/insert_entry", unit.entries)
    yield from _rows("flush/insert_output", [_kept(one) for one in unit.outputs])
    yield from _rows("flush/insert_message", unit.sent)
    yield from _keys("flush/delete_message", unit.delivered)
    yield from _rows("flush/insert_blob", _written(unit.blobs, NEW))


def _kept(output: Output) -> Output:
    text = kept_text(output.text)
    return output if text is output.text else msgspec.structs.replace(output, text=text)


def _small(unit: Unit) -> Iterator[Act]:
    yield from _rows("flush/put_manifest", _by_name(unit.manifests, NEW, CHANGED))
    yield from _rows("flush/put_pool", _by_name(unit.pools, NEW, CHANGED))
    # A new request is inserted, never put: one that another lane answered meanwhile is to be found, not replaced.
    yield from _rows("flush/insert_request", _by_name(unit.requests, NEW))
    yield from _rows("flush/update_request", _written(unit.requests, CHANGED))
    yield from _gone("flush/delete_manifest", unit.manifests)
    yield from _gone("flush/delete_pool", unit.pools)
    yield from _gone("flush/delete_request", unit.requests)
    for act, table, prefix in (
        ("flush/put_floor", unit.floors, "floor:"),
        ("flush/put_revision", unit.revisions, "revision:"),
    ):
        if table.dirty:
            yield from _rows(act, [Meta(prefix + key, value) for key, value in sorted(table.written(NEW, CHANGED))])


def _pruned(unit: Unit, now: int) -> Iterator[Act]:
    for what in ("_entries", "_tasks", "_outputs", "_blobs", ""):
        yield from _keys(f"flush/delete_run{what}", unit.pruned_runs)
    if unit.pruned_changes:
        for act in ("raise_floors", "delete_changes"):
            yield f"flush/{act}", [unit.pruned_changes]
        yield "flush/delete_lanes", [now - LANE_KEPT_MS]
