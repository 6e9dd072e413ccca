"""Calls that a body has left under way when it ended: nobody hears of their results, so somebody is told of them."""

import logging
from collections.abc import Iterable

from stepwell.workflow.ops import Op

log = logging.getLogger("stepwell.workflow")
#: How many of them a line names.
NAMED = 5


def warn(run_id: str, ops: Iterable[Op]) -> None:
    """Tells of those among the operations whose end a body could have awaited."""
    left = [op for op in ops if op.future is not None and not op.over]
    if not left:
        return
    named = ", ".join(f"{op.describe()} ({op.key})" for op in left[:NAMED])
    more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    what = "run %s has ended with calls under way that nobody awaits, so they are dropped or canceled: %s%s"
    log.warning(what, run_id, named, more)
