"""Calls of an app's functions from outside of any run (source: API, rule 4)."""

from collections.abc import Mapping
from typing import Any

from stepwell.client.connection import BY, Connection
from stepwell.client.handle import Handle
from stepwell.functions.define import Action, Function
from stepwell.functions.failures import step_error
from stepwell.functions.start_options import scope_of
from stepwell.functions.starts import start_command
from stepwell.model import commands as c
from stepwell.model.errors import Invalid


async def call(
    connection: Connection,
    fn: Function[Any, Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Any:
    """The result of a query, mutation or action, by its annotation. Raises `StepError` with what it raised."""
    given: object = fn
    if not isinstance(given, Function):
        hint = "Give the object that @app.query, @app.mutation or @app.action made of the function."
        raise Invalid(f"call takes a function of the app, not {type(given).__name__}", hint=hint)
    if fn.kind == "workflow":
        raise Invalid(f"{fn.path} is a workflow, which is started", hint=f"run = await sw.start({fn.name}, ...)")
    if isinstance(fn, Action):
        return await _action(connection, fn, fn.signature.bind(args, kwargs), options)
    return await connection.host.calling.call(fn, args, kwargs, scope=scope_of(options), by=BY)


async def _action(connection: Connection, action: Action[Any, Any], args: str, options: Mapping[str, Any]) -> Any:
    engine = connection.engine
    command = start_command(
        action,
        args,
        options,
        run_id=engine.new_id(),
        scope=scope_of(options),
        now=engine.clock_ms(),
        by=BY,
        retry=None if connection.app is None else connection.app.retry,
    )
    connection.use_pool(action, options)
    started: c.Started = await engine.submit(command)
    handle: Handle[Any] = Handle(connection, started.run_id, None, scope=command.scope)
    run = await handle.ended()
    if run.status == "failed" and run.error is not None:
        raise step_error(run.error)
    return action.signature.decode_result(await handle.outcome())
