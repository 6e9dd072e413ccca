"""Output: every task of a run counts what it said itself, so that a repeat is known whoever spoke in between."""

from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import ActionScheduled
from stepwell.model.rows import Output
from tests.support import Bench


def said(bench: Bench) -> list[Output]:
    with bench.reader() as reader:
        return reader.output(bench.run().no)


def test_two_actions_of_a_run_are_both_kept_and_repeats_of_each_are_known(bench: Bench) -> None:
    bench.record(bench.turn().lease, 1, ActionScheduled("m:f"), ActionScheduled("m:g"))
    one, two = (held.lease for held in bench.claim())
    batch = (
        c.Say(one, 0, (("stdout", "one a"),)),
        c.Say(two, 0, (("stdout", "two a"), ("stderr", "two b"))),
        c.Say(one, 1, (("stdout", "one b"),)),
    )
    assert [reply.next for reply in bench.all(*batch)] == [1, 2, 2]
    assert [bench.do(batch[place]).next for place in (1, 2)] == [2, 2], "the last of each again"
    bench.refused(c.Say(two, 1, (("stdout", "no"),) * 4), errors.OutOfStep)
    assert [row.text for row in said(bench)] == ["one a", "two a", "two b", "one b"]
    assert [row.n for row in said(bench)] == [1, 2, 3, 4]


def test_the_next_attempt_is_told_where_its_own_task_stopped(bench: Bench) -> None:
    bench.record(bench.turn().lease, 1, ActionScheduled("m:f"), ActionScheduled("m:g"))
    one, two = (held.lease for held in bench.claim())
    bench.do(c.Say(one, 0, (("stdout", "x"),)))
    bench.do(c.Say(two, 0, (("stdout", "y"),) * 3))
    bench.all(c.Release(one, 1), c.Release(two, 1))
    assert sorted(held.output_n for held in bench.claim()) == [1, 3]
