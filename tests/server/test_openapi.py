"""`/openapi.json` says all that the server does, and the server does what it says."""

import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.routing import Route

from stepwell.engine.engine import Engine
from stepwell.flows.backend import FlowBackend
from stepwell.server.app import Methods, create_app
from stepwell.server.openapi import ERRORS, SCHEMAS, document, errors_of
from stepwell.server.options import ServerOptions
from stepwell.server.routes import OPERATIONS, Operation
from stepwell.store.memory import MemoryStore
from stepwell.worker.limits import Limits
from stepwell.worker.local import Local
from tests.server.support import ROOT, Server

EXAMPLES = 25
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def test_the_document_and_the_routes_are_the_same() -> None:
    engine = Engine(MemoryStore(), roles=False)
    app = create_app(Local(engine, FlowBackend(engine, ROOT), None, Limits(engine)))
    served = {
        (route.path.replace("{id:path}", "{id}"), method)
        for route in app.routes
        if isinstance(route, Route) and isinstance(route.endpoint, Methods)
        for method in route.endpoint.allowed.split(", ")
        if method != "HEAD"
    }
    paths = document("1", secured=False)["paths"]
    assert served == {(path, method.upper()) for path, found in paths.items() for method in found}
    assert len(served) == len(OPERATIONS)


def test_every_reference_is_there_and_every_schema_is_used() -> None:
    whole = document("1", secured=True)
    used = set(re.findall(r"#/components/schemas/(\w+)", str(whole)))
    assert used == set(whole["components"]["schemas"])
    ways = {
        way
        for path in whole["paths"].values()
        for one in path.values()
        for each in one.get("security", [])
        for way in each
    }
    assert ways == set(whole["components"]["securitySchemes"])


@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: one.id)
def test_every_parameter_and_error_is_described(one: Operation) -> None:
    found = document("1", secured=True)["paths"][one.path][one.method.lower()]
    assert ("id" in {param["name"] for param in found["parameters"]}) == ("{id}" in one.path)
    assert {param.name for param in one.params} <= {param["name"] for param in found["parameters"]}
    assert set(found["responses"]) == {str(each.status) for each in one.answers} | {
        str(each) for each in errors_of(one)
    }
    assert set(errors_of(one)) <= set(ERRORS)
    assert ("requestBody" in found) == (one.body is not None)
    assert ("security" in found) == (not one.open)


def test_the_page_for_people_names_every_route() -> None:
    page = (ROOT / "docs/http.md").read_text()
    for one in OPERATIONS:
        assert f"{one.method} {one.path}" in page, one.path
        assert all(param.name in page.lower() or param.name in page for param in one.params), one.id


def keys_of(schema: str) -> set[str]:
    return set(SCHEMAS[schema]["properties"])


def test_every_key_that_is_answered_is_described(server: Server) -> None:
    """Absent keys are left out, so a whole run is put together of several."""
    event = {"source": "s", "occurredAt": "o", "receivedAt": "r"}
    run_ids = server.send("keys", {}, **event)["runIds"]
    runs = [server.ended(run_id) for run_id in run_ids]
    shown = server.get("/events/keys")
    assert keys_of("EventAnswer") >= shown.keys()
    assert keys_of("Event") >= shown["event"].keys()
    for run in [*runs, *shown["runs"]]:
        assert keys_of("Run") >= run.keys()
        assert all(keys_of("Attempt") >= one.keys() for one in run.get("attempts", ()))
        assert all(keys_of("Entry") >= one.keys() for one in run.get("journal", ()))
        assert all(keys_of("Output") >= one.keys() for one in run.get("output", ()))


def test_a_signed_post_may_have_a_timestamp() -> None:
    paths = document("1", secured=True)["paths"]
    for one in OPERATIONS:
        names = {param["name"] for param in paths[one.path][one.method.lower()]["parameters"]}
        assert ("x-flow-timestamp" in names) == (one.method == "POST")


@pytest.fixture(scope="module")
def described(server: Server) -> Any:
    """The document as schemathesis has it, of a server that runs."""
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


GOOD, BAD = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
#: Nothing that could be sent to a route without a query and a body is against its schema.
CASES = [*((one, GOOD) for one in OPERATIONS), *((one, BAD) for one in OPERATIONS if one.params or one.body)]


@pytest.mark.parametrize(("one", "mode"), CASES, ids=[f"{one.id}-{mode.value}" for one, mode in CASES])
def test_whatever_is_sent_the_answer_is_as_described(described: Any, one: Operation, mode: GenerationMode) -> None:
    """Fault 20: client errors were 500, with source and stack."""
    operation = described[one.path][one.method]
    checks = CHECKS if mode is GOOD else [*CHECKS, negative_data_rejection]

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        if isinstance(case.query, dict):  # a wait or a stream that is well asked for takes its time
            case.query = {key: value for key, value in case.query.items() if key not in ("wait", "stream")}
        case.call_and_validate(checks=checks, timeout=10)

    check()


@pytest.mark.parametrize("path", sorted({one.path for one in OPERATIONS}))
@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(method=st.sampled_from(["PUT", "PATCH", "DELETE", "TRACE"]))
def test_no_other_method_is_taken(described: Any, path: str, method: str) -> None:
    operation = next(iter(described[path].values()))
    case = operation.Case(method=method, path_parameters={"id": "x"} if "{id}" in path else {})
    case.call_and_validate(checks=[not_a_server_error, unsupported_method], timeout=10)


def test_the_document_needs_a_token_where_reading_does() -> None:
    assert "security" not in document("1", secured=False)["paths"]["/events"]["get"]
    assert ServerOptions(secrets=("x",)).secured
