"""One life that is certain to hear every refusal that chance seldom meets, on both stores."""

from collections import Counter

from stepwell.model import commands as c
from stepwell.model.entries import ActionScheduled, ChildStarted, StepCompleted
from tests.properties.pair import Pair

EVENT = c.NewEvent("e", "t", "2026", "h")


def live(coverage: Counter[str], kind: str = "sqlite") -> None:
    """Sends it, one command a batch."""
    pair = Pair(coverage, kind)
    (started,) = pair.send(c.StartRun("r", "wf", claim_for=c.ClaimFor("w", 10_000, "s")))
    lease, result = started.claim.lease, (c.Draft(StepCompleted(), "s"),)
    children = (c.Draft(ChildStarted("kid", "w"), "c"), c.Draft(ActionScheduled("m:f"), "a"))
    forbidden = c.Record(lease, 3, 99, ())
    for command in (
        c.Record(lease, 1, 99, children),
        c.Signal("r", "go"),
        c.Park(lease, 2, 0, ("signal:x",)),
        c.Record(lease, 2, 99, (c.Draft(ChildStarted("kid", "w"), "again"),)),
        c.Finish(lease, 2, c.Continued("r2", "1", 99)),
        c.Record(lease, 2, 99, result),
        forbidden,
        c.Record(lease, 9, 99, result),
        c.Restart("r"),
        c.StartRun("r", "wf", reuse="raise"),
        c.StartRun("r", "wf", "2"),
        c.AcceptEvent(EVENT, manifests_at=7),
        c.AcceptEvent(EVENT),
        c.ReplayEvent("e"),
        c.Signal("nobody", "go"),
        c.Terminate("r"),
        c.Signal("r", "go"),
        c.Restart("r"),
        c.Record(lease, 5, 99, result),
    ):
        pair.send(command)
    pair.compare()
    pair.close()
