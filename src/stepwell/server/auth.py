"""Who may call: signatures, tokens, hosts and origins, as pure checks (source: spec codex-flows 4.7, faults 21 and 22).

A signature is `sha256=` and the HMAC-SHA256 of the raw body in lowercase hex. With `x-flow-timestamp` (Unix seconds)
`<timestamp>.<METHOD>.<path and query>.` stands before the body, so that it is good for one address and for a while.
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

from stepwell.model.errors import Forbidden, Malformed, Unauthorized
from stepwell.server.options import ServerOptions

#: The first that is there counts, the others are not looked at (source: seed, and its later names).
SIGNATURES = (b"x-flow-signature-256", b"x-patchbay-flow-signature-256", b"x-patch-flow-signature-256")
TIMESTAMP = b"x-flow-timestamp"
_SIGNATURE = re.compile(rb"sha256=[0-9a-f]{64}")
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^\[\]:@]*))(?::[0-9]*)?")
_SIGN_HINT = "Send x-flow-signature-256: sha256=HMAC_SHA256_HEX of the body with the shared secret; see docs/http.md."
_READ_HINT = "Send Authorization: Bearer TOKEN, or x-api-key: TOKEN; the secret is good for it, too."
Headers = Sequence[tuple[bytes, bytes]]


def header(headers: Headers, name: bytes) -> bytes | None:
    """A header that may be there once: two of them, and somebody on the way may have read the other."""
    found = [value for key, value in headers if key == name]
    if len(found) > 1:
        raise Malformed(f"the header {name.decode('latin-1')} is there twice", hint="Send it once.")
    return found[0].strip() if found else None


def signature_of(headers: Headers, options: ServerOptions, now_s: float) -> tuple[bytes, bytes]:
    """The signature, and the timestamp or nothing: checked as far as it can be before the body is there."""
    given = next((found for name in SIGNATURES if (found := header(headers, name)) is not None), None)
    if given is None:
        raise Unauthorized("no signature", hint=_SIGN_HINT)
    if not _SIGNATURE.fullmatch(given):
        raise Unauthorized("invalid signature", hint=_SIGN_HINT)
    at = header(headers, TIMESTAMP)
    if at is None:
        if options.require_timestamp:
            raise Unauthorized(
                "no x-flow-timestamp", hint="This server takes no signature without one; see docs/http.md."
            )
        return given, b""
    if not at.isdigit() or len(at) > 12 or abs(now_s - int(at)) > options.window_s:
        hint = f"It is the Unix time in seconds, at most {options.window_s} off. Check the sender's clock, sign anew."
        raise Unauthorized("x-flow-timestamp is outside of the window", hint=hint)
    return given, at


def check_signature(
    secrets: Iterable[str], signed: tuple[bytes, bytes], method: str, target: bytes, body: bytes
) -> None:
    """Raises `Unauthorized` unless one of the secrets made the signature. Takes as long for any of them."""
    given, at = signed
    head = b".".join((at, method.encode("latin-1"), target, b"")) if at else b""
    if not _any_equal(given, (sign(secret, head + body) for secret in secrets)):
        raise Unauthorized("invalid signature", hint=_SIGN_HINT)


def sign(secret: str, text: bytes) -> bytes:
    """The signature of a text."""
    return b"sha256=" + hmac.new(secret.encode(), text, sha256).hexdigest().encode()


def check_bearer(headers: Headers, options: ServerOptions) -> None:
    """Raises `Unauthorized` unless the token, or a secret, comes as a bearer or as an API key."""
    scheme, _, bearer = (header(headers, b"authorization") or b"").partition(b" ")
    given = bearer.strip() if scheme.lower() == b"bearer" else header(headers, b"x-api-key")
    if not given:
        raise Unauthorized("no token", hint=_READ_HINT)
    known = [*options.secrets, *([options.token] if options.token else [])]
    if not _any_equal(sha256(given).digest(), (sha256(one.encode()).digest() for one in known)):
        raise Unauthorized("invalid token", hint=_READ_HINT)


def _any_equal(given: bytes, known: Iterable[bytes]) -> bool:
    """Whether one is the same; looks at all of them, and at every byte."""
    found = [hmac.compare_digest(given, one) for one in known]
    return any(found)


# ── browsers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def check_host(headers: Headers, options: ServerOptions) -> None:
    """Without a secret: the name that the client used must be this machine's, else any web page could rebind to it."""
    host = (header(headers, b"host") or b"").decode("latin-1").lower()
    name = host_name(host)
    if not is_loopback(name) and not {host, name} & {one.lower() for one in options.allowed_hosts}:
        raise Forbidden(
            f"the host {host!r:.80} is not served without a secret",
            hint="Call it 127.0.0.1 or localhost, or set a secret, or STEPWELL_ALLOWED_HOSTS.",
        )


def check_origin(headers: Headers, options: ServerOptions) -> None:
    """A page of another site gets nothing, whatever it is allowed to send."""
    origin = header(headers, b"origin")
    if origin is None or allowed_origin(origin, options):
        return
    host = (header(headers, b"host") or b"").lower()
    scheme, _, place = origin.lower().partition(b"://")
    if scheme not in (b"http", b"https") or not host or place != host:
        raise Forbidden(
            f"the origin {origin.decode('latin-1')!r:.80} is not allowed",
            hint="Name it in STEPWELL_ALLOWED_ORIGINS, as scheme://host[:port].",
        )


def allowed_origin(origin: bytes, options: ServerOptions) -> bool:
    """Whether an origin was named as allowed."""
    return origin.decode("latin-1").lower() in {one.lower().rstrip("/") for one in options.allowed_origins}


def host_name(host: str) -> str:
    """`name` of `name:port`, an IPv6 address without its brackets; empty for what is no such thing."""
    found = _HOST.fullmatch(host)
    return "" if found is None else found["address"] or found["name"]


def is_loopback(name: str) -> bool:
    """Whether a name or an address is always this machine."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
