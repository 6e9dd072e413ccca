"""The bounds of the kernel: each has a default, a range, and a setting `STEPWELL_` + upper case (source: KERNEL)."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from stepwell.model.errors import Invalid

KIB, MIB = 1 << 10, 1 << 20


class Settings(Struct, frozen=True, kw_only=True):
    """Times in milliseconds and sizes in bytes, unless the name says otherwise. `RANGES` has the bounds of each."""

    lease_ms: int = 120_000
    heartbeat_ms: int = 0  # 0: a third of the lease
    poll_ms: int = 1_000
    linger_ms: int = 5_000
    cancel_grace_ms: int = 30_000
    kill_grace_ms: int = 5_000
    resident_runs: int = 10_000
    batch_commands: int = 2_000
    queue_commands: int = 20_000
    payload_bytes: int = MIB
    blob_over_bytes: int = 64 * KIB
    journal_entries: int = 100_000
    journal_bytes: int = 64 * MIB
    output_bytes: int = 8 * MIB
    mutation_limit_ms: int = 1_000
    lanes: int = 2  # where the store takes several writers; SQLite takes one
    lost_leases: int = 5
    event_depth: int = 32
    event_retention_days: int = 30
    request_retention_h: int = 24
    change_retention: int = 100_000
    claim_limit: int = 1_000
    switch_us: int = 500  # 0: Python's own interval
    collect_objects: int = 20_000  # 0: Python's own threshold
    sync: Literal["full", "normal"] = "full"

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise Invalid(
                    f"setting {name} must be a whole number from {low:,} to {high:,}, not {value!r}",
                    hint=f"Set STEPWELL_{name.upper()} to a value in that range, or leave it out for the default.",
                )
        if self.sync not in ("full", "normal"):
            raise Invalid(
                f"setting sync must be full or normal, not {self.sync!r}",
                hint="normal may lose the last commits when the power fails; full never does.",
            )

    @property
    def beat_ms(self) -> int:
        """How often a worker extends its leases."""
        return self.heartbeat_ms or self.lease_ms // 3


RANGES: dict[str, tuple[int, int]] = {
    "lease_ms": (10_000, 1_800_000),
    "heartbeat_ms": (0, 600_000),
    "poll_ms": (10, 60_000),
    "linger_ms": (0, 600_000),
    "cancel_grace_ms": (0, 3_600_000),
    "kill_grace_ms": (0, 600_000),
    "resident_runs": (1, 1_000_000),
    "batch_commands": (1, 100_000),
    "queue_commands": (1, 1_000_000),
    "payload_bytes": (1_024, 256 * MIB),
    "blob_over_bytes": (1_024, 16 * MIB),
    "journal_entries": (100, 1_000_000),
    "journal_bytes": (64 * KIB, 1 << 30),
    "output_bytes": (1_024, 1 << 30),
    "mutation_limit_ms": (10, 60_000),
    "lanes": (1, 16),
    "lost_leases": (1, 1_000),
    "event_depth": (1, 1_000),
    "event_retention_days": (1, 36_500),
    "request_retention_h": (1, 8_760),
    "change_retention": (1_000, 100_000_000),
    "claim_limit": (1, 10_000),
    "switch_us": (0, 100_000),
    "collect_objects": (0, 10_000_000),
}


def settings_from(environ: Mapping[str, str]) -> Settings:
    """Settings from `STEPWELL_*` variables; an unusable value is `Invalid` and names the variable."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        text = environ.get(f"STEPWELL_{field.name.upper()}", "").strip()
        if text:
            values[field.name] = text if field.name == "sync" else _whole(field.name, text, field.default)
    return Settings(**values)


def _whole(name: str, text: str, default: int) -> int:
    try:
        return int(text)
    except ValueError:
        raise Invalid(
            f"STEPWELL_{name.upper()} must be a whole number, not {text!r:.80}",
            hint=f"The default is {default:,}; leave the variable out to use it.",
        ) from None
