"""Events start workflows: by a step of a package, by `on=` of an app; linked both ways, as durable as steps."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from copy import copy
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct, field

from stepwell.engine.engine import Engine
from stepwell.flows.backend import FRESH_S, FlowBackend, pool_of
from stepwell.flows.manifest import load_flow
from stepwell.flows.package import Concurrency, Flow, Trigger
from stepwell.flows.stepdef import NOT_OF_WORKFLOWS
from stepwell.flows.views import full_run_view, run_view
from stepwell.flows.workflows import AppWorkflows, event_input, restored
from stepwell.functions.define import Event as UserEvent
from stepwell.functions.define import Workflow
from stepwell.functions.errors import ArgumentError
from stepwell.model import commands as c
from stepwell.model.entries import EventSent
from stepwell.model.errors import Invalid, TooLarge, Unknown
from stepwell.model.ids import flow_run_id
from stepwell.model.rows import Event, Manifest, Run
from stepwell.model.settings import Settings
from tests.support import STORES, assert_lawful, open_store

from .packages import event, package, write

REVIEW = """
[[steps]]
name = "look"
runner = "workflow"
workflow = "ci:review"
"""
ON_DEMO = '[steps.trigger]\ntype = "demo"\n'
NEEDS = ("workflow:ci:review",)
LEASE_MS = 60_000


class Registered(Struct, frozen=True):
    """A workflow as a registry has it."""

    path: str
    on: str | None = None
    version: str = "1"
    options: Mapping[str, Any] = field(default_factory=dict)


class Place(Struct, frozen=True):
    """What has a name, as a pool."""

    name: str


class House(Struct):
    """One engine, and backends on it as if they were processes."""

    engine: Engine
    cwd: Path

    def backend(self, *workflows: Registered, app: str = "ci") -> FlowBackend:
        """A process with an app; without workflows, one that has none."""
        return FlowBackend(self.engine, self.cwd, app=AppWorkflows(app, workflows) if workflows else None)

    async def claim(self, *requires: str) -> list[c.Leased]:
        secret = self.engine.secret()
        return (
            await self.engine.submit(c.Claim("w", secret, limit=10, lease_ms=LEASE_MS, requires=requires or NEEDS))
        ).tasks

    async def run(self, run_id: str) -> Run:
        run = await self.engine.read(lambda reader: reader.run("main", run_id))
        assert run is not None
        return run

    async def event(self, event_id: str) -> Event:
        row = await self.engine.read(lambda reader: reader.event("main", event_id))
        assert row is not None
        return row

    async def view(self, run_id: str) -> dict[str, Any]:
        run = await self.run(run_id)
        entries = await self.engine.read(lambda reader: reader.entries(run.no))
        return full_run_view(run, "ev-1", "", entries, ())

    async def finish(self, leased: c.Leased, result: str = "{}") -> None:
        await self.engine.submit(c.Finish(leased.lease, 1, c.Completed(result)))


def on_both(test: Callable[[House], Awaitable[None]]) -> Any:
    """Runs a test on each store; the store must be lawful at its end."""

    @pytest.mark.parametrize("kind", STORES)
    def run(kind: str, tmp_path: Path) -> None:
        store = open_store(kind, tmp_path)

        @asynccontextmanager
        async def opened() -> AsyncIterator[House]:
            async with Engine(store, settings=Settings(sync="normal"), roles=False) as engine:
                yield House(engine, tmp_path)
                await asyncio.to_thread(assert_lawful, store, engine.settings)

        async def main() -> None:
            async with opened() as it:
                await test(it)

        asyncio.run(main())

    run.__doc__ = test.__doc__
    return run


def look(cwd: Path, more: str = "", *, name: str = "pkg") -> Path:
    """A package whose step is the workflow ci:review, on events of type demo."""
    return package(cwd / "flows" / name, REVIEW + more + ON_DEMO, name=name)


# ── the manifest ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_names_a_workflow_and_has_what_events_have(tmp_path: Path) -> None:
    keys = 'workflow_version = "2"\npriority = 3\nenabled = false\n' + ON_DEMO
    limit = '[steps.concurrency]\nkey = "/payload/repo"\nlimit = 1\n'
    step = load_flow(package(tmp_path, REVIEW + keys + limit)).steps[0]
    assert (step.runner, step.workflow, step.workflow_version) == ("workflow", "ci:review", "2")
    assert (step.trigger, step.concurrency) == (Trigger("demo"), Concurrency("/payload/repo", 1))
    assert (step.priority, step.enabled, step.script) == (3, False, None)


VALUES = {
    "script": '"exec/hello.py"', "command": '["ls"]', "module": "true", "cwd": '"exec"', "env": '["A"]',
    "app_server": '"ws://localhost:1"', "timeout_ms": "5", "retry": "{ max_attempts = 2 }",
}  # fmt: skip


@pytest.mark.parametrize("key", NOT_OF_WORKFLOWS)
def test_what_is_of_programs_is_refused_with_what_to_do(tmp_path: Path, key: str) -> None:
    with pytest.raises(Invalid) as refused:
        load_flow(package(tmp_path, f"{REVIEW}{key} = {VALUES[key]}\n"))
    assert refused.value.fields["problems"] == [f"steps[0].{key}: the runner 'workflow' has no {key}"]
    assert refused.value.hint == NOT_OF_WORKFLOWS[key]


@pytest.mark.parametrize(
    ("steps", "problem", "hint"),
    [
        (REVIEW.replace('workflow = "ci:review"', ""), "steps[0].workflow: is required", "Name it as in its app"),
        (REVIEW.replace('"ci:review"', "7"), "steps[0].workflow: must be a text, not an integer", ""),
        (REVIEW.replace("ci:review", "x" * 129), "steps[0].workflow: is longer than 128 bytes", ""),
        (REVIEW + "workflow_version = 2", "steps[0].workflow_version: must be a text, not an integer", ""),
        ('[[steps]]\nname = "a"\nrunner = "python"\nscript = "exec/hello.py"\nworkflow = "a:b"\n',
         "steps[0].workflow: the runner 'python' starts no workflow", 'Use runner = "workflow", or remove it.'),
    ],
)  # fmt: skip
def test_other_faults_are_told(tmp_path: Path, steps: str, problem: str, hint: str) -> None:
    with pytest.raises(Invalid) as refused:
        load_flow(package(tmp_path, steps))
    assert refused.value.fields["problems"] == [problem]
    assert hint in refused.value.hint


def test_no_package_is_named_as_an_app(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="'app:ci' begins as the workflows of an app are named"):
        load_flow(package(tmp_path, REVIEW, name="app:ci"))


# ── an event starts it ───────────────────────────────────────────────────────────────────────────────────────────


@on_both
async def test_the_run_is_the_workflows_and_linked_both_ways(it: House) -> None:
    look(it.cwd, "priority = 4\n")
    flows = it.backend()
    accepted = await flows.dispatch(event())
    (run_id,) = accepted.run_ids
    assert run_id == flow_run_id("main", "ev-1", "pkg", "look", 0)
    run, row = await it.run(run_id), await it.event("ev-1")
    assert (run.kind, run.name, run.status, run.event_no, row.matched) == (
        "workflow", "ci:review", "queued", row.no, 1,
    )  # fmt: skip
    view = run_view(run, "ev-1")
    assert (view["eventId"], view["flowName"], view["stepName"], view["name"]) == (
        "ev-1", "pkg", "look", "ci:review",
    )  # fmt: skip
    assert view["tags"]["flowVersion"] == "1"
    assert await it.claim("flow:pkg", "workflow:ci:other") == [], "only who has the workflow is given it"
    (leased,) = await it.claim()
    assert (leased.kind, leased.input, leased.run.priority) == ("turn", None, 4)
    assert leased.event is not None
    assert (leased.event.id, leased.event.payload) == ("ev-1", '{"name":"Ada"}')
    again = await flows.dispatch(event())
    assert (again.status, again.run_ids) == ("duplicate", [run_id])
    await it.finish(leased, '{"ok":true}')
    assert "resultJson" not in await it.view(run_id), "its result is no FLOW_RESULT"


@on_both
async def test_it_is_retried_and_replayed_as_a_step_is(it: House) -> None:
    look(it.cwd)
    flows = it.backend(Registered("ci:review"))
    (first,) = (await flows.dispatch(event())).run_ids
    (leased,) = await it.claim()
    await it.engine.submit(c.Fail(leased.lease, 1, '{"type":"X","message":"no"}'))
    assert (await it.run(first)).status == "failed"
    assert (await flows.retry(first)).generation == 2
    (again,) = await it.claim()
    assert (again.run.id, again.event and again.event.id) == (first, "ev-1")
    await it.finish(again)
    for name in ("pkg", "pkg/look"):
        assert (await flows.replay("ev-1", steps=[name])).matched == 1
    runs = await it.claim()
    assert {one.run.id for one in runs} == {flow_run_id("main", "ev-1", "pkg", "look", n) for n in (1, 2)}
    assert {one.event.id for one in runs if one.event} == {"ev-1"}
    (alone,) = (await flows.run_one("pkg", "look", event())).run_ids
    assert (await it.run(alone)).replay == 3


@on_both
async def test_misses_are_told_and_a_fault_is_made_up_for(it: House) -> None:
    root = look(it.cwd, "enabled = false\n")
    broken = package(it.cwd / "flows/other", REVIEW + ON_DEMO + 'schema = "a.json"\n', name="other")
    write(broken / "a.json", '{"required": ["ref"]}')
    lost = package(it.cwd / "flows/third", REVIEW + ON_DEMO + 'schema = "b.json"\n', name="third")
    flows = it.backend()
    assert (await flows.dispatch(event())).run_ids == []
    misses = json.loads((await it.event("ev-1")).misses or "[]")
    assert [one["flow"] for one in misses] == ["other", "pkg", "third"]
    assert [one.get("fault", False) for one in misses] == [False, False, True]
    write(lost / "b.json", "{}")
    assert (await flows.dispatch(event())).matched == 1
    assert (root / "flow.toml").exists()
    (leased,) = await it.claim()
    assert leased.run.id == flow_run_id("main", "ev-1", "third", "look", 0)


@on_both
async def test_pool_and_concurrency_are_the_steps(it: House) -> None:
    root = package(
        it.cwd / "flows/pkg", REVIEW + ON_DEMO + '[steps.concurrency]\nkey = "/payload/repo"\nlimit = 1\n', name="pkg"
    )
    flows = it.backend()
    for n, repo in enumerate("aab"):
        await flows.dispatch(event({"repo": repo}, id=f"ev-{n}"))
    leased = await it.claim()
    assert [one.event and one.event.id for one in leased] == ["ev-0", "ev-2"]
    assert {one.run.pool for one in leased} == {pool_of(*_first(root))}


def _first(root: Path) -> tuple[Flow, Any]:
    flow = load_flow(root)
    return flow, flow.steps[0]


@on_both
async def test_the_version_is_the_pinned_one_or_the_newest_that_is_known(it: House) -> None:
    look(it.cwd)
    look(it.cwd, 'workflow_version = "1"\n', name="pinned")
    unknown = it.backend()
    before = (await unknown.dispatch(event(id="before"))).run_ids
    app = it.backend(Registered("ci:review", version="1"), Registered("ci:review", version="2"))
    after = (await app.dispatch(event(id="after"))).run_ids
    other = (await unknown.dispatch(event(id="other"))).run_ids
    versions = [[(await it.run(run_id)).version for run_id in ids] for ids in (before, after, other)]
    assert versions == [["1", ""], ["1", "2"], ["1", "2"]], "what has no app learns it from the store"


# ── on= ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@on_both
async def test_an_app_listens_in_the_newest_version(it: House) -> None:
    flows = it.backend(
        Registered("ci:review", on="demo", version="1"),
        Registered("ci:review", on="demo", version="2", options={"pool": Place("gpu")}),
        Registered("ci:quiet"),
        Registered("ci:later", on="other"),
        Registered("ci:gone", on="demo", version="1"),
        Registered("ci:gone", version="2"),
    )
    (run_id,) = (await flows.dispatch(event())).run_ids
    run = await it.run(run_id)
    assert run_id == flow_run_id("main", "ev-1", "app:ci", "ci:review", 0)
    assert (run.kind, run.name, run.version, run.pool) == ("workflow", "ci:review", "2", "gpu")
    (leased,) = await it.claim()
    assert leased.event is not None
    (again,) = (await flows.replay("ev-1", steps=["app:ci/ci:review"])).run_ids
    assert (await it.run(again)).replay == 1
    with pytest.raises(Unknown) as unknown:
        await flows.replay("ev-1", steps=["ci:quiet"])
    assert "app:ci/ci:review" in unknown.value.hint
    (quiet,) = (await flows.run_one("app:ci", "ci:quiet", event())).run_ids
    assert (await it.run(quiet)).name == "ci:quiet"


@on_both
async def test_its_triggers_hold_for_processes_that_do_not_have_the_app(it: House) -> None:
    """A command line beside a server must not accept an event without the runs that it starts there."""
    command_line, server = it.backend(), it.backend(Registered("ci:review", on="demo"))
    assert (await command_line.dispatch(event(id="early"))).run_ids == []
    await server.sync()
    assert len((await command_line.dispatch(event(id="a"))).run_ids) == 1
    look(it.cwd)
    await asyncio.sleep(FRESH_S)
    assert len((await command_line.dispatch(event(id="b"))).run_ids) == 2
    assert len((await server.dispatch(event(id="c"))).run_ids) == 2
    (run_id,) = (await it.backend().run_one("app:ci", "ci:review", event(id="d"))).run_ids
    assert (await it.run(run_id)).name == "ci:review"
    redeployed = it.backend(Registered("ci:review"))
    assert len((await redeployed.dispatch(event(id="e"))).run_ids) == 1
    assert len((await command_line.dispatch(event(id="f"))).run_ids) == 1


@on_both
async def test_a_process_without_any_folder_of_flows_takes_the_packages_from_the_store(it: House) -> None:
    """A program with an app of its own beside a server: what it dispatches starts the server's steps, too."""
    root = look(it.cwd)
    write(root / "a.json", '{"required": ["name"]}')
    (root / "flow.toml").write_text((root / "flow.toml").read_text() + 'schema = "a.json"\n')
    server = it.backend()
    await server.sync()
    program = FlowBackend(it.engine, it.cwd, roots=(), app=AppWorkflows("own", [Registered("own:it", on="demo")]))
    both = [(await it.run(run_id)).name for run_id in (await program.dispatch(event(id="a"))).run_ids]
    assert both == ["ci:review", "own:it"]
    assert (await program.dispatch(event({}, id="b"))).matched == 1, "with its schema"
    assert len((await server.dispatch(event(id="c"))).run_ids) == 2
    (root / "flow.toml").unlink()
    await asyncio.sleep(FRESH_S)
    assert len((await server.dispatch(event(id="d"))).run_ids) == 1
    assert len((await program.dispatch(event(id="e"))).run_ids) == 1, "the server alone says which packages there are"


