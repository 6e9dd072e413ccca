"""What decorators return and callers name: functions, signals, states, pools, events, and the options of a call.

Source: API, on one screen. A function is data: who runs it, and where, is no business of this package.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, ParamSpec, TypedDict, TypeVar

import msgspec
from msgspec import Struct, field

from stepwell.functions.annotations import Unresolved, check_type, hints_of, parameters_of
from stepwell.functions.errors import RunError
from stepwell.functions.failures import Failure, run_error
from stepwell.functions.pools import Pool
from stepwell.functions.retry import Duration, Retry, duration_ms
from stepwell.functions.signature import Signature, signature_of
from stepwell.kernel import check
from stepwell.model.errors import Invalid, StepwellError

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
Kind = Literal["workflow", "action", "mutation", "query"]


class Principal(Struct, frozen=True):
    """Who is calling from outside."""

    subject: str | None = None
    scopes: frozenset[str] = frozenset()
    admin: bool = False
    claims: Mapping[str, Any] = {}


class Call(Struct, frozen=True):
    """What is called from outside: a function's path, and its arguments by name."""

    path: str
    args: Mapping[str, Any] = {}


Authorize = Callable[[Principal, Call], bool | Awaitable[bool]]


class Function(Generic[P, R_co]):
    """A registered function: `path` names it everywhere, `fn` is the one that was decorated. It cannot be called:
    a workflow calls it through its context, a test through `fn`.
    """

    kind: ClassVar[Kind]
    context: ClassVar[str] = ""

    def __init__(self, module: str, fn: Callable[..., Any], options: Mapping[str, Any] | None = None) -> None:
        given = dict(options or {})
        _check_function(fn, self.kind)
        self.fn = fn
        self.name = getattr(fn, "__name__", type(fn).__name__)
        self.path: str = self._path(module, given.pop("name", None))
        self.internal: bool = given.pop("internal", True)
        self.authorize: Authorize | None = given.pop("authorize", None)
        self.options: Mapping[str, Any] = given
        self.__doc__ = fn.__doc__
        self._check()
        self.signature: Signature = signature_of(fn, skip=self._skipped(), what=self.path, returns=given.get("returns"))
        with suppress(Unresolved):  # it may name what comes later in its module: `Registry.check` asks again
            self.signature.check()

    def __repr__(self) -> str:
        return f"<{self.kind} {self.path}>"

    def _path(self, module: str, name: str | None) -> str:
        if name is None and not self.name.isidentifier():
            raise Invalid(f"{_a(self.kind)} needs a name, and {self.name} is none", hint="Use def, or give name='...'.")
        path = f"{module}:{self.name}" if name is None else name
        check.name("the name of a function", path)
        return path

    def _check(self) -> None:
        """Raises Invalid for options or a kind of function that do not fit."""

    def _skipped(self) -> int:
        """How many parameters come before those of the caller: the context."""
        first = next(iter(parameters_of(self.fn)), None)
        if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
            raise Invalid(
                f"{self.path} needs a first parameter `ctx: {self.context}`", hint=f"Every {self.kind} has it."
            )
        if first.annotation is first.empty:
            raise Invalid(
                f"the first parameter of {self.path} has no annotation, so it would pass for the context",
                hint=f"Write {first.name}: {self.context}, and the parameters of the {self.kind} after it.",
            )
        return 1


class Workflow(Function[P, R_co]):
    """A durable function. `version` is stamped on its runs, `on` is the type of the events that start one."""

    kind = "workflow"
    context = "Context"

    def _check(self) -> None:
        given = dict(self.options)
        self.version: str = given.pop("version", "1")
        self.on: str | None = given.pop("on", None)
        self.options = given
        check.name("version", self.version)
        if self.on is not None:
            check.name("on", self.on)
        _check_async(self, wanted=True)

    def __repr__(self) -> str:
        return f"<workflow {self.path} version {self.version}>"


class Action(Function[P, R_co]):
    """A function that any worker with it runs, apart from whoever calls it. `def` runs in a thread."""

    kind = "action"
    context = "ActionContext"
    takes_context = False

    def _skipped(self) -> int:
        first = next(iter(parameters_of(self.fn)), None)
        if first is not None and first.annotation is first.empty:
            hint = f"Write {first.name}: and its type."
            raise Invalid(f"the first parameter of {self.path} has no annotation: it could be the context", hint=hint)
        self.takes_context = first is not None and self._is_context(first)
        self.check_heartbeat(self.options)
        return 1 if self.takes_context else 0

    def check_heartbeat(self, options: Mapping[str, Any]) -> None:
        """Raises Invalid for options of a call that ask for heartbeats of an action that cannot send any."""
        if options.get("heartbeat") is not None and not self.takes_context:
            hint = "Give it a first parameter `ctx: ActionContext` and call ctx.heartbeat(), or leave heartbeat out."
            raise Invalid(f"{self.path} has no context to send heartbeats with", field="heartbeat", hint=hint)

    def _is_context(self, first: inspect.Parameter) -> bool:
        """By annotation, whether it is written as a text or not."""
        wanted = first.annotation
        if isinstance(wanted, str):
            return wanted.rpartition(".")[2].strip("'\" ") == self.context or _resolves_to(self.fn, first, self.context)
        return getattr(wanted, "__name__", None) == self.context


class Mutation(Function[P, R_co]):
    """A function in the transaction of the kernel, with the app's tables."""

    kind = "mutation"
    context = "MutationContext"

    def _check(self) -> None:
        _check_async(self, wanted=False)


