"""How a caller's options and arguments become a `StartRun` (source: API, StartOptions; rules 1 and 12). No I/O."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from stepwell.functions import values
from stepwell.functions.define import Action, Function, Mutation, Pool, Retry, StartOptions, Workflow, duration_ms
from stepwell.model import commands as c
from stepwell.model.errors import Invalid

#: Runs that nobody gave a scope are in this one.
SCOPE = "main"
MAX_TAGS = 64
REUSES = ("return", "raise", "replace")
_KNOWN = tuple(StartOptions.__annotations__)


def start_command(
    workflow: Workflow[Any, Any],
    input_json: str,
    options: Mapping[str, Any],
    *,
    now_ms: int,
    new_id: Callable[[], str],
    by: str,
) -> c.StartRun:
    """The command that starts a workflow on an input as JSON. Raises `Invalid` for options that cannot be."""
    command = _command(workflow, input_json, {**workflow.options, **options}, now_ms, new_id, by)
    command.version, command.requires = workflow.version, f"workflow:{workflow.path}"
    return command


def enqueue_command(
    action: Action[Any, Any],
    args_json: str,
    options: Mapping[str, Any],
    *,
    policy: Retry | None,
    now_ms: int,
    new_id: Callable[[], str],
    by: str,
) -> c.StartRun:
    """The command that runs an action as a run of its own. `policy`: of actions that say nothing of retries."""
    command = _command(action, args_json, {**action.options, **options}, now_ms, new_id, by)
    command.kind, command.requires = "step", f"function:{action.path}"
    retry = action.options.get("retry", policy)
    if retry is True:
        retry = policy or Retry()
    command.retry = retry.policy_json() if retry else None
    return command


def _command(
    fn: Function[Any, Any], input_json: str, options: Mapping[str, Any], now_ms: int, new_id: Callable[[], str], by: str
) -> c.StartRun:
    pool, deadline = options.get("pool"), options.get("deadline")
    return c.StartRun(
        id=new_id() if options.get("id") is None else options["id"],
        name=fn.path,
        input=input_json,
        scope=scope_of(options),
        reuse=options.get("if_exists", "return"),
        pool="default" if pool is None else pool.name,
        pool_key=options.get("key"),
        priority=options.get("priority") or 0,
        due_at=due_ms(options, now_ms),
        deadline=None if deadline is None else now_ms + duration_ms(deadline, "deadline"),
        tags=_tags(options.get("tags")),
        by=by,
        callback=_callback(options),
    )


def check_options(given: Mapping[str, Any]) -> None:
    """Raises `Invalid` for an option that there is not, or whose value cannot be."""
    for name, value in given.items():
        if name not in _KNOWN:
            raise Invalid(f"there is no option {name!r}", hint=f"Options are {', '.join(_KNOWN)}.", field=name)
        if value is not None and name in _CHECKS and not _CHECKS[name][0](value):
            raise Invalid(f"{name} must be {_CHECKS[name][1]}, not {value!r:.80}", hint=f"Correct {name}.", field=name)
    if "context" in given and given["context"] is not None:
        values.encode(given["context"])
    _tags(given.get("tags"))


def scope_of(options: Mapping[str, Any]) -> str:
    """The scope that options name, or the default one."""
    scope: str = options.get("scope") or SCOPE
    return scope


def due_ms(options: Mapping[str, Any], now_ms: int) -> int | None:
    """When a delayed start is due, in milliseconds; None: at once."""
    delay, at = options.get("delay"), options.get("at")
    if delay is not None and at is not None:
        raise Invalid("give delay or at, not both", hint="delay counts from now, at is a moment.", field="at")
    if delay is not None:
        return now_ms + duration_ms(delay, "delay")
    return None if at is None else round(at.timestamp() * 1_000)


def need_workflow(value: object) -> None:
    """Raises `Invalid` for what cannot be started."""
    if isinstance(value, Workflow):
        return
    if isinstance(value, Function):
        hint = f"An action, mutation or query is called: await sw.call({value.name}, ...)."
        raise Invalid(f"{value.path} is no workflow but a {value.kind}", hint=hint)
    hint = "Give the object that @app.workflow made of the function."
    raise Invalid(f"start takes a workflow, not {type(value).__name__}", hint=hint)


def _tags(tags: Any) -> str | None:
    if not tags:
        return None
    texts = isinstance(tags, Mapping) and all(isinstance(one, str) for pair in tags.items() for one in pair)
    if not texts or len(tags) > MAX_TAGS:
        hint = f"Give up to {MAX_TAGS} names with a text each, as {{'customer': 'c-7'}}."
        raise Invalid("tags must be a mapping of texts to texts", hint=hint, field="tags")
    return values.encode(dict(sorted(tags.items())))


def _callback(options: Mapping[str, Any]) -> str | None:
    mutation = options.get("on_complete")
    if mutation is None:
        if options.get("context") is not None:
            hint = "context is handed to on_complete: give a mutation there."
            raise Invalid("context without on_complete", hint=hint, field="context")
        return None
    return values.encode({"function": mutation.path, "context": options.get("context")})


def _is_moment(value: object) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (_is_text, "a text that is not empty"),
    "if_exists": (lambda value: value in REUSES, f"one of {', '.join(REUSES)}"),
    "at": (_is_moment, "a datetime with a time zone"),
    "pool": (lambda value: isinstance(value, Pool), "a Pool"),
    "key": (lambda value: isinstance(value, str), "a text"),
    "priority": (_is_whole, "a whole number"),
    "scope": (_is_text, "a text that is not empty"),
    "on_complete": (lambda value: isinstance(value, Mutation), "a mutation of the app"),
    "detached": (lambda value: value is True, "left out: only runs that a workflow starts have a parent"),
}
