"""The errors that workflows, steps and their callers see, beside those of the kernel (source: API, errors)."""

from typing import Any

from stepwell.model.errors import Invalid, StepwellError


class NonRetryable(StepwellError):
    """Raised, or subclassed, in a step or action: it fails for good, whatever its retry policy says.

    `data` is any JSON value; it reaches whoever catches the StepError.
    """

    code, status = "non_retryable", 422
    default_hint = "The code says that trying again cannot help: change the input or the code."

    def __init__(self, message: str = "", *, data: Any = None, hint: str = "", **fields: Any) -> None:
        super().__init__(message, hint=hint, **fields)
        self.data = data


class AppError(StepwellError):
    """An error of the application with data for its callers: any JSON value, which survives every boundary."""

    code, status = "app_error", 422
    default_hint = "The application raised this; its data says why."

    def __init__(self, data: Any, *, hint: str = "") -> None:
        super().__init__(data if isinstance(data, str) else f"{data!r:.2000}", hint=hint)
        self.data = data


class _Remote(StepwellError):
    """Something that failed elsewhere. The class of the original is only a name here, live as on replay."""

    def __init__(
        self,
        message: str = "",
        *,
        type: str = "",  # noqa: A002
        data: Any = None,
        attempts: int = 1,
        traceback: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.type = type or self.__class__.__name__
        self.data, self.attempts, self.traceback = data, attempts, traceback
        self.fields = {"type": self.type, "data": data}
        if traceback:
            self.add_note(f"Where it failed:\n{traceback}")


class StepError(_Remote):
    """A step, action, mutation or query failed for good.

    `type` is the name of the class that was raised there, `message` what it said, `data` what an AppError or
    NonRetryable carried, `traceback` where it was raised, as text, `hint` what to do, if that was said there.
    `attempts` is how often it was begun. Those of an action count also when a worker died or gave it back, which the
    retry policy does not: so with Retry(2) it may be 3. A step counts only attempts that ended.
    """

    code, status = "step_failed", 500
    default_hint = "See its type and traceback. Catch StepError in the workflow, or give the step a retry policy."


class StepTimeout(StepError, TimeoutError):
    """An attempt took longer than its timeout, or all of them longer than the deadline."""

    code, status = "step_timeout", 504
    default_hint = "Give it a longer timeout or deadline, or make it faster."


class RunError(_Remote):
    """A run failed: `type`, `message`, `data` and `traceback` of what its body raised."""

    code, status = "run_failed", 500
    default_hint = "See its type and traceback; `stepwell explain` shows the whole journal."


class RunCanceled(RunError):
    """A run was canceled, so it has no result."""

    code, status = "run_canceled", 409
    default_hint = "Start it again if its result is still wanted."


class RunTerminated(RunCanceled):
    """A run was ended from outside without being asked."""

    code = "run_terminated"


class SignalTimeout(StepwellError, TimeoutError):
    """No signal of the name came in time."""

    code, status = "signal_timeout", 504
    default_hint = "Catch TimeoutError around wait_for_signal, or wait longer."


class NondeterministicCall(StepwellError):
    """The body of a workflow did something that could differ on replay."""

    code, status = "nondeterministic_call", 500
    default_hint = "Do it in ctx.step(...), which records what came out; ctx has now(), random and uuid()."


class HistoryMismatch(StepwellError):
    """The code no longer fits the journal of a run. Never raised in a body: the run is held until the code fits."""

    code, status = "history_mismatch", 409
    default_hint = "Bring the old code back, or put the change behind ctx.patched('a name'). The run goes on by itself."


class ArgumentError(Invalid):
    """A call does not fit the parameters of its function. `field` names the parameter."""

    code, status = "invalid_arguments", 422
    default_hint = "Give the arguments that the function declares, of the types that it declares."

    def __init__(self, message: str, *, field: str = "", hint: str = "", **fields: Any) -> None:
        super().__init__(message, hint=hint, field=field, **fields)
        self.field = field


class NotJson(NonRetryable):
    """A value cannot be recorded, since it would not come back from JSON as what it is.

    `type` names the class of the offender, `path` where it is: `$` is the whole value, `$.lines[0]` a part.
    """

    code, status = "not_json", 422
    default_hint = "Return plain JSON, or annotate the function with a dataclass, Struct, TypedDict or the like."

    def __init__(self, message: str, *, type: str = "", path: str = "$", hint: str = "") -> None:  # noqa: A002
        super().__init__(message, hint=hint, type=type, path=path)
        self.type, self.path = type, path


class ResultMismatch(StepwellError):
    """Recorded JSON does not fit the type that the code has now.

    `path` is where, `recorded` the JSON there (shortened), `expected` the type that was asked for and what is wrong.
    """

    code, status = "result_mismatch", 409
    default_hint = "Give new fields a default and keep the types of old ones, or bring the old type back."

    def __init__(self, path: str, recorded: str, expected: str) -> None:
        super().__init__(
            f"  path      {path}\n- recorded  {recorded}\n+ expected  {expected}",
            path=path,
            recorded=recorded,
            expected=expected,
        )
        self.path, self.recorded, self.expected = path, recorded, expected
