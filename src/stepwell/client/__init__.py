"""Clients: of flows over HTTP and in this process, and of code-first workflows (source: spec codex-flows 6.1; API).

Names are imported when they are first asked for: who has the engine in the process needs no HTTP.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.client.blocking import BlockingFlowClient
    from stepwell.client.embedded import EmbeddedFlowClient, open_flow_client
    from stepwell.client.flow_client import FlowClient
    from stepwell.client.handle import Handle
    from stepwell.client.paged import Paged
    from stepwell.client.run import Entry, Output, Run
    from stepwell.client.stepwell import Stepwell
    from stepwell.client.views import AttemptView, DispatchResult, EventView, OutputChunk, OutputPage, Page, RunView

#: The module of each name.
_PLACES = {
    "AttemptView": "views",
    "BlockingFlowClient": "blocking",
    "DispatchResult": "views",
    "EmbeddedFlowClient": "embedded",
    "Entry": "run",
    "EventView": "views",
    "FlowClient": "flow_client",
    "Handle": "handle",
    "Output": "run",
    "OutputChunk": "views",
    "OutputPage": "views",
    "Page": "views",
    "Paged": "paged",
    "Run": "run",
    "RunView": "views",
    "Stepwell": "stepwell",
    "open_flow_client": "embedded",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "AttemptView",
    "BlockingFlowClient",
    "DispatchResult",
    "EmbeddedFlowClient",
    "Entry",
    "EventView",
    "FlowClient",
    "Handle",
    "Output",
    "OutputChunk",
    "OutputPage",
    "Page",
    "Paged",
    "Run",
    "RunView",
    "Stepwell",
    "open_flow_client",
]
