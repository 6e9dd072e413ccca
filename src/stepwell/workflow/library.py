"""Functions of asyncio that would not replay the same, made so on a workflow's loop (source: spec workflow-loop 3).

`as_completed` puts coroutines into a set, so the order of their tasks depends on addresses. `wait_for` makes a task for
what it waits for until Python 3.11 and none later, so the path of a step would depend on the version. `all_tasks` looks
into a set of the whole process, in which the tasks of bodies are not. A `TaskGroup` that gives up miscounts the cancels
of its task until Python 3.12: a timeout around it becomes a cancel that nobody asked for, and a cancel may get lost.
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
    group: Any = asyncio.TaskGroup
    if sys.version_info < (3, 13) and not hasattr(group.__aexit__, "stepwell"):
        group.__aexit__ = _leave_group(group.__aexit__)


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


def _leave_group(original: Callable[..., Any]) -> Callable[..., Any]:
    """What Python 3.13 does: the group takes back its own cancel, also one that it asked for while it was left; that of
    anybody else, which it swallowed, comes again."""

    @wraps(original)
    async def leave(self: Any, et: Any, exc: Any, tb: Any) -> Any:
        taken_back, task = self._parent_cancel_requested, self._parent_task
        try:
            return await original(self, et, exc, tb)
        finally:
            if _in_workflow():
                if self._parent_cancel_requested and not taken_back:
                    task.uncancel()
                if self._errors is None and task.cancelling():  # it raises those
                    task.get_loop().call_soon(_cancel_again, task)

    return _marked(leave)


def _cancel_again(task: Any) -> None:
    """When the task waits next: a timeout that had canceled it has taken that back by then."""
    if task.cancelling() and not task.done():
        task.uncancel()
        task.cancel()


def _marked(function: Callable[..., Any]) -> Callable[..., Any]:
    vars(function)["stepwell"] = True
    return function
