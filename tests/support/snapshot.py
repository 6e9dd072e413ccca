"""All that a store shows through its reader, as plain values that two stores can be compared by."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import msgspec

from stepwell.model.entries import KINDS
from stepwell.store.port import Reader, Store, scan_all


def stamp(store: Store) -> None:
    """Gives positions to all changes that can have one now."""
    stamper = store.stamper("test")
    if stamper is not None:
        with closing(stamper):
            while stamper.stamp(10_000).more:
                pass


def snapshot(store: Store, scopes: Sequence[str] = ("main",)) -> dict[str, Any]:
    """Runs with their journals, tasks and outputs; events; what each scope has; and the heads of the store."""
    stamp(store)
    with closing(store.reader()) as reader:
        shown: dict[str, Any] = {"events": plain(reader.scan_events())}
        for run in scan_all(reader):
            shown[f"run {run.no}"] = _run(reader, run.no)
        for scope in scopes:
            shown[f"pools {scope}"] = plain(reader.pools(scope))
            shown[f"manifests {scope}"] = plain(reader.manifests(scope))
            shown[f"meta {scope}"] = (reader.meta(f"revision:{scope}"), reader.meta(f"floor:{scope}"))
        for scope in ("", *scopes):
            shown[f"changes {scope}"] = plain(reader.changes(scope, after=0, limit=100_000))
            shown[f"positions {scope}"] = (reader.floor(scope), reader.head(scope))
        shown["next_due"] = reader.next_due()
        shown["counts"], shown["orphans"] = reader.counts(), reader.orphans()
        return shown


def _run(reader: Reader, number: int) -> Any:
    parts = (reader.run_by_no(number), reader.entries(number), reader.tasks_of(number), reader.output(number))
    return plain((*parts, number in reader.messages_to([number])))


def plain(rows: Any) -> Any:
    """Rows and replies as plain values that two stores can be compared by.

    Whether an entry spells out a default depends on where a string came from, so bodies are compared with all their
    defaults, and the size of a journal is left to law 2.
    """
    return _whole(msgspec.to_builtins(rows))


def _whole(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_whole(one) for one in value]
    if not isinstance(value, dict):
        return value
    whole = {name: _whole(one) for name, one in value.items() if name != "journal_bytes"}
    if "seq" in value and value.get("kind") in KINDS:
        defaults = {field.name: field.default for field in msgspec.structs.fields(KINDS[value["kind"]])}
        whole["data"] = {**defaults, **msgspec.json.decode(value["data"])}
    return whole
