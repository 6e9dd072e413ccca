"""The OpenAPI 3.1 document of the server, made of the table of routes."""

from typing import Any

from stepwell.model.errors import BY_CODE
from stepwell.model.words import RESULT_STATUSES, STATUSES
from stepwell.server.routes import JSON, Answer, Operation, Param, Schema, by_path
from stepwell.server.waits import MAX_WAIT_S

ERRORS = {
    400: "Not readable: no JSON, bad percent-encoding, no UTF-8.",
    401: "No signature or token, or a wrong one.",
    403: "A host or an origin that is not allowed.",
    404: "No such event or run.",
    409: "Not now: `conflict`, `ended`, `open`, `outdated`.",
    413: "Too large.",
    415: "A content type or encoding that is not taken.",
    422: "Readable, and not what it must be; `field` says where.",
    429: "Too many requests wait already.",
    431: "The head of the request is too large.",
    503: "Cannot commit now. Safe to send again after a moment.",
}
#: What an error has beside its body.
HEADERS = {401: "www-authenticate", 429: "retry-after", 503: "retry-after"}
ALWAYS = (400, 401, 403, 431, 503)
WITH_BODY = (413, 415, 422)


def _text(**more: Any) -> Schema:
    return {"type": "string", **more}


def _object(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _closed(**properties: Schema) -> Schema:
    return {**_object(**properties), "additionalProperties": False}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


TIME = _text(format="date-time")
WHOLE = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}
LABEL = _text(minLength=1, maxLength=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
NOTE = {"anyOf": [LABEL, {"type": "null"}]}
SECONDS = {"type": ["boolean", "number", "null"], "minimum": 0, "maximum": MAX_WAIT_S}
RUN: dict[str, Schema] = {
    "id": _text(), "eventId": _text(), "flowName": _text(), "stepName": _text(), "name": _text(), "kind": _text(),
    "version": _text(), "status": {"enum": list(STATUSES)}, "resultStatus": {"enum": list(RESULT_STATUSES)},
    "needsAttention": FLAG, "hold": _text(), "generation": WHOLE, "replay": WHOLE, "backend": _text(),
    "result": {}, "resultJson": _text(), "error": _text(), "failure": {}, "tags": {}, "createdAt": TIME,
    "startedAt": TIME, "completedAt": TIME, "cancelRequestedAt": TIME, "why": _text(), "executor": _text(),
    "nextEventIds": _list(_text()), "stdout": _text(), "stderr": _text(), "attempts": _list(_ref("Attempt")),
    "journal": _list(_ref("Entry")), "output": _list(_ref("Output")),
}  # fmt: skip
SCHEMAS: dict[str, Schema] = {
    "Ok": _object("ok", ok={"const": True}),
    "Ready": _object(
        "ok",
        "worker",
        ok={"const": True},
        worker={"anyOf": [_object("slots", "busy", slots=WHOLE, busy=WHOLE), {"type": "null"}]},
    ),
    "Text": _text(),
    "Document": {"type": "object"},
    "Error": _object(
        "error",
        "code",
        "hint",
        error=_text(),
        code={"enum": sorted(BY_CODE)},
        hint=_text(description="What to do about it."),
    ),
    "NewEvent": _object(
        "id",
        "type",
        id=LABEL,
        type={**LABEL, "maxLength": 128},
        source=NOTE,
        occurredAt=NOTE,
        receivedAt={"description": "Ours, if it is no text."},
        payload={"description": "Any JSON; {} if it is left out."},
    ),
    "Event": _object(
        "id",
        "type",
        "receivedAt",
        "payload",
        "createdAt",
        id=_text(),
        type=_text(),
        source=_text(),
        occurredAt=_text(),
        receivedAt=_text(),
        payload={},
        createdAt=TIME,
        matched=WHOLE,
        replays=WHOLE,
        raw={"type": "object", "description": "The event as it was sent."},
        cause=_text(description="The run whose result sent it."),
        depth=WHOLE,
        misses={"description": "Why steps that listen to its type did not match."},
    ),
    "Run": _object("id", "name", "status", "createdAt", **RUN),
    "Attempt": _object(
        "id",
        "attempt",
        "startedAt",
        id=_text(),
        attempt=WHOLE,
        worker=_text(),
        executor=_text(),
        startedAt=TIME,
        endedAt=TIME,
        ended=_text(description="How: the end of the run, or why the attempt was over before it."),
        error=_text(),
        failure={},
        nextAt=TIME,
    ),
    "Entry": _object("seq", "kind", "at", "data", seq=WHOLE, kind=_text(), key=_text(), at=TIME, data={}),
    "Output": _object(
        "n", "attempt", "kind", "at", "text", n=WHOLE, attempt=WHOLE, kind=_text(), at=TIME, text=_text()
    ),
    "Accepted": _object(
        "status",
        "eventId",
        "runIds",
        "matched",
        status={"enum": ["accepted", "duplicate"]},
        eventId=_text(),
        runIds=_list(_text()),
        matched=WHOLE,
        runs=_list(_ref("Run")),
        ended=FLAG,
    ),
    "EventPage": _object("events", events=_list(_ref("Event")), cursor=_text()),
    "EventAnswer": _object("event", "runs", event=_ref("Event"), runs=_list(_ref("Run")), cursor=_text()),
    "RunPage": _object("runs", eventId=_text(), runs=_list(_ref("Run")), cursor=_text()),
    "RunAnswer": _object("run", run=_ref("Run"), ended=FLAG),
    "OutputPage": _object(
        "runId", "output", "next", "ended", runId=_text(), output=_list(_ref("Output")), next=WHOLE, ended=FLAG
    ),
    "Replay": _closed(wait=SECONDS, steps={**_list(_text()), "type": ["array", "null"], "maxItems": 100}),
    "Cancel": _closed(
        reason={"type": ["string", "null"], "maxLength": 256},
        terminate={"type": ["boolean", "null"], "description": "End it at once instead of asking."},
    ),
    "Nothing": _closed(),
}


def document(version: str, *, secured: bool) -> dict[str, Any]:
    """The document. `secured`: whether callers have to prove who they are."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stepwell",
            "version": version,
            "description": "Events in, durable runs out. See docs/http.md.",
        },
        "paths": {
            path: {method.lower(): _operation(one, secured) for method, one in methods.items()}
            for path, methods in by_path().items()
        },
        "components": {"schemas": SCHEMAS, "securitySchemes": SECURITY},
    }


SECURITY: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "signature": {"type": "apiKey", "in": "header", "name": "x-flow-signature-256"},
}


STAMP = Param(
    "x-flow-timestamp",
    "Unix seconds; then TIMESTAMP.METHOD.PATH?QUERY. is signed before the body. The server may ask for it.",
    _text(pattern="^[0-9]{1,12}$"),
    "header",
)


def _operation(one: Operation, secured: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": one.id,
        "summary": one.about,
        "parameters": [*_path_params(one), *(_param(param) for param in one.params)],
        "responses": _answers(one.answers) | {str(status): _error(status) for status in errors_of(one)},
    }
    if one.body is not None:
        found["requestBody"] = {"required": one.body_needed, "content": {JSON: {"schema": _ref(one.body)}}}
    if secured and not one.open:
        found["security"] = [{way: []} for way in (("signature",) if one.method == "POST" else ("bearer", "apiKey"))]
    if secured and one.method == "POST":
        found["parameters"].append(_param(STAMP))
    return found


def errors_of(one: Operation) -> list[int]:
    """Every status that a route may refuse with."""
    always = (431,) if one.open else ALWAYS
    return sorted({*always, *one.errors, *(WITH_BODY if one.method == "POST" else ())})


def _path_params(one: Operation) -> list[dict[str, Any]]:
    if "{id}" not in one.path:
        return []
    about = "Percent-encoded, with / as %2F."
    return [{"name": "id", "in": "path", "required": True, "description": about, "schema": _text(minLength=1)}]


def _param(param: Param) -> dict[str, Any]:
    return {"name": param.name, "in": param.where, "description": param.about, "schema": param.schema}


def _answers(answers: tuple[Answer, ...]) -> dict[str, Any]:
    """Answers with one status differ in their media type."""
    found: dict[str, Any] = {}
    for one in answers:
        entry = found.setdefault(str(one.status), {"description": one.about, "content": {}})
        entry["content"][one.media] = {"schema": _ref(one.schema)}
    return found


def _error(status: int) -> dict[str, Any]:
    found: dict[str, Any] = {"description": ERRORS[status], "content": {JSON: {"schema": _ref("Error")}}}
    if status in HEADERS:
        found["headers"] = {HEADERS[status]: {"required": True, "schema": _text()}}
    return found
