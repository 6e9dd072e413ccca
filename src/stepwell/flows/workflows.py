"""Workflows that events start: those of an app as the steps of a flow (source: API.md, `@app.workflow(on=...)`).

An app stands among the manifests as the flow `app:NAME`, with its workflows in their newest version as steps. So what
matches an event, misses, replays and is looked up does so as for packages; and a process that has not loaded the app,
such as a command line, finds its triggers in the store.
"""

import difflib
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import msgspec

from stepwell.flows.events import MAX_TYPE_BYTES, event_view, flow_event
from stepwell.flows.jsonvalue import has_control
from stepwell.flows.package import APP_PREFIX, DEFAULT_POOL, WORKFLOW, Flow, Step, Trigger
from stepwell.functions.retry import duration_ms
from stepwell.model.errors import Invalid, TooLarge
from stepwell.model.ids import MAX_NAME_BYTES
from stepwell.model.rows import Event, Manifest

log = logging.getLogger("stepwell.flows")
#: How many names a hint lists.
LISTED = 10
_NOWHERE = Path("/")
_SNAKE = {"occurred_at": "occurredAt", "received_at": "receivedAt"}


class Registered(Protocol):
    """A workflow as far as events go: `path` is its whole name, `on` the type of events that start it."""

    @property
    def path(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def on(self) -> str | None: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


class AppWorkflows:
    """The workflows of the app `name`, in the order of their registration: of two versions the later is the newer."""

    def __init__(self, name: str, workflows: Iterable[Registered]) -> None:
        self._versions: dict[str, set[str]] = {}
        newest: dict[str, Registered] = {}
        for one in workflows:
            newest[one.path] = one
            self._versions.setdefault(one.path, set()).add(one.version)
        steps = tuple(_step(newest[path]) for path in sorted(newest))
        self.flow = Flow(_NOWHERE, _NOWHERE, _named("the name of the app", APP_PREFIX + name), 1, steps=steps)

    def check_size(self, limit: int) -> None:
        """Raises `TooLarge` for an app with more workflows than the store takes as one manifest."""
        size = len(stored(self.flow).encode())
        if size > limit:
            hint = "Make two apps of it, or raise STEPWELL_PAYLOAD_BYTES."
            what = f"{self.flow.name} has {len(self.flow.steps):,} workflows, which take {size:,} bytes as JSON"
            raise TooLarge(f"{what}; the limit is {limit:,}", what="manifest", size=size, limit=limit, hint=hint)

    def fault(self, step: Step) -> tuple[str, str, str] | None:
        """Why the workflow that a step names cannot run with this app: (key, reason, hint), or None."""
        if step.workflow is None:
            return None
        versions = self._versions.get(step.workflow)
        if versions is None:
            return "workflow", f"the app has no workflow {step.workflow!r}", _near(step.workflow, self._versions)
        if step.workflow_version is not None and step.workflow_version not in versions:
            reason = f"the app has {step.workflow!r} not in version {step.workflow_version!r}"
            return "workflow_version", reason, f"Versions there: {', '.join(sorted(versions))}."
        return None


def _step(workflow: Registered) -> Step:
    pool, deadline = workflow.options.get("pool"), workflow.options.get("deadline")
    return Step(
        name=_named("the name of a workflow", workflow.path),
        runner=WORKFLOW,
        workflow=workflow.path,
        workflow_version=workflow.version,
        trigger=None if workflow.on is None else Trigger(_named("on", workflow.on, MAX_TYPE_BYTES)),
        pool=DEFAULT_POOL if pool is None else pool.name,
        deadline_ms=None if deadline is None else duration_ms(deadline, "deadline"),
    )


def _named(what: str, name: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    if not name.strip() or has_control(name) or len(name.encode()) > max_bytes:
        hint = f"Use 1 to {max_bytes} bytes without control characters."
        raise Invalid(f"{what} cannot be {name!r:.200}", hint=hint, field="name")
    return name


def _near(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"Its workflows: {', '.join(names[:LISTED]) or 'none'}{more}."


def newest(flows: Iterable[Flow], name: str) -> Step | None:
    """A workflow as the app has it that stands among the flows; None when none has it."""
    apps = (flow for flow in flows if flow.name.startswith(APP_PREFIX))
    return next((step for app in apps if (step := app.step(name)) is not None), None)


def needs_workflow(name: str) -> str:
    """What a worker must have to be given a turn of a workflow."""
    return f"workflow:{name}"


# ── manifests ────────────────────────────────────────────────────────────────────────────────────────────────────


def stored(flow: Flow) -> str:
    """A flow as its manifest keeps it."""
    return msgspec.json.encode(flow, enc_hook=str).decode()


def digest(flow: Flow) -> str:
    """What tells two manifests of one name apart."""
    return sha256(stored(flow).encode()).hexdigest()


def restored(manifests: Iterable[Manifest], prefix: str) -> tuple[Flow, ...]:
    """The flows among the manifests whose names begin so, packages before apps, by name.

    One that another release wrote and this one cannot read is logged.
    """
    found: list[Flow] = []
    for row in sorted(manifests, key=lambda row: (row.name.startswith(APP_PREFIX), row.name)):
        if row.name.startswith(prefix):
            try:
                found.append(msgspec.json.decode(row.data, type=Flow, dec_hook=_path))
            except msgspec.DecodeError as error:
                log.warning("the triggers of %s cannot be read, its events start nothing here: %s", row.name, error)
    return tuple(found)


def _path(kind: type, value: Any) -> Any:
    return Path(value)


# ── input ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Taking(Protocol):
    """What a workflow takes, as `functions.signature` says it."""

    names: tuple[str, ...]

    def whole(self, value_json: str) -> str: ...


def event_input(row: Event, taking: Taking) -> str:
    """The arguments that an event gives a workflow, as JSON; the same each time, live and on replay (API.md, rule 1).

    One parameter gets the FlowEvent whole: typed, if it is annotated `Event[T]`, else as the annotation reads its wire
    form. Several get what they are named after, as `payload` and `occurred_at`. A workflow without any gets nothing.
    """
    view = _event_view(row)
    if len(taking.names) != 1:
        view |= {snake: view[camel] for snake, camel in _SNAKE.items() if camel in view}
        view = {name: view[name] for name in taking.names if name in view}
    return taking.whole(msgspec.json.encode(view).decode())


def _event_view(row: Event) -> dict[str, Any]:
    """The wire form; a time that is none is left out, and one without a zone gets UTC, since an `Event` has times."""
    event = flow_event(row)
    received = _time(event.received_at) or datetime.fromtimestamp(row.created_at / 1_000, UTC).isoformat()
    occurred = None if event.occurred_at is None else _time(event.occurred_at)
    times = {"occurred_at": occurred, "received_at": received}
    return event_view(msgspec.structs.replace(event, **times))


def _time(text: str) -> str | None:
    """A time with a zone, UTC if it names none, in the form that JSON decoders take; None for what is no time."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return found.replace(tzinfo=found.tzinfo or UTC).isoformat()
