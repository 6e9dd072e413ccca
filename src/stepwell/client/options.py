"""What a client is told once: where the server is, who calls, how long it may take (source: spec codex-flows 6.1)."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from stepwell.model.errors import Invalid

MAX_TIMEOUT_S = 86_400.0
_PRINTABLE = re.compile(r"[\x21-\x7e]+\Z")


class ClientOptions(Struct, frozen=True, kw_only=True):
    """Times in seconds. Raises `Invalid` for what cannot work.

    `timeout_s` bounds one call with all its repeats, beside the time that it asks the server to wait; `tries` is how
    often a safe request is sent at most.
    """

    base_url: str
    token: str | None = None
    api_key: str | None = None
    secret: str | None = None
    timestamp: bool = True  # sign method, path and time as well; False: the body only, as the seed does
    timeout_s: float = 30.0
    tries: int = 6

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        for name in ("token", "api_key"):
            value = getattr(self, name)
            if value is not None and not _PRINTABLE.match(value):
                raise Invalid(f"{name} is empty or has characters that no header can hold", hint=f"Check the {name}.")
        if self.secret is not None and not self.secret.strip():
            raise Invalid("secret is empty", hint="Give the server's secret, or leave it out.")
        seconds("timeout_s", self.timeout_s, low=0.01)
        if isinstance(self.tries, bool) or not 1 <= self.tries <= 1_000:
            raise Invalid(f"tries must be from 1 to 1,000, not {self.tries!r}", hint="Leave it out for the default.")

    def __repr__(self) -> str:
        """Without the secrets: options end up in logs and tracebacks."""
        return f"ClientOptions(base_url={self.base_url!r})"


def seconds(name: str, value: object, *, low: float = 0.0, high: float = MAX_TIMEOUT_S) -> float:
    """A number of seconds within bounds, or `Invalid`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # refuses NaN, too
        raise Invalid(f"{name} must be from {low:g} to {high:,.0f} seconds, not {value!r:.80}", hint=f"Correct {name}.")
    return float(value)


def checked_headers(given: object) -> dict[str, str]:
    """Headers that can be sent as they are, or `Invalid`; their values are not shown."""
    if not isinstance(given, Mapping):
        hint = "Give a mapping of texts, or a function that returns one; async only in the async client."
        raise Invalid(f"headers must be a mapping, not {type(given).__name__}", hint=hint)
    for name, value in given.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise Invalid(f"a header cannot be named {name!r:.80}", hint="Correct it in `headers`.")
        if not isinstance(value, str) or not re.fullmatch(r"[\t\x20-\x7e]*", value):
            raise Invalid(f"the header {name} has a value that cannot be sent", hint="Use printable ASCII.")
    return dict(given)


def _check_url(base_url: str) -> None:
    hint = "Give the address of the server, as http://127.0.0.1:7345 or https://host/prefix."
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise Invalid("base_url is no address", hint=hint) from None
    if parts.username is not None or parts.password is not None:
        raise Invalid("base_url has a user or password in it", hint="Give them as token, api_key or headers.")
    if not usable or parts.query or parts.fragment or not _PRINTABLE.match(base_url):
        raise Invalid(f"base_url cannot be {base_url!r:.200}", hint=hint)
