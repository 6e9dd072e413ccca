"""Ids and tokens as pure functions: what is random comes in as an argument (source: KERNEL, ids)."""

import base64
import hashlib
from functools import lru_cache

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [one + other for one in _CROCKFORD for other in _CROCKFORD]
MAX_ID_BYTES = 256
MAX_NAME_BYTES = 128


def flow_run_id(scope: str, event_id: str, flow: str, step: str, replay: int) -> str:
    """The id of the run of a flow step for an event: the same for the same five, and no two of them collide."""
    parts = "\0".join((scope, event_id, flow, step, str(replay)))
    digest = hashlib.sha256(parts.encode()).digest()
    return "run_" + base64.b32encode(digest).decode().lower()[:26]


def time_ordered_id(prefix: str, now_ms: int, entropy: bytes) -> str:
    """`prefix` and 26 characters that sort by time: 48 bits of milliseconds, 80 bits of `entropy`."""
    number = (now_ms & (1 << 48) - 1) << 80 | int.from_bytes(entropy[:10], "big")
    return prefix + "".join([_PAIRS[number >> shift & 1_023] for shift in range(120, -1, -10)])


def task_id(run_id: str, k: int) -> str:
    """`<run>.<k>`."""
    return f"{run_id}.{k}"


def attempt_id(run_id: str, k: int, attempt: int) -> str:
    """`<run>.<k>.<attempt>`."""
    return f"{task_id(run_id, k)}.{attempt}"


def lease_token(secret: str, run_no: int, k: int, epoch: int) -> str:
    """The 128-bit token of one lease, derived from the claimer's secret, so that a repeated claim tells it again."""
    return hashlib.sha256(f"{secret}\0{run_no}\0{k}\0{epoch}".encode()).hexdigest()[:32]


@lru_cache(maxsize=4_096)
def token_hash(token: str) -> str:
    """What is stored of a token. A worker writes many times under one."""
    return hashlib.sha256(token.encode()).hexdigest()


def unit_interval(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone: jitter that replays the same."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)
