"""Steps of packages that are workflows: started by events, linked both ways, as durable as other steps."""

import json
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from stepwell.flows.backend import pool_of
from stepwell.flows.manifest import load_flow
from stepwell.flows.package import Concurrency, Flow, Trigger
from stepwell.flows.stepdef import NOT_OF_WORKFLOWS
from stepwell.flows.views import run_view
from stepwell.model import commands as c
from stepwell.model.entries import EventSent
from stepwell.model.errors import Invalid
from stepwell.model.ids import flow_run_id

from .packages import event, package, write
from .started import ON_DEMO, REVIEW, House, Registered, look, on_both

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
