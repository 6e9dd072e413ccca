"""Parents and children: who may cancel whom, and what goes on with a run that continues as new."""

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ChildStarted
from stepwell.model.rows import Message
from stepwell.store.memory import MemoryStore
from tests.support import Bench


def child(run_id: str, key: str, *, attached: bool = True) -> c.Draft:
    return c.Draft(ChildStarted(child=run_id, name="cw", attached=attached), key)


def with_child(bench: Bench) -> tuple[c.Lease, c.Lease]:
    """The leases of run `r` and of its child `kid`."""
    parent = bench.turn()
    bench.do(c.Record(parent.lease, 1, parent.seen, (child("kid", "k"),)))
    (kid,) = bench.claim()
    return parent.lease, kid.lease


def deliver_all(bench: Bench) -> None:
    """As the role does: one that is sent on is a message again."""
    while bench.do(c.Deliver()).count:
        pass


def test_a_refused_record_leaves_no_unborn_child_to_cancel(bench: Bench) -> None:
    lease, _ = with_child(bench)
    kid = bench.run("kid").no
    bench.start("taken", pool="elsewhere")
    refused, _ = bench.all(c.Record(lease, 2, 9, (child("unborn", "a"), child("kid3", ""))), c.Terminate("r"))
    assert type(refused) is errors.Invalid
    with bench.reader() as reader:
        assert reader.messages_to(range(100)) == {kid}, "another run gets the number of the unborn one"
    deliver_all(bench)
    assert bench.run("taken").cancel_at is None


def test_a_cancel_of_a_run_that_is_not_the_parent_is_ignored(bench: Bench) -> None:
    lease, kid = with_child(bench)
    stranger, victim = bench.start("stranger"), bench.start("victim")
    for sender, receiver in ((stranger.run_no, victim.run_no), (stranger.run_no, kid.run_no)):
        send(bench, Message(0, "main", receiver, sender, 1, "cancel", None, bench.clock.now, '{"reason":"ha"}'))
    bench.settle()
    assert [bench.run(one).cancel_at for one in ("victim", "kid")] == [None, None]
    bench.do(c.Finish(lease, 2, c.Completed()))
    bench.settle()
    assert bench.run("kid").cancel_at is not None, "its parent may"


def send(bench: Bench, message: Message) -> None:
    """Puts a message where a run that lies about itself would."""
    assert isinstance(bench.store, MemoryStore)
    tables = bench.store.tables
    message.no = tables.take("message")
    tables.messages[message.no] = message


def test_the_cancel_of_a_parent_follows_a_child_that_continued(bench: Bench) -> None:
    _, kid = with_child(bench)
    bench.do(c.Terminate("r"))
    bench.do(c.Finish(kid, 1, c.Continued("kid2", "null", 99)))
    deliver_all(bench)
    assert bench.run("kid2").status == "canceled", "no code of it ever ran"


def test_a_cancel_follows_along_a_chain_of_runs(bench: Bench) -> None:
    _, kid = with_child(bench)
    bench.do(c.Terminate("r"))
    for number, lease in enumerate((kid, None, None), 2):
        held = lease or bench.claim()[0].lease
        bench.do(c.Finish(held, 1, c.Continued(f"kid{number}", "null", 99)))
    deliver_all(bench)
    assert bench.run("kid4").status == "canceled"


def test_a_run_that_continues_takes_its_cancel_and_its_deadline_along(bench: Bench) -> None:
    deadline = bench.clock.now + 60_000
    lease = bench.turn(deadline=deadline).lease
    bench.do(c.Cancel("r"))
    bench.do(c.Finish(lease, 1, c.Continued("r2", "null", 99)))
    after = bench.run("r2")
    assert (after.cancel_at, after.deadline) == (bench.clock.now, deadline)
    assert bench.do(c.Cancel("r2")).status == "queued"
    assert [entry.kind for entry in bench.journal("r2")].count("cancel.requested") == 1, "it was asked once"
    (held,) = bench.claim()
    (beat,) = bench.do(c.Sync("w", (c.Beat(held.lease),))).tasks
    assert beat.cancel
    bench.clock.now = deadline
    bench.do(c.Sweep())
    assert bench.run("r2").status == "failed"
