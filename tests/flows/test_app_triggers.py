"""`on=` of an app: its workflows listen to events, also for processes that do not have the app."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stepwell.flows.backend import FRESH_S, FlowBackend
from stepwell.flows.manifest import load_flow
from stepwell.flows.workflows import AppWorkflows, restored
from stepwell.model.errors import Invalid, TooLarge, Unknown
from stepwell.model.ids import flow_run_id
from stepwell.model.rows import Manifest

from .packages import event, package, write
from .started import REVIEW, House, Place, Registered, look, on_both


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
