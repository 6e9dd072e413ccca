"""Clients of flows: over HTTP, async and blocking, and one with the engine inside (source: spec codex-flows 6.1)."""

from stepwell.client.blocking import BlockingFlowClient
from stepwell.client.embedded import EmbeddedFlowClient, open_flow_client
from stepwell.client.flow_client import FlowClient
from stepwell.client.views import AttemptView, DispatchResult, EventView, OutputChunk, OutputPage, Page, RunView

__all__ = [
    "AttemptView",
    "BlockingFlowClient",
    "DispatchResult",
    "EmbeddedFlowClient",
    "EventView",
    "FlowClient",
    "OutputChunk",
    "OutputPage",
    "Page",
    "RunView",
    "open_flow_client",
]
