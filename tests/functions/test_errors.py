"""Errors, how they are recorded and read back, and retry policies."""

import asyncio
import pickle
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from stepwell.functions import failures
from stepwell.functions.errors import (
    AppError,
    ArgumentError,
    NonRetryable,
    NotJson,
    RunCanceled,
    RunError,
    RunTerminated,
    SignalTimeout,
    StepError,
    StepTimeout,
)
from stepwell.functions.failures import failure_json, run_error, step_error
from stepwell.functions.retry import Retry, duration_ms
from stepwell.kernel.tasks import RetryPolicy, check_retry
from stepwell.model.errors import Invalid, StepwellError


class CardDeclined(NonRetryable):
    """As users write it."""


class Forgetful(StepwellError):
    def __init__(self) -> None:
        """Does not call its base."""


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301 - to get its traceback
    except BaseException as caught:
        return caught


def read(error: BaseException, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(failure_json(error, **more))
    return found


def test_a_failure_has_one_shape() -> None:
    said = read(raised(ValueError("no money")), attempts=3)
    assert set(said) == {"type", "message", "traceback", "attempts"}
    assert (said["type"], said["message"], said["attempts"]) == ("ValueError", "no money", 3)
    assert said["traceback"].startswith("Traceback (most recent call last):")
    assert said["traceback"].endswith("ValueError: no money\n")
    assert read(ValueError("never raised")) == {"type": "ValueError", "message": "never raised"}


@pytest.mark.parametrize("error", [AppError({"cents": 3}), CardDeclined("no", data={"cents": 3})])
def test_data_survives_and_so_does_the_type_through_many_bodies(error: StepwellError) -> None:
    text = failure_json(raised(error), attempts=2)
    for _ in range(3):
        told = step_error(text)
        assert (told.type, told.data, told.attempts) == (type(error).__name__, {"cents": 3}, 2)
        assert told.message == error.message == str(told)
        text = failure_json(raised(told))
    run = run_error(text)
    assert (run.type, run.data, type(run)) == (type(error).__name__, {"cents": 3}, RunError)
    assert "test_errors.py" in run.traceback


def test_a_hint_that_was_given_survives_and_what_classes_say_is_not_recorded() -> None:
    error = NonRetryable("declined", hint="Use another card.")
    told = step_error(failure_json(raised(step_error(failure_json(error)))))
    assert told.hint == run_error(failure_json(told)).hint == "Use another card."
    assert read(StepwellError("odd", hint="\ud800" * 3_000))["hint"]
    for plain in (NonRetryable("no"), AppError(1), StepError("no"), StepTimeout("late"), RunError("no"), Forgetful()):
        assert "hint" not in read(plain)
    assert step_error(failure_json(StepTimeout("late"))).hint == StepTimeout.default_hint
    assert step_error(failure_json(Invalid("no such pool"))).hint == Invalid.default_hint


def test_the_remote_traceback_is_shown_with_the_error() -> None:
    told = step_error(failure_json(raised(ValueError("deep inside"))))
    assert "deep inside" in told.__notes__[0]
    assert "deep inside" in failure_json(raised(told))


def test_a_timeout_is_a_timeout_again() -> None:
    told = step_error(failure_json(StepTimeout("too slow"), attempts=2))
    assert isinstance(told, StepTimeout)
    assert isinstance(told, TimeoutError)
    assert (str(told), told.attempts, told.code) == ("too slow", 2, "step_timeout")
    assert isinstance(SignalTimeout("none came"), TimeoutError)


def test_ends_of_runs() -> None:
    assert type(run_error(None, "canceled")) is RunCanceled
    assert type(run_error('{"message":"by ann"}', "terminated")) is RunTerminated
    assert run_error(None, "terminated").code == "run_terminated"
    assert run_error('{"message":"by ann"}', "canceled").message == "by ann"


@pytest.mark.parametrize("text", ["", "nope", "[]", '{"type":3}', "null", '"x"', "[" * 5_000])
def test_what_is_no_failure_is_one_all_the_same(text: str) -> None:
    assert isinstance(step_error(text), StepError)
    assert isinstance(run_error(text), RunError)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x" * 1_000_000),
        ValueError("\ud800" * 100_000),
        ValueError("\x00" * 100_000),
        AppError("y" * 1_000_000),
        AppError({"y": "\u20ac" * 1_000_000}),
        ExceptionGroup("many", [ValueError("z" * 100_000)] * 1_000),
        type("N" * 100_000, (Exception,), {})("long"),
    ],
)
def test_a_failure_is_bounded_whatever_was_raised(error: Exception) -> None:
    text = failure_json(raised(error), attempts=1)
    bound = failures.MAX_MESSAGE_BYTES + failures.MAX_TRACEBACK_BYTES + failures.MAX_DATA_BYTES
    assert len(text.encode()) < 6 * bound  # a control character takes six bytes
    assert step_error(text).message


