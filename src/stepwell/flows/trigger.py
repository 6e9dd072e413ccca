"""Which steps an event starts, and why the others that listen to its type do not (source: spec codex-flows 1.3)."""

from collections.abc import Iterable

from msgspec import Struct

from stepwell.flows.events import FlowEvent, event_view
from stepwell.flows.package import Flow, Step, Trigger
from stepwell.flows.pointer import concurrency_key
from stepwell.flows.schemas import Schemas

MAX_MISSES = 100


class StepMatch(Struct, frozen=True):
    """A step to run. `key` is its concurrency key, or None when it has none in this event."""

    flow: Flow
    step: Step
    key: str | None


class Miss(Struct, frozen=True):
    """A step with the event's type that does not run, and the reason; `fault`: it could not be found out."""

    flow: Flow
    step: Step
    reason: str
    fault: bool = False


class Matching(Struct, frozen=True):
    """Matches in the order of flows and steps; the first `MAX_MISSES` misses."""

    matches: tuple[StepMatch, ...]
    misses: tuple[Miss, ...]


def match(flows: Iterable[Flow], event: FlowEvent, schemas: Schemas) -> Matching:
    """Compare an event with every step. Types match exactly; a missing or broken schema is a miss of its step."""
    view = event_view(event)
    matches: list[StepMatch] = []
    misses: list[Miss] = []
    for flow in flows:
        for step in flow.steps:
            if step.trigger is None or step.trigger.type != event.type:
                continue
            reason, fault = _miss(flow, step, step.trigger, event, schemas)
            if reason:
                misses.append(Miss(flow, step, reason, fault))
            else:
                key = concurrency_key(step.concurrency.key, view) if step.concurrency else None
                matches.append(StepMatch(flow, step, key))
    return Matching(tuple(matches), tuple(misses[:MAX_MISSES]))


def _miss(flow: Flow, step: Step, trigger: Trigger, event: FlowEvent, schemas: Schemas) -> tuple[str, bool]:
    if not step.enabled:
        return "the step is disabled", False
    if trigger.schema is None:
        return "", False
    return schemas.judge(flow.root, trigger.schema, event.payload, allow_outside=step.allow_outside)
