"""Lists of runs: what is asked for as a filter of the store, by pages."""

import msgspec

from stepwell.client.connection import Connection
from stepwell.client.paged import Paged, Part
from stepwell.client.run import Run, run_of
from stepwell.functions.messages import need_text
from stepwell.model.errors import Invalid
from stepwell.model.words import RESULT_STATUSES, STATUSES
from stepwell.store.port import Reader, RunFilter


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
        tags=wanted.tags,
    )
    page = reader.list_runs(where, limit=limit, before=before)
    return [run_of(run) for run in page.rows], page.cursor