@on_both
async def test_pool_and_deadline_are_those_of_the_app_unless_the_step_has_a_pool(it: House) -> None:
    look(it.cwd)
    look(it.cwd, 'pool = "own"\n', name="pooled")
    options = {"pool": Place("gpu"), "deadline": 90}
    accepted = await it.backend(Registered("ci:review", options=options)).dispatch(event())
    runs = [await it.run(run_id) for run_id in accepted.run_ids]
    assert [run.pool for run in runs] == ["gpu", "own"]
    assert [run.deadline and run.deadline - run.created_at for run in runs] == [90_000, 90_000]


@on_both
async def test_apps_live_side_by_side_and_events_that_race_a_change_are_matched_anew(it: House) -> None:
    first, second = it.backend(Registered("ci:a", on="demo")), it.backend(Registered("b", on="demo"), app="shop")
    await first.sync()
    await second.sync()
    backends = (first, second, it.backend())
    sent = [one.dispatch(event(id=f"ev-{n}")) for n, one in enumerate(backends * 3)]
    for accepted in await asyncio.gather(*sent):
        assert {(await it.run(run_id)).name for run_id in accepted.run_ids} == {"ci:a", "b"}


@pytest.mark.parametrize(
    ("app", "workflow", "named"),
    [
        ("ci", Registered("x" * 129), "the name of a workflow"),
        ("ci", Registered("a\n:b"), "the name of a workflow"),
        ("ci", Registered("a:b", on=""), "on"),
        ("ci", Registered("a:b", on="t" * 129), "on"),
        ("x" * 125, Registered("a:b"), "the name of the app"),
    ],
)
def test_names_that_cannot_be_stored_are_refused_at_the_start(app: str, workflow: Registered, named: str) -> None:
    with pytest.raises(Invalid, match=rf"^{named} cannot be"):
        AppWorkflows(app, [workflow])


