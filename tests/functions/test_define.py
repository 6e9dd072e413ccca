"""Functions, signals, states, pools and events as objects; and the decorators that make and register them."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import stepwell
from stepwell.functions.define import Completion, Event, Pool, Retry, Signal, State, Workflow
from stepwell.functions.errors import RunCanceled, RunError
from stepwell.functions.values import decode
from stepwell.model.errors import Invalid, UnknownFunction
from stepwell.workflow.app import App, Module
from stepwell.workflow.context import Context


async def body(ctx: Context, n: int) -> int:
    return n


async def ended(ctx: Any, n: int = 1) -> int:
    """Says what it does."""
    return n


def plain(ctx: Any) -> int:
    return 1


async def act(n: int) -> int:
    return n


bare = lambda n: n  # noqa: E731 - a function without annotations
bare.__name__ = "bare"


async def no_annotation(ctx: Any, n: int) -> int:
    return n


del no_annotation.__annotations__["ctx"]


async def no_context() -> int:
    return 1


async def only_keywords(*, ctx: Context) -> int:
    return 1


async def generator(ctx: Context) -> Any:
    yield 1


class Callable:
    def __call__(self, ctx: Any) -> int:
        return 1


def test_a_decorated_function_keeps_what_it_is() -> None:
    app = App("shop")
    function = app.workflow(ended)
    assert (function.path, function.name, function.kind, function.version) == ("shop:ended", "ended", "workflow", "1")
    assert function.fn is ended
    assert function.__doc__ == "Says what it does."
    assert not callable(function)
    assert app.registry.get("shop:ended") is function
    assert repr(function) == "<workflow shop:ended version 1>"


def test_options_are_kept_and_a_name_replaces_the_whole_path() -> None:
    app, gpu = App("shop"), Pool("gpu", 4)
    function = app.workflow(name="greet", version="2", on="hello", deadline=60, pool=gpu)(body)
    assert (function.path, function.version, function.on) == ("greet", "2", "hello")
    assert function.options == {"deadline": 60, "pool": gpu}
    charged = app.action(retry=Retry(5), timeout=3)(act)
    assert charged.options == {"retry": Retry(5), "timeout": 3}
    assert charged.internal


@pytest.mark.parametrize("wrong", [plain, no_annotation, no_context, only_keywords, generator, Callable, 3, None])
def test_what_is_no_workflow_is_refused(wrong: Any) -> None:
    app = App("shop")
    with pytest.raises(Invalid) as caught:
        app.workflow()(wrong)
    assert caught.value.hint
    assert len(app.registry) == 0


@pytest.mark.parametrize("wrong", [body, bare, no_context, Callable])
def test_what_is_no_query_is_refused(wrong: Any) -> None:
    with pytest.raises(Invalid):
        App("shop").query()(wrong)


def test_an_action_finds_its_context_by_annotation() -> None:
    app = App("shop")
    program: dict[str, Any] = {}
    exec(
        "from __future__ import annotations\n"
        "import stepwell\n"
        "from stepwell import ActionContext as Ours\n"
        "async def one(ctx: stepwell.ActionContext, n: int) -> int: ...\n"
        "async def two(ctx: Ours, n: int) -> int: ...\n"
        "async def three(n: int) -> int: ...\n"
        "async def four() -> int: ...\n",
        program,
    )
    found = {name: app.action(program[name]) for name in ("one", "two", "three", "four")}
    assert {name: one.takes_context for name, one in found.items()} == {
        "one": True,
        "two": True,
        "three": False,
        "four": False,
    }
    assert found["one"].signature.names == ("n",)
    with pytest.raises(Invalid, match="no annotation"):
        app.action(bare)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("action", {"timout": 3}),
        ("action", {"timeout": -1}),
        ("action", {"heartbeat": 0}),
        ("action", {"timeout": float("nan")}),
        ("action", {"timeout": "3"}),
        ("action", {"retry": 3}),
        ("action", {"pool": "gpu"}),
        ("action", {"key": ""}),
        ("action", {"priority": "high"}),
        ("action", {"priority": 10**9}),
        ("action", {"at": datetime(2024, 1, 1)}),  # noqa: DTZ001 - that is the mistake
        ("action", {"at": datetime(2024, 1, 1, tzinfo=UTC), "delay": 3}),
        ("action", {"returns": complex}),
        ("workflow", {"version": 2}),
        ("workflow", {"version": ""}),
        ("workflow", {"name": "x\n"}),
        ("workflow", {"on": "a\nb"}),
        ("workflow", {"retry": True}),
        ("workflow", {"retain": 60}),
        ("query", {"internal": "no"}),
        ("query", {"internal": False}),
        ("mutation", {"authorize": 3}),
    ],
)
def test_options_that_cannot_be_used_are_refused(kind: str, options: dict[str, Any]) -> None:
    app: Any = App("shop")
    with pytest.raises(Invalid) as caught:
        getattr(app, kind)(**options)({"action": act, "workflow": body}.get(kind, plain))
    assert caught.value.hint
    assert len(app.registry) == 0


def test_a_module_opens_its_functions_to_whom_it_says() -> None:
    module = Module("admin", authorize=lambda principal, call: principal.admin)
    assert module.query(internal=False)(plain).authorize is module.authorize


@pytest.mark.parametrize("name", ["", "a:b", "1a", "a b", "x" * 65, None, 3])
def test_a_module_needs_a_name(name: Any) -> None:
    with pytest.raises(Invalid, match="name of a module"):
        Module(name)


def test_migrations_are_beside_the_file_of_the_app() -> None:
    assert App("shop", migrations="sql").migrations == Path(__file__).resolve().parent / "sql"
    assert App("shop", migrations=Path("/sql")).migrations == Path("/sql")
    assert App("shop").migrations is None
    wrong: Any = 3
    for options in ({"migrations": wrong}, {"retry": wrong}):
        with pytest.raises(Invalid):
            App("shop", **options)


def test_registration_of_one_path_twice_is_refused() -> None:
    app = App("shop")
    app.workflow(body)
    with pytest.raises(Invalid, match=r"shop:body.*test_define.py:\d+ and .*test_define.py:\d+"):
        app.workflow(name="shop:body")(ended)
    with pytest.raises(Invalid, match="there already"):
        app.query(name="shop:body")(plain)


def test_versions_stand_side_by_side() -> None:
    app = App("shop")
    old = app.workflow(name="shop:checkout", version="1")(ended)
    new = app.workflow(name="shop:checkout", version="2")(body)
    registry = app.registry
    assert registry.workflow("shop:checkout") is new
    assert registry.workflow("shop:checkout", "1") is old
    assert registry.workflow("checkout", "2") is new
    assert registry.workflow("checkout", "3") is new
    assert registry.of("workflow") == [old, new]


def test_modules_are_included_with_what_they_get_later() -> None:
    app, module, other = App("shop"), Module("admin"), Module("other")
    early = module.action(act)
    app.include(module, other)
    app.include(module)
    late = module.workflow(body)
    assert app.registry.get("admin:act") is early
    assert app.registry.get("body") is late
    app.workflow(body)
    with pytest.raises(UnknownFunction):
        app.registry.get("body")  # two have this name now
    twin = Module("shop")
    twin.workflow(ended)
    app.include(twin)
    with pytest.raises(Invalid, match="there already"):
        twin.workflow(name="shop:body")(ended)
    wrong: Any = twin.registry
    with pytest.raises(Invalid, match="no Module"):
        app.include(wrong)


def test_modules_may_include_each_other() -> None:
    first, second = App("first"), App("second")
    first.include(second)
    second.include(first)
    first.include(first)
    function = first.workflow(body)
    assert second.registry.get("first:body") is function
    assert len(first.registry) == len(second.registry) == 1


def test_an_unknown_name_is_answered_with_those_near() -> None:
    app = App("shop")
    app.workflow(body)
    with pytest.raises(UnknownFunction, match="shop:bodi") as caught:
        app.registry.get("shop:bodi")
    assert "shop:body" in caught.value.hint
    with pytest.raises(UnknownFunction):
        app.registry.workflow("shop:none")
    with pytest.raises(UnknownFunction, match="no function"):
        App("empty").registry.get("x")


def test_the_registry_finds_annotations_that_name_nothing() -> None:
    program: dict[str, Any] = {"Context": Context}
    exec("async def later(ctx: 'Context', x: 'Nothing') -> int: ...", program)
    app = App("shop")
    app.workflow(program["later"])
    with pytest.raises(Invalid, match="Nothing"):
        app.registry.check()


def test_signals_and_states_check_what_they_are_made_of() -> None:
    assert repr(Signal("approval", int)) == "Signal('approval', int)"
    assert (State("progress", str).name, State("progress", str).type) == ("progress", str)
    for cls in (Signal, State):
        for name, wanted in (("", int), ("a\n", int), ("a", complex), (3, int)):
            bad: Any = name
            with pytest.raises(Invalid):
                cls(bad, wanted)


def test_pools_read_their_rate() -> None:
    pool = Pool("gpu", limit=20, per_key=2, rate="600/min")
    assert (pool.rate_count, pool.rate_ms) == (600, 60_000)
    assert Pool("gpu", rate="1 / hour").rate_ms == 3_600_000
    assert Pool("gpu").rate_count is None
    for options in ({"rate": "many"}, {"rate": "0/s"}, {"rate": "1/year"}, {"rate": 3}, {"limit": -1}, {"per_key": 0}):
        wrong: Any = options
        with pytest.raises(Invalid):
            Pool("gpu", **wrong)
    with pytest.raises(Invalid, match="1,000,000"):
        Pool("gpu", rate="1000001/s")


def test_a_pool_that_would_never_run_anything_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(Invalid, match="never run anything") as caught:
        Pool("gpu", limit=0)
    assert "stepwell pools pause gpu" in caught.value.hint


def test_an_event_is_read_as_it_is_sent() -> None:
    event = decode(
        '{"id":"e1","type":"release","payload":{"tag":"1"},"occurredAt":null,"receivedAt":"2024-01-01T00:00:00Z"}',
        Event[dict[str, str]],
    )
    assert (event.id, event.payload, event.received_at.year) == ("e1", {"tag": "1"}, 2024)
    made = Event("release", {"tag": "1"}, id=None, source="here")
    assert (made.id, made.type, made.source) == ("", "release", "here")
    for wrong in ({"type": ""}, {"type": "x", "id": "y\n"}):
        options: Any = {"payload": 1, **wrong}
        with pytest.raises(Invalid):
            Event(**options)


def test_a_completion_tells_of_the_error_as_an_error() -> None:
    failed = decode('{"run_id":"r","kind":"failed","error":{"type":"Boom","message":"no"}}', Completion)
    assert isinstance(failed.error, RunError)
    assert (failed.error.type, failed.error.message) == ("Boom", "no")
    assert isinstance(decode('{"run_id":"r","kind":"canceled","error":{}}', Completion).error, RunCanceled)
    assert decode('{"run_id":"r","kind":"success","value":[1],"context":2}', Completion).error is None


def test_the_public_names_are_all_there_and_come_when_asked() -> None:
    program = (
        "import sys, stepwell\n"
        "assert not [name for name in sys.modules if name.startswith('stepwell.')]\n"
        "missing = [name for name in stepwell.__all__ if getattr(stepwell, name, None) is None]\n"
        "assert not missing, missing\n"
        "assert set(stepwell.__all__) <= set(dir(stepwell))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="nothing_of_it"):
        stepwell.nothing_of_it  # noqa: B018


def test_a_workflow_can_be_made_without_an_app() -> None:
    function: Workflow[[int], int] = Workflow("shop", body)
    assert function.signature.bind((3,), {}) == '{"n":3}'
