"""`Retry`, and durations as callers give them: seconds or a timedelta (source: API, policies; spec orchestrator C)."""

import asyncio
import math
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any

import msgspec

from stepwell.functions.errors import NonRetryable
from stepwell.kernel.tasks import RetryPolicy
from stepwell.model.errors import Invalid

Duration = float | timedelta
#: A hundred years: longer is a slip, most likely of the unit.
MAX_DURATION_S = 100 * 365.25 * 86_400
MAX_ATTEMPTS = 1_000_000
MAX_FACTOR = 1_000.0
MAX_DELAY_MS = 365 * 86_400_000
_HINT = "A duration is seconds or a timedelta, for example 30, 0.25 or timedelta(hours=2)."


def duration_ms(value: Duration, what: str) -> int:
    """A duration in whole milliseconds, at least 1 unless it is zero. Raises Invalid and names `what`."""
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise Invalid(f"{what} must be a duration, not {value!r:.80}", field=what, hint=_HINT)
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if not 0 <= value <= MAX_DURATION_S:  # NaN is in no range
        raise Invalid(f"{what} must be from 0 s to 100 years, not {value} s", field=what, hint=_HINT)
    return math.ceil(value) if 0 < value < 0.001 else round(value * 1_000)


@dataclass(frozen=True)
class Retry:
    """When a step or action is tried again: `max_attempts` in all, the first included.

    The delay before retry n is initial * factor ** (n - 1) * (0.5 to 1.5 at random), at most max_delay. `only` limits
    retries to these exceptions, `never` excludes some; NonRetryable is never retried.
    """

    max_attempts: int = 3
    _: KW_ONLY
    initial: Duration = 0.25
    factor: float = 2.0
    max_delay: Duration = 3600
    only: tuple[type[BaseException], ...] = ()
    never: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        attempts, factor = self.max_attempts, self.factor
        if type(attempts) is not int or not 1 <= attempts <= MAX_ATTEMPTS:
            _refuse("max_attempts", attempts, f"a whole number from 1 to {MAX_ATTEMPTS:,}; it counts the first attempt")
        if type(factor) not in (int, float) or not 1 <= factor <= MAX_FACTOR:
            _refuse("factor", factor, f"a number from 1 to {MAX_FACTOR:,.0f}")
        for name in ("initial", "max_delay"):
            if duration_ms(getattr(self, name), name) > MAX_DELAY_MS:
                _refuse(name, getattr(self, name), "at most 365 days")
        for name in ("only", "never"):
            if not _exceptions(getattr(self, name)):
                _refuse(name, getattr(self, name), "a tuple of exception classes, for example (ValueError,)")

    @property
    def policy(self) -> RetryPolicy:
        """The kernel's form of it."""
        return RetryPolicy(
            max_attempts=self.max_attempts,
            initial_ms=duration_ms(self.initial, "initial"),
            factor=float(self.factor),
            max_ms=duration_ms(self.max_delay, "max_delay"),
        )

    def policy_json(self) -> str:
        """What an action carries across the queue: max_attempts, initial_ms, factor, max_ms, and the names of the
        exception classes, if there are any, for the worker that meets one."""
        policy, classes = self.policy, _names("only", self.only) + _names("never", self.never)
        return (
            f'{{"max_attempts":{policy.max_attempts},"initial_ms":{policy.initial_ms},'
            f'"factor":{policy.factor!r},"max_ms":{policy.max_ms}{classes}}}'
        )

    def allows(self, error: BaseException) -> bool:
        """Whether an error may be tried again, attempts left or not. A group is judged by what is in it."""
        return _may_ever(error) and not _holds(error, self.never) and (not self.only or _holds(error, self.only))


def policy_of(said: Retry | bool | None, app: Retry | None) -> Retry | None:
    """The policy of a call that says nothing, True (the app's), False (none), or one of its own. Raises Invalid."""
    if said is not None and not isinstance(said, bool | Retry):
        raise Invalid(
            f"retry must be a Retry, True or False, not {said!r:.80}", field="retry", hint="See stepwell.Retry."
        )
    if said is None or said is False:
        return app if said is None else None
    return said if isinstance(said, Retry) else app or Retry()


class _Named(msgspec.Struct, frozen=True):
    """What a policy that crossed the queue says of exceptions: the names of their classes."""

    only: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()


def allowed_by(policy_json: str | None, error: BaseException) -> bool:
    """As `Retry.allows`, for the policy that a call carries; a class is known by its name, as in a StepError."""
    policy = _Named() if policy_json is None else msgspec.json.decode(policy_json, type=_Named)
    return (
        _may_ever(error) and not _is_named(error, policy.never) and (not policy.only or _is_named(error, policy.only))
    )


def _may_ever(error: BaseException) -> bool:
    return isinstance(error, Exception | asyncio.CancelledError) and not _holds(error, (NonRetryable,))


def _names(what: str, classes: tuple[type[BaseException], ...]) -> str:
    if not classes:
        return ""
    return f',"{what}":{msgspec.json.encode([one.__name__ for one in classes]).decode()}'


def _is_named(error: BaseException, names: frozenset[str]) -> bool:
    if any(one.__name__ in names for one in type(error).__mro__):
        return True
    return isinstance(error, BaseExceptionGroup) and any(_is_named(one, names) for one in error.exceptions)


def _exceptions(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in value)


def _holds(error: BaseException, classes: tuple[type[BaseException], ...]) -> bool:
    if isinstance(error, classes):
        return True
    return isinstance(error, BaseExceptionGroup) and any(_holds(one, classes) for one in error.exceptions)


def _refuse(what: str, value: object, wanted: str) -> None:
    raise Invalid(f"Retry: {what} must be {wanted}, not {value!r:.80}", field=what, hint="See stepwell.Retry.")
