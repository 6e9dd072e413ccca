"""The messages of JSON-RPC as structs, and how a line becomes one (source: spec codex-flows 3.2, wire)."""

import json
from typing import Any

from msgspec import Struct

METHOD_NOT_FOUND = -32_601
REFUSED = -32_603
MAX_MESSAGE_CHARS = 1_000


class Response(Struct, frozen=True):
    """An answer to a request of ours: a result, or an error with a code (0 when it has none) and a message."""

    id: int | str
    result: Any = None
    error: str | None = None
    code: int = 0


class Request(Struct, frozen=True):
    """What the other side asks of us."""

    id: int | str
    method: str


class Notification(Struct, frozen=True):
    """What the other side tells."""

    method: str
    params: dict[str, Any]


class Noise(Struct, frozen=True):
    """What is no message, and why."""

    reason: str


Message = Response | Request | Notification | Noise


def classify(line: str | bytes) -> Message:
    """Read one line. Nothing is raised, whatever it holds."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Noise(f"not JSON: {error!s:.100}")
    if not isinstance(value, dict):
        return Noise(f"not an object but a {type(value).__name__}")
    return _typed(value)


def _typed(value: dict[str, Any]) -> Message:
    number, method, params = value.get("id"), value.get("method"), value.get("params")
    if isinstance(method, str) and "id" not in value:
        return Notification(method, params if isinstance(params, dict) else {})
    if not isinstance(number, int | str):
        return Noise("neither a notification nor something with a usable id")
    if isinstance(method, str):
        return Request(number, method)
    if value.get("error") is not None:
        return _error(number, value["error"])
    return Response(number, value["result"]) if "result" in value else Noise("an answer without a result")


def _error(number: int | str, error: Any) -> Response:
    fields = error if isinstance(error, dict) else {"message": error}
    message, code = fields.get("message"), fields.get("code")
    text = message if isinstance(message, str) and message else json.dumps(error)
    return Response(number, error=shorten(text), code=code if isinstance(code, int) else 0)


def shorten(text: str) -> str:
    """A foreign message, as long as one wants to read it."""
    return text if len(text) <= MAX_MESSAGE_CHARS else text[: MAX_MESSAGE_CHARS - 3] + "..."


def request(number: int, method: str, params: dict[str, Any]) -> str:
    """A request on one line."""
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def notification(method: str) -> str:
    """A notification without parameters."""
    return json.dumps({"jsonrpc": "2.0", "method": method})


def refusal(number: int | str) -> str:
    """The answer to whatever the other side asks of us."""
    error = {"code": REFUSED, "message": "flow runner does not handle server requests"}
    return json.dumps({"jsonrpc": "2.0", "id": number, "error": error})
