"""The table of routes: the server routes by it and `/openapi.json` is made of it, so they cannot differ."""

from typing import Any

from msgspec import Struct

from stepwell.model.words import RESULT_STATUSES, STATUSES
from stepwell.server.http import MAX_LIMIT

Schema = dict[str, Any]
JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"
TEXT_SCHEMA: Schema = {"type": "string"}
WHOLE = r"^[0-9]{0,18}$"
SWITCH: Schema = {"enum": ["", "0", "1", "true", "false"]}
WAIT: Schema = {"type": "string", "pattern": r"^(true|false|[0-2]?[0-9]{1,2}(\.[0-9]{1,3})?|300(\.0{1,3})?)?$"}


class Param(Struct, frozen=True):
    """A parameter of a query, or a header."""

    name: str
    about: str
    schema: Schema
    where: str = "query"


class Answer(Struct, frozen=True):
    """What a route says when all is well; `schema` names a component."""

    status: int
    about: str
    schema: str
    media: str = JSON


class Operation(Struct, frozen=True, kw_only=True):
    """One route with one method. `errors` are statuses beyond those that every route has."""

    id: str
    method: str
    path: str
    about: str
    answers: tuple[Answer, ...]
    params: tuple[Param, ...] = ()
    body: str | None = None
    body_needed: bool = False
    errors: tuple[int, ...] = ()
    open: bool = False  # asked by anybody, without a token


LIMIT = Param("limit", f"How many, at most {MAX_LIMIT}; 0 or nothing: 50.", {"type": "string", "pattern": WHOLE})
CURSOR = Param(
    "cursor", "Where the rest begins: the `cursor` of the page before.", {"type": "string", "pattern": WHOLE}
)
WAITING = Param("wait", "Answer when the runs have ended: true (30 s), or seconds up to 300.", WAIT)
LISTED = (LIMIT, CURSOR)
ACCEPTED = (Answer(202, "Durable. The same answer for a duplicate.", "Accepted"),)
CHANGED = (Answer(202, "The run after it.", "RunAnswer"),)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        id="listEvents", method="GET", path="/events", about="Events, newest first.",
        params=(Param("type", "Only of this type.", TEXT_SCHEMA), *LISTED),
        answers=(Answer(200, "A page.", "EventPage"),), errors=(422,),
    ),
    Operation(
        id="sendEvent", method="POST", path="/events", about="Accept an event and start what it matches.",
        params=(WAITING,), body="NewEvent", body_needed=True, answers=ACCEPTED, errors=(409, 429),
    ),
    Operation(
        id="sendFlowEvent", method="POST", path="/flow-events", about="The same as POST /events.",
        params=(WAITING,), body="NewEvent", body_needed=True, answers=ACCEPTED, errors=(409, 429),
    ),
    Operation(
        id="replayEvent", method="POST", path="/events/{id}/replay", about="Run a stored event again.",
        params=(WAITING,), body="Replay", answers=ACCEPTED, errors=(404, 409, 429),
    ),
    Operation(
        id="showEvent", method="GET", path="/events/{id}", about="An event and its runs.",
        answers=(Answer(200, "It.", "EventAnswer"),), errors=(404,),
    ),
    Operation(
        id="listRuns", method="GET", path="/runs", about="Runs, newest first.",
        params=(
            Param("eventId", "Only of this event.", TEXT_SCHEMA),
            Param("status", "Only in this status.", {"enum": list(STATUSES)}),
            Param("resultStatus", "Only those whose step said this.", {"enum": list(RESULT_STATUSES)}),
            Param("name", "Only of this FLOW/STEP.", TEXT_SCHEMA),
            Param("needsAttention", "true: only those that ask for somebody.", SWITCH),
            *LISTED,
        ),
        answers=(Answer(200, "A page.", "RunPage"),), errors=(422,),
    ),
    Operation(
        id="cancelRun", method="POST", path="/runs/{id}/cancel", about="Ask a run to end, or end it.",
        body="Cancel", answers=CHANGED, errors=(404, 409),
    ),
    Operation(
        id="retryRun", method="POST", path="/runs/{id}/retry", about="Run an ended run again; let a held one go on.",
        body="Nothing", answers=CHANGED, errors=(404, 409),
    ),
    Operation(
        id="runOutput", method="GET", path="/runs/{id}/output", about="What a run says: a page, or live.",
        params=(
            Param("after", "Only chunks after this number.", {"type": "string", "pattern": WHOLE}),
            LIMIT,
            Param("stream", "true: Server-Sent Events, as with Accept: text/event-stream.", SWITCH),
            Param("last-event-id", "Where a stream goes on.", {"type": "string", "pattern": WHOLE}, "header"),
        ),
        answers=(
            Answer(200, "A page; or events `output`, their number as id, and `end` with the run.", "OutputPage"),
            Answer(200, "", "Text", EVENTS),
        ),
        errors=(404, 422, 429),
    ),
    Operation(
        id="showRun", method="GET", path="/runs/{id}", about="A run with its attempts, journal and output.",
        params=(WAITING,), answers=(Answer(200, "It.", "RunAnswer"),), errors=(404, 422, 429),
    ),
    Operation(
        id="healthz", method="GET", path="/healthz", about="Alive, and the store has not given up.", open=True,
        answers=(Answer(200, "Well.", "Ok"),), errors=(503,),
    ),
    Operation(
        id="readyz", method="GET", path="/readyz", about="Can commit, and the worker here claims.", open=True,
        answers=(Answer(200, "Ready.", "Ready"),), errors=(503,),
    ),
    Operation(
        id="metrics", method="GET", path="/metrics", about="Numbers for Prometheus.",
        answers=(Answer(200, "Text format 0.0.4.", "Text", TEXT),),
    ),
    Operation(
        id="openapi", method="GET", path="/openapi.json", about="This document.",
        answers=(Answer(200, "OpenAPI 3.1.", "Document"),),
    ),
)  # fmt: skip


def by_path() -> dict[str, dict[str, Operation]]:
    """Operations by path and method; an action comes before the noun whose id could end like it."""
    found: dict[str, dict[str, Operation]] = {}
    for one in OPERATIONS:
        found.setdefault(one.path, {})[one.method] = one
    return found
