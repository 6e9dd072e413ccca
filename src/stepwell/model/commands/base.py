"""What all commands share."""

from msgspec import Struct


class Command(Struct, gc=False):
    """Base of all commands."""


class Lease(Struct, frozen=True, gc=False):
    """What a worker holds: the task, the fencing epoch, and the token that was told once."""

    run_no: int
    k: int
    epoch: int
    token: str
