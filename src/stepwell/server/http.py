"""HTTP in the small: answers, ids, queries, pages and bodies (source: spec codex-flows 4.6; limits and cursors)."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from stepwell.flows.jsonvalue import Bounds, parse_json
from stepwell.model.errors import Invalid, Malformed, StepwellError
from stepwell.store.port import Page

T = TypeVar("T")
#: Where a request's scope has its body.
BODY = "stepwell.body"
DEFAULT_LIMIT, MAX_LIMIT = 50, 500
#: A page ends early when what it holds gets over this many bytes; the cursor goes on from there.
PAGE_BYTES = 8 << 20
#: Rows read at once for a page: at a payload of the default bound, twice the bytes of a page.
AT_ONCE = 16
MAX_FIELDS = 100
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response. Nobody on the way keeps it: what it says may change with the next commit."""
    found = {"cache-control": "no-store", "x-content-type-options": "nosniff", **(headers or {})}
    return Response(msgspec.json.encode(value), status, found, media_type="application/json")


def refusal(error: StepwellError) -> Response:
    """An error as its answer: {error, code, hint} and its fields."""
    headers = {}
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="stepwell"'
    if error.status in (429, 503):
        headers["retry-after"] = "1"
    return answer(error.as_json(), error.status, headers)


# ── what a request names ─────────────────────────────────────────────────────────────────────────────────────────


def raw_target(scope: Scope) -> bytes:
    """Path and query as they came, before anything was decoded; no `?` when the query is empty."""
    query: bytes = scope["query_string"]
    return raw_path(scope) + (b"?" + query if query else b"")


def raw_path(scope: Scope) -> bytes:
    """The path as it came."""
    raw: bytes = scope["raw_path"]
    return raw


def decoded(raw: bytes, what: str) -> str:
    """Percent-encoded UTF-8 as text; `Malformed` for what is not exactly that."""
    if _BAD_PERCENT.search(raw):
        raise Malformed(f"{what} has a % without two hex digits", hint="Write a % itself as %25.", field=what)
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        hint = "Percent-encode the UTF-8 bytes of each character."
        raise Malformed(f"{what} is not UTF-8", hint=hint, field=what) from None


def path_id(request: Request, what: str) -> str:
    """The id in a path: it may hold `/`, `%` and anything else, percent-encoded."""
    return decoded(request.path_params["id"].encode("latin-1"), what)


def body_of(request: Request) -> bytes:
    """The body, which the guard has read and let in."""
    body: bytes = request.scope[BODY]
    return body


def query_of(request: Request) -> dict[str, str]:
    """The query's parameters, each given once."""
    raw: bytes = request.scope["query_string"]
    if not raw:
        return {}
    decoded(raw.replace(b"+", b" "), "the query")
    try:
        pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Malformed(f"the query has more than {MAX_FIELDS} parameters", hint="Send fewer.") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Invalid("a parameter of the query is given twice", hint="Give each parameter once.", field="query")
    return found


def whole(query: Mapping[str, str], name: str, default: int) -> int:
    """A parameter that is a whole number; `default` when it is absent or empty."""
    text = query.get(name, "")
    if text == "":
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise Invalid(
            f"{name} must be a whole number, not {text!r:.80}", hint="Leave it out for the default.", field=name
        )
    return int(text)


def one_of(query: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    """A parameter that is one of some words; None when it is absent."""
    value = query.get(name)
    if value is not None and value not in allowed:
        known = ", ".join(allowed)
        raise Invalid(f"{name} must be one of {known}, not {value!r:.80}", hint="Leave it out for all.", field=name)
    return value


def yes(query: Mapping[str, str], name: str) -> bool:
    """A parameter that is a switch: 1, true, 0, false or absent."""
    value = query.get(name, "")
    if value not in ("", "0", "1", "true", "false"):
        raise Invalid(f"{name} must be true or false, not {value!r:.80}", hint="Leave it out for false.", field=name)
    return value in ("1", "true")


def limit_of(query: Mapping[str, str]) -> int:
    """How many rows a page may have: 50 also for 0, at most 500 (source: seed)."""
    return min(whole(query, "limit", DEFAULT_LIMIT) or DEFAULT_LIMIT, MAX_LIMIT)


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Span(Struct, frozen=True):
    """Which part of a list is asked for: at most `limit` rows, before the cursor."""

    limit: int
    before: int | None


def span_of(query: Mapping[str, str]) -> Span:
    """`limit` and `cursor` of a list."""
    return Span(limit_of(query), whole(query, "cursor", -1) if query.get("cursor") else None)


def page_of(
    fetch: Callable[[int, int | None], Page], view: Callable[[Any], T], span: Span
) -> tuple[list[T], int | None]:
    """Views of rows until the page is full, by count or by bytes; and the cursor of the rest."""
    views: list[T] = []
    size, before = 0, span.before
    while True:
        page = fetch(min(span.limit - len(views), AT_ONCE), before)
        for row in page.rows:
            one = view(row)
            views.append(one)
            before, size = row.no, size + len(msgspec.json.encode(one))
            if size > PAGE_BYTES:
                break
        more = page.cursor is not None or bool(page.rows and before != page.rows[-1].no)
        if not more or len(views) >= span.limit or size > PAGE_BYTES:
            return views, before if more else None


def paged(name: str, rows: Sequence[Any], cursor: int | None) -> dict[str, Any]:
    """{name: rows, cursor?}."""
    return {name: rows} | ({} if cursor is None else {"cursor": str(cursor)})


def within_bytes(
    fetch: Callable[[int, int], list[T]], position: Callable[[T], int], size: Callable[[T], int], limit: int
) -> list[T]:
    """Rows after one another from the first, until there are `limit` of them or they have the bytes of a page."""
    rows: list[T] = []
    total = after = 0
    while len(rows) < limit and total <= PAGE_BYTES:
        got = fetch(after, min(limit - len(rows), AT_ONCE))
        if not got:
            break
        rows += got
        after, total = position(got[-1]), total + sum(map(size, got))
    return rows


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────


def fields_of(body: bytes, known: tuple[str, ...], limit: int) -> dict[str, Any]:
    """An optional JSON body that is an object with some of the `known` keys; empty is {}."""
    if not body:
        return {}
    value = parse_json(body, what="body", bounds=Bounds(max_bytes=limit))
    names = ", ".join(known)
    if not isinstance(value, dict):
        raise Invalid("the body must be a JSON object", hint=f"Its keys, all optional: {names}.", field="body")
    for name in value:
        if name not in known:
            raise Invalid(f"the body has an unknown key {name!r:.80}", hint=f"Its keys: {names}.", field="body")
    return value


def text_field(fields: Mapping[str, Any], name: str, max_bytes: int) -> str:
    """A key of a body that is a text; empty when it is absent."""
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value.encode()) > max_bytes:
        raise Invalid(
            f"{name} must be a text of at most {max_bytes} bytes", hint="Leave it out, or correct it.", field=name
        )
    return value


def flag_field(fields: Mapping[str, Any], name: str) -> bool:
    """A key of a body that is true or false; false when it is absent."""
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise Invalid(f"{name} must be true or false", hint="Leave it out for false.", field=name)
    return bool(value)
