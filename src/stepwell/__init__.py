"""Stepwell: a durable flow backend that you own. What is named here is the public API; all else may change.

Names are imported when they are first asked for, so that the command line starts without what it does not use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.client.handle import Handle
    from stepwell.client.paged import Paged
    from stepwell.client.run import Entry, Output, Run
    from stepwell.client.stepwell import Stepwell
    from stepwell.functions.action_context import ActionContext
    from stepwell.functions.contexts import MutationContext, QueryContext
    from stepwell.functions.database import Database
    from stepwell.functions.define import (
        Action,
        Call,
        Completion,
        Dispatched,
        Event,
        Function,
        Mutation,
        Pool,
        Principal,
        Query,
        Retry,
        Signal,
        State,
        Workflow,
    )
    from stepwell.functions.errors import (
        AppError,
        ArgumentError,
        HistoryMismatch,
        NondeterministicCall,
        NonRetryable,
        NotJson,
        ResultMismatch,
        RunCanceled,
        RunError,
        SignalTimeout,
        StepError,
        StepTimeout,
    )
    from stepwell.model.errors import Conflict, Ended, Exists, Invalid, StepwellError, TooLarge, Unavailable
    from stepwell.model.errors import Forbidden as Denied
    from stepwell.model.errors import Limited as Busy
    from stepwell.model.errors import Stale as LeaseLost
    from stepwell.model.errors import Unknown as NotFound
    from stepwell.worker.app import Worker
    from stepwell.workflow.app import App, Module
    from stepwell.workflow.context import Context

#: Where each name is, as `module` or `module:name there`.
_PLACES = {
    "Action": "functions.define",
    "ActionContext": "functions.action_context",
    "App": "workflow.app",
    "AppError": "functions.errors",
    "ArgumentError": "functions.errors",
    "Busy": "model.errors:Limited",
    "Call": "functions.define",
    "Completion": "functions.define",
    "Conflict": "model.errors",
    "Context": "workflow.context",
    "Database": "functions.database",
    "Denied": "model.errors:Forbidden",
    "Dispatched": "functions.define",
    "Ended": "model.errors",
    "Entry": "client.run",
    "Event": "functions.define",
    "Exists": "model.errors",
    "Function": "functions.define",
    "Handle": "client.handle",
    "HistoryMismatch": "functions.errors",
    "Invalid": "model.errors",
    "LeaseLost": "model.errors:Stale",
    "Module": "workflow.app",
    "Mutation": "functions.define",
    "MutationContext": "functions.contexts",
    "NonRetryable": "functions.errors",
    "NondeterministicCall": "functions.errors",
    "NotFound": "model.errors:Unknown",
    "NotJson": "functions.errors",
    "Output": "client.run",
    "Paged": "client.paged",
    "Pool": "functions.define",
    "Principal": "functions.define",
    "Query": "functions.define",
    "QueryContext": "functions.contexts",
    "ResultMismatch": "functions.errors",
    "Retry": "functions.define",
    "Run": "client.run",
    "RunCanceled": "functions.errors",
    "RunError": "functions.errors",
    "Signal": "functions.define",
    "SignalTimeout": "functions.errors",
    "State": "functions.define",
    "StepError": "functions.errors",
    "StepTimeout": "functions.errors",
    "Stepwell": "client.stepwell",
    "StepwellError": "model.errors",
    "TooLarge": "model.errors",
    "Unavailable": "model.errors",
    "Worker": "worker.app",
    "Workflow": "functions.define",
}


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = place.partition(":")
    value = getattr(import_module(f"{__name__}.{module}"), there or name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "Action",
    "ActionContext",
    "App",
    "AppError",
    "ArgumentError",
    "Busy",
    "Call",
    "Completion",
    "Conflict",
    "Context",
    "Database",
    "Denied",
    "Dispatched",
    "Ended",
    "Entry",
    "Event",
    "Exists",
    "Function",
    "Handle",
    "HistoryMismatch",
    "Invalid",
    "LeaseLost",
    "Module",
    "Mutation",
    "MutationContext",
    "NonRetryable",
    "NondeterministicCall",
    "NotFound",
    "NotJson",
    "Output",
    "Paged",
    "Pool",
    "Principal",
    "Query",
    "QueryContext",
    "ResultMismatch",
    "Retry",
    "Run",
    "RunCanceled",
    "RunError",
    "Signal",
    "SignalTimeout",
    "State",
    "StepError",
    "StepTimeout",
    "Stepwell",
    "StepwellError",
    "TooLarge",
    "Unavailable",
    "Worker",
    "Workflow",
]