class Query(Function[P, R_co]):
    """A function that reads the app's tables in one snapshot."""

    kind = "query"
    context = "QueryContext"

    def _check(self) -> None:
        _check_async(self, wanted=False)


class Signal(Generic[T]):
    """A typed name, shared by who waits for it and who sends it."""

    def __init__(self, name: str, type: type[T]) -> None:  # noqa: A002 - a word of the API
        check.name("the name of a signal", name)
        check_type(type, f"signal {name}")
        self.name, self.type = name, type

    def __repr__(self) -> str:
        return f"Signal({self.name!r}, {getattr(self.type, '__name__', self.type)})"


class State(Generic[T]):
    """A typed name for what a run says about itself, readable at any time."""

    def __init__(self, name: str, type: type[T]) -> None:  # noqa: A002 - a word of the API
        check.name("the name of a state", name)
        check_type(type, f"state {name}")
        self.name, self.type = name, type

    def __repr__(self) -> str:
        return f"State({self.name!r}, {getattr(self.type, '__name__', self.type)})"


class _EventFacts(Struct, frozen=True, kw_only=True, rename="camel"):
    id: str = ""
    source: str | None = None
    occurred_at: datetime | None = None
    received_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)


class Event(_EventFacts, Generic[T], frozen=True, rename="camel"):
    """Something that happened: `type`, and a `payload` of JSON or of a type. Without an id the sender gives it one.

    As a workflow's parameter it is the event that started the run; `Event[Release]` says what the payload is.
    """

    type: str
    payload: T

    if TYPE_CHECKING:

        def __init__(self, type: str, payload: T, *, id: str | None = None, source: str | None = None) -> None:  # noqa: A002
            """The times are those of whoever receives it."""

    def __post_init__(self) -> None:
        check.name("the type of an event", self.type)
        if not self.id:
            msgspec.structs.force_setattr(self, "id", "")
        else:
            check.run_id(self.id)


class Dispatched(Struct, frozen=True):
    """What became of an event: whether it was there before, and the runs that it started."""

    event_id: str
    duplicate: bool
    run_ids: list[str]


class Completion(Struct, frozen=True):
    """What `on_complete` is told of a run that ended. `context` is what the start gave for it."""

    run_id: str
    kind: Literal["success", "failed", "canceled"]
    value: Any = None
    failure: Failure | None = field(default=None, name="error")
    context: Any = None

    @property
    def error(self) -> RunError | None:
        """Why it failed, or was canceled."""
        if self.failure is None:
            return None
        return run_error(msgspec.json.encode(self.failure).decode(), "failed" if self.kind == "failed" else "canceled")


class CallOptions(TypedDict, total=False):
    """Options of one durable call: on the decorator, or ctx.options(...) before the call.

    `retry`: True is the app's policy, False none. `timeout` is for one attempt, `heartbeat` how long one may go without
    a heartbeat, `deadline` for queueing, attempts and back-off together. `delay` and `at`: not before. `key` is the
    pool's key. `returns` is the type of the result.
    """

    name: str
    retry: Retry | bool
    timeout: Duration
    heartbeat: Duration
    deadline: Duration
    delay: Duration
    at: datetime
    pool: Pool
    key: str
    priority: int
    returns: type[Any]


class StartOptions(TypedDict, total=False):
    """Options of starting a run. `id` is the caller's own: `if_exists` says what a second start with it does."""

    id: str
    if_exists: Literal["return", "raise", "replace"]
    delay: Duration
    at: datetime
    deadline: Duration
    pool: Pool
    key: str
    priority: int
    tags: Mapping[str, str]
    scope: str
    detached: bool
    on_complete: Mutation[[Completion], None]
    context: Any


class ContextOptions(CallOptions, StartOptions, total=False):
    """Options of what a workflow calls or starts."""


def _check_function(fn: Any, kind: Kind) -> None:
    if isinstance(fn, Function):
        raise Invalid(f"{fn!r} is registered already", hint="One decorator for one function; several may share its fn.")
    if not callable(fn) or isinstance(fn, type | staticmethod | classmethod):
        what = fn.__name__ if isinstance(fn, type) else type(fn).__name__
        raise Invalid(f"{_a(kind)} must be a function, not {what}", hint=f"For example `@app.{kind}` above a def.")


def _a(kind: Kind) -> str:
    return f"an {kind}" if kind == "action" else f"a {kind}"


def _check_async(function: Function[..., Any], *, wanted: bool) -> None:
    fn: Any = function.fn
    fn = fn if inspect.isroutine(fn) else getattr(fn, "func", type(fn).__call__)
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise Invalid(f"{function.path} is a generator", hint="Return a list, or use signals and states.")
    if inspect.iscoroutinefunction(fn) is not wanted:
        hint = (
            "A workflow awaits its steps: write async def."
            if wanted
            else f"A {function.kind} holds a transaction, so it cannot await: write def."
        )
        raise Invalid(f"{function.path} must be {'async def' if wanted else 'def, not async def'}", hint=hint)


def _resolves_to(fn: Callable[..., Any], first: inspect.Parameter, name: str) -> bool:
    try:
        return getattr(hints_of(fn, "it").get(first.name), "__name__", None) == name
    except StepwellError:
        return False


__all__ = [
    "Action",
    "Authorize",
    "Call",
    "CallOptions",
    "Completion",
    "ContextOptions",
    "Dispatched",
    "Duration",
    "Event",
    "Function",
    "Kind",
    "Mutation",
    "Pool",
    "Principal",
    "Query",
    "Retry",
    "Signal",
    "StartOptions",
    "State",
    "Workflow",
    "duration_ms",
]