def test_an_app_that_is_too_large_is_refused_at_the_start() -> None:
    app = AppWorkflows("ci", [Registered(f"ci:{n}") for n in range(100)])
    app.check_size(100_000)
    with pytest.raises(TooLarge, match=r"^app:ci has 100 workflows"):
        app.check_size(10_000)


def test_an_app_of_another_release_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    rows = [Manifest("main", "app:x", "1", "", 0, "{}"), Manifest("main", "pkg", "1", "", 0, "{}")]
    assert restored(rows, "app:") == ()
    assert "the triggers of app:x cannot be read" in caplog.text


def test_a_workflow_that_the_app_does_not_have(tmp_path: Path) -> None:
    app = AppWorkflows("ci", [Registered("ci:review", version="1"), Registered("ci:review", version="2")])

    def fault(text: str) -> Any:
        return app.fault(load_flow(package(tmp_path, text)).steps[0])

    assert fault(REVIEW) is None
    assert fault(REVIEW + 'workflow_version = "1"') is None
    assert fault(REVIEW.replace("review", "reveiw")) == (
        "workflow", "the app has no workflow 'ci:reveiw'", "Did you mean 'ci:review'?",
    )  # fmt: skip
    assert fault(REVIEW.replace("ci:review", "zzz"))[2] == "Its workflows: ci:review."
    assert fault(REVIEW + 'workflow_version = "3"') == (
        "workflow_version", "the app has 'ci:review' not in version '3'", "Versions there: 1, 2.",
    )  # fmt: skip


