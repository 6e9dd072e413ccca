"""All that a store shows through its reader, as plain values that two stores can be compared by."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from msgspec import to_builtins

from stepwell.store.port import Reader, Store, scan_all


def snapshot(store: Store, scopes: Sequence[str] = ("main",)) -> dict[str, Any]:
    """Runs with their journals, tasks and outputs; events; what each scope has; and the heads of the store."""
    with closing(store.reader()) as reader:
        shown: dict[str, Any] = {"events": to_builtins(reader.scan_events())}
        for run in scan_all(reader):
            shown[f"run {run.no}"] = _run(reader, run.no)
        for scope in scopes:
            shown[f"pools {scope}"] = to_builtins(reader.pools(scope))
            shown[f"manifests {scope}"] = to_builtins(reader.manifests(scope))
            shown[f"meta {scope}"] = (reader.meta(f"revision:{scope}"), reader.meta(f"floor:{scope}"))
        shown["changes"] = to_builtins(reader.changes(after=0, limit=100_000))
        shown["head"], shown["next_due"] = reader.head(), reader.next_due()
        shown["counts"], shown["orphans"] = reader.counts(), reader.orphans()
        return shown


def _run(reader: Reader, number: int) -> Any:
    parts = (reader.run_by_no(number), reader.entries(number), reader.tasks_of(number), reader.output(number))
    return to_builtins((*parts, number in reader.messages_to([number])))
