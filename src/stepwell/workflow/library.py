"""Functions of asyncio that would not replay the same, made so on a workflow's loop (source: spec workflow-loop 3).

`as_completed` puts coroutines into a set, so the order of their tasks depends on addresses. `wait_for` makes a task for
what it waits for until Python 3.11 and none later, so the path of a step would depend on the version. `all_tasks` looks
into a set of the whole process, in which the tasks of bodies are not.
"""

import asyncio
import sys
from asyncio import events, tasks
from collections.abc import Callable
from functools import wraps
from typing import Any

from stepwell.workflow.loop import WorkflowLoop


def install() -> None:
    """Replaces them in asyncio; elsewhere than on a workflow's loop they are what they were. Twice does nothing."""
    modules: tuple[Any, ...] = (asyncio, tasks)
    for module in modules:
        if not hasattr(module.as_completed, "stepwell"):
            module.as_completed = _as_completed(module.as_completed)
        if not hasattr(module.all_tasks, "stepwell"):
            module.all_tasks = _all_tasks(module.all_tasks)
        if sys.version_info < (3, 12) and not hasattr(module.wait_for, "stepwell"):
            module.wait_for = _wait_for(module.wait_for)


def _in_workflow() -> bool:
    return type(events._get_running_loop()) is WorkflowLoop


def _all_tasks(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def all_tasks(loop: Any = None) -> Any:
        of = events._get_running_loop() if loop is None else loop
        return {task for task in of.live if not task.done()} if isinstance(of, WorkflowLoop) else original(loop)

    return _marked(all_tasks)


def _as_completed(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def as_completed(fs: Any, **more: Any) -> Any:
        return original([asyncio.ensure_future(one) for one in fs] if _in_workflow() else fs, **more)

    return _marked(as_completed)


def _wait_for(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    async def wait_for(fut: Any, timeout: float | None) -> Any:
        if not _in_workflow():
            return await original(fut, timeout)
        if timeout is not None and timeout <= 0:
            return await _at_once(fut)
        async with asyncio.timeout(timeout):
            return await fut

    return _marked(wait_for)


async def _at_once(fut: Any) -> Any:
    """What Python 3.12 does when there is no time at all, turn by turn."""
    future = asyncio.ensure_future(fut)
    if future.done():
        return future.result()
    inner: Any = tasks
    await inner._cancel_and_wait(future, loop=asyncio.get_running_loop())
    try:
        return future.result()
    except asyncio.CancelledError as error:
        raise TimeoutError from error


def _marked(function: Callable[..., Any]) -> Callable[..., Any]:
    vars(function)["stepwell"] = True
    return function
