"""What a server is told at its start: who may call it, from where, and its bounds (source: spec codex-flows 4.7)."""

from pathlib import Path
from typing import Any

from msgspec import Struct

from stepwell.model.errors import Invalid

MAX_SECRETS = 8
MAX_SECRET_BYTES = 4_096


class ServerOptions(Struct, frozen=True, kw_only=True):
    """Seconds and counts. `secrets` newest first: any of them signs, so that one can be replaced without a pause.

    Without a secret the server takes whoever is on this machine, and only under a loopback name.
    """

    secrets: tuple[str, ...] = ()
    token: str | None = None  # for reading, beside the secrets
    window_s: int = 300  # how far the clock of a sender with a timestamp may be off
    require_timestamp: bool = False
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    events_dir: Path | None = None
    waits: int = 256  # open waits and streams
    connections: int = 512
    head_s: float = 10.0  # for the head of a request to come whole
    body_s: float = 30.0  # for its body
    linger_s: float = 5.0  # for the rest of a body that was refused: it is taken, and dropped
    stalled_s: float = 60.0  # for a client to take what was sent
    beat_s: float = 15.0  # between comments in a stream where nothing happens

    def __post_init__(self) -> None:
        _check_secrets(self.secrets)
        if self.token is not None:
            _check_secrets((self.token,))
            if not self.secrets:
                raise Invalid(
                    "a token without a secret leaves everything open that changes something",
                    hint="Set STEPWELL_SECRET as well: it signs what is sent, the token is for reading.",
                )
        _check_range("window_s", self.window_s, 1, 86_400)
        _check_range("waits", self.waits, 1, 100_000)
        _check_range("connections", self.connections, 1, 100_000)
        for name in ("head_s", "body_s", "linger_s", "stalled_s", "beat_s"):
            _check_range(name, getattr(self, name), 0.01, 3_600)

    def __repr__(self) -> str:
        """Without the secrets: options end up in logs and tracebacks."""
        return f"ServerOptions(secured={self.secured}, events_dir={self.events_dir!r})"

    @property
    def secured(self) -> bool:
        """Whether callers have to prove who they are."""
        return bool(self.secrets)


def _check_secrets(secrets: tuple[str, ...]) -> None:
    if len(secrets) > MAX_SECRETS:
        raise Invalid(f"{len(secrets)} secrets, at most {MAX_SECRETS}", hint="Keep the present one and the one before.")
    if any(not 1 <= len(secret.encode()) <= MAX_SECRET_BYTES or secret != secret.strip() for secret in secrets):
        raise Invalid(
            f"a secret or token is empty, longer than {MAX_SECRET_BYTES:,} bytes, or has spaces around it",
            hint="Make one with `openssl rand -hex 32`.",
        )


def _check_range(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not low <= value <= high:  # also refuses NaN
        raise Invalid(f"{name} must be from {low:,} to {high:,}, not {value!r}", hint="Leave it out for the default.")
