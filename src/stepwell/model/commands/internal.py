"""What the lane asks of itself, as commands, each bounded."""

from msgspec import Struct

from stepwell.model.commands.base import Command


class Sweep(Command):
    """Ends expired leases, overdue cancels and run deadlines."""

    limit: int = 1_000


class Bury(Command):
    """Ends the leases of a worker whose death is proven, as those that ran out. Steps of flows keep theirs."""

    worker: str
    limit: int = 1_000


class Fire(Command):
    """Fires timers and makes due tasks ready."""

    limit: int = 1_000


class Deliver(Command):
    """Delivers messages to their runs."""

    limit: int = 500


class Promote(Command):
    """Makes blocked tasks ready whose pool key has a free slot.

    `keys` (scope, pool, key); none: `limit` of those there are, that come `after` one.
    """

    keys: tuple[tuple[str, str, str], ...] = ()
    after: tuple[str, str, str] = ("", "", "")
    limit: int = 1_000


class Prune(Command):
    """Deletes ended runs, events, requests and changes past their retention."""

    limit: int = 200


class Worked(Struct, gc=False):
    """How many rows an internal command handled, and whether its bound was reached.

    `soon`: others have under their hands what there is more to do; it is free in a moment. Promotions say it by `left`:
    the (scope, pool, key) that have a free slot for such a run.
    """

    count: int
    more: bool = False
    soon: bool = False
    left: tuple[tuple[str, str, str], ...] = ()
    after: tuple[str, str, str] | None = None  # of a promotion: where the rest begins