# ── what it sends ────────────────────────────────────────────────────────────────────────────────────────────────


@on_both
async def test_an_event_of_a_step_has_an_id_that_a_repeat_gives_it_again(it: House) -> None:
    flows = it.backend(Registered("ci:review", on="demo"))
    (run_id,) = (await flows.dispatch(event())).run_ids
    run = copy(await it.run(run_id))

    def sent(key: str, **keys: Any) -> c.NewEvent:
        emission = flows.emission_of(run, key, {"type": "demo", **keys}, 7)
        (one,) = emission.events
        assert (emission.manifests_at, emission.scope, len(one.matches)) == (7, "main", 1)
        return one.event

    assert sent("r/dispatch#1").id == sent("r/dispatch#1").id != sent("r/dispatch#2").id
    assert sent("r/dispatch#1", id="mine").id == "mine"
    assert sent("r/dispatch#1").body_hash == sent("r/dispatch#1").body_hash
    of_result = flows.emission(run, [{"type": "demo"}], 0)
    assert of_result is not None
    assert of_result.events[0].event.id != sent("r/dispatch#0").id
    before = sent("r/dispatch#1").id
    run.generation += 1
    assert sent("r/dispatch#1").id != before, "what is begun again sends anew"
    with pytest.raises(Invalid):
        sent("r/dispatch#1", type=3)


