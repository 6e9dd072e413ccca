"""The judge of a crowd sees what is wrong."""

import math
from pathlib import Path

import msgspec
import pytest

from tests.crash.crowd import Death
from tests.crash.crowd_app import RATE, Line
from tests.crash.crowd_judge import BEGINS, Said, beyond_rate, held_at_once, overtakings, seen_at_once, spans, waits


def said(*words: str) -> list[Said]:
    """Entries, each a commit: `c`reated, `b`egun, `e`nded or e`x`pired, and a run, whose key is its first letter."""
    kinds = {"c": "run.created", "b": BEGINS, "e": "run.completed", "x": "attempt.ended"}
    return [
        Said(word[1:], word[1], kinds[word[0]], 1_000 * at, float(at), at, '{"reason":"expired"}')
        for at, word in enumerate(words)
    ]


def test_it_counts_what_is_leased_at_once() -> None:
    held = held_at_once(said("bk1", "bl1", "ek1", "bk2", "xk2", "bl2", "bk2"))
    assert (held.leases, held.most, held.keys, held.expired_ms) == (5, 3, 2, [1_000])
    with pytest.raises(AssertionError, match="leased twice"):
        held_at_once(said("bk1", "bk1"))


def test_what_one_commit_ends_makes_room_for_what_it_begins() -> None:
    entries = said("bk1", "ek1", "bk2")
    entries[2].by = entries[1].by
    assert held_at_once(entries).keys == 1


def test_it_sees_who_overtakes_another_one_of_the_key() -> None:
    assert overtakings(said("ck1", "ck2", "cl1", "bl1", "bk1", "bk2")) == []
    assert overtakings(said("ck1", "ck2", "bk2", "bk1")) == [("k1", "k2")]
    at_once = said("ck1", "ck2", "bk2", "bk1")
    at_once[1].at = 0  # it was on its way before the other one was there
    assert overtakings(at_once) == []


def test_it_tells_how_long_each_waited() -> None:
    assert waits(said("ck-1", "cl-1", "bk-1", "ek-1", "bk-1", "bl-1"), "k") == [2.0]
    with pytest.raises(AssertionError, match="never leased"):
        waits(said("ck-1"), "k")


def test_it_sees_one_lease_more_than_a_rate_lets_through() -> None:
    entries = said(*["bk"] * (3 * RATE))
    for number, one in enumerate(entries):
        one.at = max(0, math.ceil((number + 1 - RATE) * 1_000 / RATE))  # a full bucket at once, and then as it fills
    assert -0.1 < beyond_rate(entries) <= 1e-6
    entries[-1].at = entries[-2].at
    assert beyond_rate(entries) > 0.9


def test_it_sees_who_holds_a_slot_until_the_end_of_the_process(tmp_path: Path) -> None:
    lines = [Line("a", True, 1.0, 7), Line("b", True, 2.0, 8), Line("a", False, 3.0, 7), Line("b", True, 5.0, 7)]
    lines += [Line("b", False, 6.0, 7), Line("c", True, 6.0, 9), Line("c", False, 7.0, 9)]
    log = tmp_path / "lines"
    log.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    found = list(spans(log, [Death(8, 5.5)]))
    assert sorted(found) == [("a", 1.0, 3.0), ("b", 2.0, 5.5), ("b", 5.0, 6.0), ("c", 6.0, 7.0)]
    assert seen_at_once(found, {"a": "k", "b": "l", "c": "l"}) == (2, 2)
    with pytest.raises(AssertionError, match="which lives"):
        list(spans(log, []))
