"""Signals with a dedup key: the same key again is the same signal, for as long as requests are kept."""

import hashlib

import msgspec

from stepwell.kernel import check
from stepwell.kernel.unit import Unit
from stepwell.model.errors import Conflict
from stepwell.model.rows import Request, Run

HOUR_MS = 3_600_000


def dedup_key(scope: str, run_id: str, dedup: str) -> tuple[str, str]:
    """Under which request a signal with a dedup key is remembered."""
    check.run_id(dedup)
    digest = hashlib.sha256(f"{run_id}\0{dedup}".encode()).hexdigest()
    return scope, "signal:" + digest


def signal_hash(name: str, payload: str) -> str:
    """What tells two signals with one dedup key apart."""
    return hashlib.sha256(f"{name}\0{payload}".encode()).hexdigest()


def came_before(unit: Unit, run: Run, dedup: str, hashed: str) -> int | None:
    """The entry of the same signal, if the run's present journal has it. Raises `Conflict` if it is another signal."""
    before = unit.requests.get(dedup_key(run.scope, run.id, dedup))
    if before is None:
        return None
    generation, seq = msgspec.json.decode(before.reply, type=tuple[int, int])
    if generation != run.generation and seq > run.kept_seq:
        return None
    if before.body_hash != hashed:
        raise Conflict(f"signal {dedup!r} of run {run.id} came before with another payload")
    return int(seq)


def remember(unit: Unit, run: Run, dedup: str, hashed: str, seq: int, now: int) -> None:
    """Keeps the answer of a signal with a dedup key, for the generation that has it in its journal."""
    key = dedup_key(run.scope, run.id, dedup)
    reply = msgspec.json.encode((run.generation, seq)).decode()
    unit.requests.put(key, Request(*key, hashed, reply, now + unit.settings.request_retention_h * HOUR_MS))
