"""What anyone allowed may do to a run from outside, as commands."""

from msgspec import Struct

from stepwell.model.commands.base import Command
from stepwell.model.rows import Pool


class Signal(Command):
    """Appends a signal. Errors: ended, conflict (same dedup key, other payload)."""

    run_id: str
    name: str
    payload: str = "null"
    dedup: str | None = None
    by: str = ""
    scope: str = "main"


class Signaled(Struct, gc=False):
    """`seq` of the entry; or `moved_to`, the run that continues this one."""

    seq: int
    moved_to: str | None = None


class Cancel(Command):
    """Asks a run to end. Errors: ended."""

    run_id: str
    by: str = ""
    reason: str = ""
    scope: str = "main"


class Terminate(Command):
    """Ends a run without asking. Errors: ended."""

    run_id: str
    by: str = ""
    reason: str = ""
    scope: str = "main"


class HoldRun(Command):
    """Stops a run where it is. Errors: ended."""

    run_id: str
    reason: str = "paused"
    by: str = ""
    diff: str = ""
    scope: str = "main"


class ReleaseRun(Command):
    """Lets a held run go on; a run that is not held stays as it is. Errors: ended."""

    run_id: str
    by: str = ""
    scope: str = "main"


class Restart(Command):
    """Begins a new generation of an ended run, with the entries up to `keep_seq`. Errors: open."""

    run_id: str
    keep_seq: int = 0
    by: str = ""
    scope: str = "main"


class RunState(Struct, gc=False):
    """The run after the command."""

    run_id: str
    status: str
    generation: int
    hold: str | None = None


class SetPool(Command):
    """Creates or changes a pool; all None and not paused removes it.

    `limits_only`: a pause stays as it is, and one with these very limits is left alone, its bucket too.
    """

    pool: Pool
    limits_only: bool = False
