"""Commands that start runs, from a function, its arguments and the options of the API."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from stepwell.functions.define import Action, Completion, Function, Mutation, Workflow
from stepwell.functions.retry import Retry, duration_ms, policy_of
from stepwell.functions.values import encode
from stepwell.model.commands import StartRun
from stepwell.model.errors import Invalid
from stepwell.model.words import Reuse

_REUSE: dict[str, Reuse] = {"return": "return", "raise": "raise", "replace": "replace"}


def start_command(
    function: Workflow[Any, Any] | Action[Any, Any],
    input_json: str,
    options: Mapping[str, Any],
    *,
    run_id: str,
    scope: str,
    now: int,
    by: str = "",
    retry: Retry | None = None,
) -> StartRun:
    """The start of a workflow, or of a run that is one action. `options` are StartOptions over the function's own.

    `retry` is the app's policy: that of actions which say nothing, or True.
    """
    given = {**function.options, **options}
    pool = given.get("pool")
    command = StartRun(
        id=given.get("id", run_id),
        name=function.path,
        input=input_json,
        scope=scope,
        reuse=_reuse(given.get("if_exists", "return")),
        pool="default" if pool is None else pool.name,
        pool_key=given.get("key"),
        priority=given.get("priority", 0),
        due_at=due_at(given, now),
        deadline=None if given.get("deadline") is None else now + duration_ms(given["deadline"], "deadline"),
        tags=tags_json(given.get("tags")),
        callback=callback_json(given.get("on_complete"), given.get("context")),
        by=by,
    )
    if isinstance(function, Workflow):
        command.version, command.requires = function.version, f"workflow:{function.path}"
    else:
        command.kind, command.requires = "step", f"function:{function.path}"
        policy = policy_of(given.get("retry"), retry)
        command.retry = None if policy is None else policy.policy_json()
    return command


def need_workflow(value: object) -> None:
    """Raises `Invalid` for what cannot be started."""
    if isinstance(value, Workflow):
        return
    if isinstance(value, Function):
        hint = f"An action, mutation or query is called: await sw.call({value.name}, ...)."
        raise Invalid(f"{value.path} is no workflow but a {value.kind}", hint=hint)
    hint = "Give the object that @app.workflow made of the function."
    raise Invalid(f"start takes a workflow, not {type(value).__name__}", hint=hint)


def callback_json(mutation: Mutation[[Completion], None] | None, context: Any) -> str | None:
    """What a run keeps of `on_complete` and its `context`."""
    if mutation is None:
        return None
    if not isinstance(mutation, Mutation):
        raise Invalid(f"on_complete is {mutation!r}", hint="Give a mutation that takes a Completion.")
    if len(mutation.signature.names) != 1:
        hint = f"Write def {mutation.name}(ctx: MutationContext, completion: Completion)."
        raise Invalid(f"{mutation.path} cannot be told of an end: it needs one parameter", hint=hint)
    return f'{{"function":{encode(mutation.path)},"context":{encode(context)}}}'


def due_at(options: Mapping[str, Any], now: int) -> int | None:
    """When a run is to begin: `delay` from now, or `at` a time. None: at once."""
    if options.get("at") is not None:
        if options.get("delay") is not None:
            raise Invalid("delay and at exclude each other", hint="Give one of them.")
        at: datetime = options["at"]
        return round(at.timestamp() * 1_000)
    return None if options.get("delay") is None else now + duration_ms(options["delay"], "delay")


def tags_json(tags: Mapping[str, str] | None) -> str | None:
    """Tags as a run keeps them."""
    if tags is None:
        return None
    if not all(isinstance(one, str) for pair in tags.items() for one in pair):
        raise Invalid("tags are texts by text", hint="For example {'customer': '42'}.")
    return msgspec.json.encode(dict(tags)).decode()


def _reuse(word: str) -> Reuse:
    if word not in _REUSE:
        raise Invalid(f"if_exists is {word!r}", hint="One of return, raise, replace.")
    return _REUSE[word]
