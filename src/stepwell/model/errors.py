"""The errors that callers see: one class per stable code, the same on CLI, HTTP and wire (source: KERNEL)."""

from typing import Any, ClassVar


class StepwellError(Exception):
    """Base of all errors. `code` is stable, `hint` says what to do next, `fields` holds the data behind the message."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.fields = fields

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, fields={self.fields!r})"

    def as_json(self) -> dict[str, Any]:
        """The JSON shape of every error body: `error`, `code`, `hint`, and the fields."""
        return {"error": self.message, "code": self.code, "hint": self.hint, **self.fields}


class Invalid(StepwellError):
    """The input has the wrong shape or value."""

    code, status = "invalid", 422
    default_hint = "Correct it, and send it again."


class Malformed(Invalid):
    """What came in is not even readable: no JSON, no UTF-8, no such encoding."""

    code, status = "malformed", 400


class Unsupported(Invalid):
    """The input comes in a form that is not taken: another media type, or compressed."""

    code, status = "unsupported", 415


class TooLarge(StepwellError):
    """A bound was reached. Fields: `what`, `size`, `limit`."""

    code, status = "too_large", 413
    default_hint = "Make it smaller, keep the bulk elsewhere and pass a reference, or raise the limit in the settings."


class Unknown(StepwellError):
    """No such row for this caller; a foreign one looks the same."""

    code, status = "unknown", 404
    default_hint = "Check the id and the scope; rows past their retention are gone."


class Conflict(StepwellError):
    """What is there does not go with what was asked for: the same id came again with another body."""

    code, status = "conflict", 409
    default_hint = "An id names one body for ever. Send a new id for a new body."


class Exists(Conflict):
    """A run with this id exists and the reuse policy, or its other input, forbids to return it."""

    code, status = "exists", 409
    default_hint = "Use another id, or start with the same input and reuse='return'."


class Outdated(StepwellError):
    """The manifests changed after the event was matched."""

    code, status = "outdated", 409
    default_hint = "Match the event again on the present manifests and send it again."


class Stale(StepwellError):
    """The lease is over, or another worker holds it now; nothing was changed."""

    code, status = "stale", 409
    default_hint = "Stop working on this task: whoever holds the lease now carries on."


class Unseen(StepwellError):
    """A park was refused since entries came that the worker has not seen: attribute `entries`."""

    code, status = "unseen", 409
    entries: list[Any]
    default_hint = "Deliver the entries, then decide again."


class OutOfStep(StepwellError):
    """A write number is neither the next nor a repeat of the last."""

    code, status = "out_of_step", 409
    default_hint = "The worker lost count: release the lease, let it be claimed again, and report this bug."


class Ended(Conflict):
    """The run is terminal; only an explicit restart changes it."""

    code, status = "ended", 409
    default_hint = "Restart the run, or replay its event, to run it again."


class Open(Conflict):
    """The run has not ended, so it cannot be restarted."""

    code, status = "open", 409
    default_hint = "Cancel or terminate the run first."


class Nested(StepwellError):
    """The engine was called from inside a mutation."""

    code, status = "nested", 400
    default_hint = "Use the mutation's own context: what it starts and sends commits with it."


class UnknownFunction(StepwellError):
    """No function of this name is registered where it should run."""

    code, status = "unknown_function", 404
    default_hint = "Start a server or worker that has the function."


class MutationFailed(StepwellError):
    """A mutation that was called from outside raised, and was rolled back. Fields: `failure`, its error as JSON."""

    code, status = "mutation_failed", 422
    default_hint = "Nothing was changed. Read the error, and call it again when its cause is gone."


class Limited(StepwellError):
    """A rate limit was reached."""

    code, status = "limited", 429
    default_hint = "Wait and try again."


class Unauthorized(StepwellError):
    """Nobody is known to be calling."""

    code, status = "unauthorized", 401
    default_hint = "Send credentials."


class Forbidden(StepwellError):
    """The caller is known and may not do this."""

    code, status = "forbidden", 403
    default_hint = "Ask for the scope that this call needs."


class Timeout(StepwellError):
    """It took longer than its limit and was rolled back."""

    code, status = "timeout", 504
    default_hint = "Do less in one call, or raise the limit."


class Unavailable(StepwellError):
    """The kernel cannot commit now; nothing was changed, or the answer says that it is unknown."""

    code, status = "unavailable", 503
    default_hint = "Safe to repeat: send the same command again after a moment."


class Internal(StepwellError):
    """An unforeseen exception inside a command; it was rolled back."""

    code, status = "internal", 500
    default_hint = "This is a bug; please report it with the message."


def _leaves(cls: type[StepwellError]) -> list[type[StepwellError]]:
    return [cls, *(leaf for sub in cls.__subclasses__() for leaf in _leaves(sub))]


#: Every error class by its code.
BY_CODE: dict[str, type[StepwellError]] = {cls.code: cls for cls in _leaves(StepwellError)}
