"""Ids, tokens and delays are pure functions: deterministic, free of collisions, within their bounds."""

from itertools import product

import pytest

from stepwell.kernel.tasks import RetryPolicy, lost_at, retry_at, tokens
from stepwell.model.ids import (
    attempt_id,
    flow_run_id,
    lease_token,
    task_id,
    time_ordered_id,
    token_hash,
    unit_interval,
)
from stepwell.model.rows import Task

NOW = 1_700_000_000_000


def test_flow_run_ids_do_not_collide_where_joined_names_would() -> None:
    words = ("a", "b", "a/b", "A-b", "a-b", "A/b", "ab", "a#1", "é", "a b")
    parts = product(("main", "m"), words, words, words, (0, 1))
    ids = {flow_run_id(scope, event, flow, step, replay) for scope, event, flow, step, replay in parts}
    assert len(ids) == 2 * len(words) ** 3 * 2
    assert all(len(one) == 30 and one[4:].isalnum() and one == one.lower() for one in ids)


def test_flow_run_ids_are_the_same_for_ever() -> None:
    assert flow_run_id("main", "evt-1", "a/b", "A-b", 0) == "run_efzacjnh45376v5vyucywg7lst"


def test_time_ordered_ids_sort_by_time_and_keep_their_entropy() -> None:
    ids = [time_ordered_id("run_", NOW + i, bytes([255 - i] * 10)) for i in range(50)]
    assert ids == sorted(ids)
    assert len({time_ordered_id("run_", NOW, i.to_bytes(10, "big")) for i in range(1_000)}) == 1_000
    assert {len(one) for one in ids} == {30}


def test_task_and_attempt_ids_name_their_run() -> None:
    assert (task_id("run_x", 3), attempt_id("run_x", 3, 2)) == ("run_x.3", "run_x.3.2")


def test_tokens_depend_on_every_part_and_are_stored_hashed() -> None:
    told = {lease_token(*parts) for parts in product(("s", "t"), (1, 11), (1, 11), (1, 11))}
    assert len(told) == 16
    assert all(len(token) == 32 for token in told)
    assert token_hash("a") != token_hash("b")


def test_unit_interval_is_spread_over_its_range() -> None:
    drawn = [unit_interval("x", i) for i in range(2_000)]
    assert all(0 <= one < 1 for one in drawn)
    assert 0.45 < sum(drawn) / len(drawn) < 0.55
    assert unit_interval(1, 2) == unit_interval(1, 2) != unit_interval(12)


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.5), (0.5, 1.0), (0.999, 1.499)])
def test_a_delay_doubles_with_jitter_up_to_its_cap(jitter: float, share: float) -> None:
    policy = RetryPolicy(max_attempts=99, initial_ms=1_000, factor=2.0, max_ms=60_000)
    delays = [policy.delay_ms(failures, jitter) for failures in range(1, 90)]
    assert delays[:4] == [int(1_000 * 2**i * share) for i in range(4)]
    assert delays == sorted(delays)
    assert delays[-1] == 60_000


def retried(policy: str | None, failures: int, attempt: int = 1) -> int | None:
    task = Task(7, 1, "main", "action", "leased", "p", retry=policy, failures=failures, attempt=attempt)
    return retry_at(task, NOW)


def test_attempts_count_the_first() -> None:
    assert retried(None, failures=1) is None
    assert retried('{"max_attempts":3}', failures=3) is None
    assert retried('{"max_attempts":3}', failures=2) is not None


def test_jitter_differs_between_attempts_and_replays_the_same() -> None:
    policy = '{"max_attempts":9,"initial_ms":1000,"factor":1}'
    delays = [(retried(policy, failures=1, attempt=n) or 0) - NOW for n in range(200)]
    assert delays == [(retried(policy, failures=1, attempt=n) or 0) - NOW for n in range(200)]
    assert len(set(delays)) > 100
    assert min(delays) >= 500
    assert max(delays) < 1_500


def test_a_lost_lease_is_tried_at_once_and_then_backs_off() -> None:
    at = [lost_at(Task(7, 1, "main", "turn", "leased", "p", lost=lost), NOW) - NOW for lost in range(1, 12)]
    assert at[0] == 0
    assert 500 <= at[1] < 1_500
    assert max(at) <= 60_000
    assert at[-1] >= 30_000


def test_a_bucket_fills_to_its_rate_and_never_back() -> None:
    assert tokens(0.0, 5, 1_000, 200) == 1.0
    assert tokens(4.5, 5, 1_000, 10_000) == 5.0
    assert tokens(2.0, 5, 1_000, -500) == 2.0
