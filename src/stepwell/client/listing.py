"""Lists of runs: what is asked for as a filter of the store, by pages."""

import msgspec

from stepwell.client.connection import Connection
from stepwell.client.paged import Paged, Part
from stepwell.client.run import Run, run_of
from stepwell.functions.messages import need_text
from stepwell.model import rows
from stepwell.model.errors import Invalid
from stepwell.model.words import RESULT_STATUSES, STATUSES
from stepwell.store.port import Reader, RunFilter

#: How many runs one page looks at for those that have the tags: a page may be short, never slow.
LOOKED_AT = 1_000


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a list shows; None and {}: whatever it is."""

    status: str | None = None
    result_status: str | None = None
    name: str | None = None
    event_id: str | None = None
    tags: dict[str, str] = {}
    scope: str

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("status", self.status, STATUSES),
            ("result_status", self.result_status, RESULT_STATUSES),
        ):
            if value is not None and value not in allowed:
                raise Invalid(f"{name} must be one of {', '.join(allowed)}, not {value!r:.80}", hint="None is for all.")
        for name, value in (("name", self.name), ("event_id", self.event_id), ("scope", self.scope)):
            if value is not None:
                need_text(name, value, "a name or an id as it is stored")


def list_runs(connection: Connection, wanted: Wanted) -> Paged[Run]:
    """The runs that have all of this, newest first."""

    async def fetch(before: int | None, limit: int) -> Part[Run]:
        return await connection.engine.read(lambda reader: _part(reader, wanted, before, limit))

    return Paged(fetch)


def _part(reader: Reader, wanted: Wanted, before: int | None, limit: int) -> Part[Run]:
    event = None if wanted.event_id is None else reader.event(wanted.scope, wanted.event_id)
    if wanted.event_id is not None and event is None:
        return [], None
    where = RunFilter(
        scope=wanted.scope,
        status=wanted.status,
        result_status=wanted.result_status,
        name=wanted.name,
        event_no=None if event is None else event.no,
    )
    found: list[Run] = []
    looked_at = 0
    while len(found) < limit:
        page = reader.list_runs(where, limit=limit - len(found), before=before)
        found += [run_of(run) for run in page.rows if _tagged(run, wanted.tags)]
        looked_at, before = looked_at + len(page.rows), page.cursor
        if before is None or looked_at >= LOOKED_AT:
            break
    return found, before


def _tagged(run: rows.Run, tags: dict[str, str]) -> bool:
    if not tags:
        return True
    has = {} if run.tags is None else msgspec.json.decode(run.tags)
    return all(has.get(name) == value for name, value in tags.items())
