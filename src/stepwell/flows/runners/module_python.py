"""Calls `flow(context)` of a script, in the step's own process (source: spec codex-flows 3.1, for Python).

Context in on stdin, FLOW_RESULT out as the last line. What is raised is a result with status `failed` and exit 0, as in
the seed's module mode. Usage: python -u module_python.py SCRIPT. It runs under the step's interpreter, where stepwell
may not be installed; so it imports nothing of it.
"""

import sys

if not getattr(sys.flags, "safe_path", False):
    sys.path.pop(0)  # our own folder is none of the script's business

import asyncio
import inspect
import json
import os
import traceback
import types
from collections.abc import Awaitable
from typing import Any

MAX_MESSAGE_CHARS = 10_000


def main(script: str) -> None:
    """Run it, and say what came of it."""
    context = json.load(sys.stdin)
    out = sys.stdout  # the script may replace it
    sys.argv = [script]
    sys.path.insert(0, os.path.dirname(os.path.realpath(script)))  # noqa: PTH120 - as the interpreter does it
    line = answer(script, context)
    out.flush()
    out.write(f"\nFLOW_RESULT {line}\n")
    out.flush()


def answer(script: str, context: Any) -> str:
    """The JSON of the result."""
    try:
        return json.dumps(checked(call(load(script), context)), allow_nan=False)
    except Exception as error:
        traceback.print_exc()
        return json.dumps({"status": "failed", "message": told(error)[:MAX_MESSAGE_CHARS]})


def told(error: Exception) -> str:
    """What it says of itself."""
    try:
        return str(error) or type(error).__name__
    except Exception:  # its own __str__ fails
        return type(error).__name__


def load(script: str) -> Any:
    """The function `flow` of the script. Nothing is cached on disk, as nothing is of a script."""
    module = types.ModuleType("flow_step")
    module.__file__ = script
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    with open(script, "rb") as file:  # noqa: PTH123 - no need to load pathlib for this
        code = compile(file.read(), script, "exec")
    exec(code, module.__dict__)  # noqa: S102 - it is the step
    handler = getattr(module, "flow", None)
    if not callable(handler):
        raise TypeError("module flow step must define a function flow(context)")
    return handler


def call(handler: Any, context: Any) -> Any:
    """What it answers, awaited if need be."""
    result = handler(context)
    return asyncio.run(finished(result)) if inspect.isawaitable(result) else result


async def finished(result: Awaitable[Any]) -> Any:
    """A coroutine for any awaitable."""
    return await result


def checked(result: Any) -> Any:
    """The result, if it has a status."""
    if not isinstance(result, dict) or not isinstance(result.get("status"), str):
        raise TypeError("module flow step must return a FlowResult object")
    return result


if __name__ == "__main__":
    main(sys.argv[1])