@on_both
async def test_a_workflow_sends_an_event_that_starts_the_next(it: House) -> None:
    flows = it.backend(Registered("ci:review", on="demo"), Registered("ci:next", on="reviewed"))
    (run_id,) = (await flows.dispatch(event())).run_ids
    (leased,) = await it.claim()

    async def write(revision: int) -> c.Recorded:
        wanted = {"type": "reviewed", "payload": {"ok": True}}
        emission = flows.emission_of(leased.run, "r/dispatch#1", wanted, revision)
        body = EventSent(emission.events[0].event.id)
        return await it.engine.submit(
            c.Record(leased.lease, 1, leased.seen, (c.Draft(body, "r/dispatch#1", emission),))
        )

    await flows.matched(write)
    await flows.matched(write)
    (sent,) = (await it.view(run_id))["nextEventIds"]
    row = await it.event(sent)
    assert (row.cause, row.depth, row.matched) == (run_id, 1, 1)
    (following,) = await it.claim("workflow:ci:next")
    assert following.event is not None
    assert following.event.id == sent


# ── what it gets ─────────────────────────────────────────────────────────────────────────────────────────────────


class Taking:
    """A signature that gives its value on as it is."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def whole(self, value_json: str) -> str:
        return value_json


def stored(**keys: Any) -> Event:
    row: dict[str, Any] = {"received_at": "2026-05-13T13:36:00.000Z", "source": None, "occurred_at": None}
    row |= {"payload": '{"a":1}', **keys}
    return Event(1, "main", "e", "t", body_hash="", matched=0, replays=0, created_at=1_000, **row)


def given(row: Event) -> Any:
    return json.loads(event_input(row, Taking("event")))


def test_the_input_is_the_event_and_the_same_each_time() -> None:
    row = stored(source="git", occurred_at="2026-05-13T13:35:00+02:00", extra='{"trace":7}')
    assert given(row) == {
        "id": "e", "type": "t", "source": "git", "occurredAt": "2026-05-13T13:35:00+02:00",
        "receivedAt": "2026-05-13T13:36:00+00:00", "payload": {"a": 1}, "trace": 7,
    }  # fmt: skip
    assert event_input(row, Taking("event")) == event_input(row, Taking("event"))
    assert event_input(row, Taking()) == "{}", "a workflow without parameters has no use for it"


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("yesterday", None), ("", None), ("2026-05-13", "2026-05-13T00:00:00+00:00"), ("12", None),
        ("2026-05-13T13:35:00", "2026-05-13T13:35:00+00:00"), (" 20260513T133500Z ", "2026-05-13T13:35:00+00:00"),
    ],
)  # fmt: skip
def test_a_time_that_is_none_fails_no_workflow(said: str, read: str | None) -> None:
    assert given(stored(occurred_at=said)).get("occurredAt") == read
    assert given(stored(received_at=said))["receivedAt"] == (read or "1970-01-01T00:00:01+00:00")


class Context:
    """What a workflow's first parameter is annotated with here."""