def test_data_that_cannot_be_recorded_is_told_of() -> None:
    for data, why in ((object(), "not JSON"), (float("nan"), "not JSON"), ("y" * 100_000, "limit")):
        said = read(AppError(data))
        assert "data" not in said
        assert "left out" in said["message"]
        assert why in said["message"]


def test_an_exception_without_a_text_is_told_of() -> None:
    assert "RuntimeError" in read(raised(Mute()))["message"]
    assert read(raised(asyncio.CancelledError()))["type"] == "CancelledError"


def test_a_group_names_what_is_in_it() -> None:
    group = ExceptionGroup("two", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])])
    said = read(group)
    assert said["type"] == "ExceptionGroup"
    assert "ValueError: a" in said["message"]
    assert "KeyError: 'b'" in said["message"]


def test_errors_survive_pickling() -> None:
    for error in (AppError({"a": 1}), StepTimeout("slow", attempts=2), ArgumentError("no", field="x"), NotJson("no")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert again.__dict__ == error.__dict__


def test_every_error_has_a_code_of_its_own_and_a_hint() -> None:
    def all_of(cls: type[StepwellError]) -> list[type[StepwellError]]:
        return [cls, *(one for sub in cls.__subclasses__() for one in all_of(sub))]

    ours = [
        cls for cls in all_of(StepwellError) if cls.__module__ == "stepwell.functions.errors" and cls.__name__[0] != "_"
    ]
    assert len({cls.code for cls in ours}) == len(ours)
    assert all(cls.default_hint for cls in ours)


# ── retries ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_policy_is_what_the_kernel_reads() -> None:
    for retry in (
        Retry(),
        Retry(5, initial=timedelta(minutes=1), factor=1, max_delay=timedelta(days=365)),
        Retry(factor=1e3),
    ):
        check_retry(retry.policy_json())
        assert msgspec.json.decode(retry.policy_json(), type=RetryPolicy) == retry.policy
    assert Retry().policy_json() == '{"max_attempts":3,"initial_ms":250,"factor":2.0,"max_ms":3600000}'


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_attempts": 2.5},
        {"initial": -1},
        {"initial": float("nan")},
        {"factor": 0.5},
        {"factor": float("inf")},
        {"factor": True},
        {"max_delay": timedelta(days=366)},
        {"only": ValueError},
        {"never": (ValueError("x"),)},
        {"never": [ValueError]},
    ],
)
def test_a_policy_that_cannot_be_used_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        Retry(**options)
    assert caught.value.fields["field"] == next(iter(options))


def test_what_may_be_tried_again() -> None:
    assert Retry().allows(ValueError())
    assert Retry().allows(TimeoutError())
    assert not Retry().allows(CardDeclined("no"))
    assert not Retry().allows(NotJson("its result never will be"))
    assert not Retry().allows(KeyboardInterrupt())
    assert not Retry().allows(ExceptionGroup("x", [ValueError(), ExceptionGroup("y", [CardDeclined("no")])]))
    assert not Retry(only=(BaseException,)).allows(CardDeclined("no"))
    assert Retry(only=(OSError,)).allows(ConnectionError())
    assert not Retry(only=(OSError,)).allows(ValueError())
    assert not Retry(only=(OSError,), never=(ConnectionError,)).allows(ConnectionError())
    assert not Retry(never=(ValueError,)).allows(ExceptionGroup("x", [ValueError()]))


def test_durations_are_seconds_or_timedeltas() -> None:
    found = [
        duration_ms(value, "x") for value in (0, 1, 0.25, 1.1, 0.0001, timedelta(hours=48), timedelta(microseconds=1))
    ]
    assert found == [0, 1_000, 250, 1_100, 1, 172_800_000, 1]
    for wrong in (-1, float("nan"), float("inf"), True, "3", None, 1e12, timedelta.max, -timedelta(seconds=1)):
        bad: Any = wrong
        with pytest.raises(Invalid, match="pause") as caught:
            duration_ms(bad, "pause")
        assert caught.value.fields["field"] == "pause"