class Release(Struct):
    tag: str


async def typed(ctx: Context, event: UserEvent[Release]) -> None: ...


async def raw(ctx: Context, body: dict[str, Any]) -> None: ...


async def parts(ctx: Context, payload: Release, occurred_at: datetime, note: str = "none") -> None: ...


async def nothing(ctx: Context) -> None: ...


def arguments(fn: Callable[..., Any], row: Event) -> dict[str, Any]:
    """What a function would be called with."""
    workflow = Workflow[Any, Any]("ci", fn, {"on": "t"})
    assert AppWorkflows("ci", [workflow]).flow.steps[0].workflow == f"ci:{fn.__name__}"
    return workflow.signature.arguments(event_input(row, workflow.signature))


def test_a_workflow_gets_the_event_as_its_parameters_are_annotated() -> None:
    row = stored(payload='{"tag":"v1"}', source="git", occurred_at="2026-05-13", extra='{"trace":7}')
    event = arguments(typed, row)["event"]
    assert (event.id, event.type, event.payload, event.source) == ("e", "t", Release("v1"), "git")
    assert (event.occurred_at.isoformat(), event.received_at.minute) == ("2026-05-13T00:00:00+00:00", 36)
    body = arguments(raw, row)["body"]
    assert (body["payload"], body["trace"], body["id"]) == ({"tag": "v1"}, 7, "e")
    found = arguments(parts, row)
    assert (found["payload"], found["occurred_at"].day, found.get("note", "none")) == (Release("v1"), 13, "none")
    assert arguments(nothing, row) == {}


def test_a_payload_that_does_not_fit_is_told_by_its_path() -> None:
    with pytest.raises(ArgumentError, match="tag"):
        arguments(typed, stored(payload='{"tag":7}'))
