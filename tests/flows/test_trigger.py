import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from stepwell.flows.manifest import load_flow
from stepwell.flows.package import Flow
from stepwell.flows.schemas import Schemas
from stepwell.flows.trigger import MAX_MISSES, Matching, match

from .packages import STEP, TRIGGERED, event, package, write

WITH_SCHEMA = TRIGGERED + 'schema = "schemas/demo.json"\n'


def flow_with(root: Path, schema: Any, steps: str = WITH_SCHEMA) -> Flow:
    package(root, steps)
    write(root / "schemas/demo.json", schema if isinstance(schema, str) else json.dumps(schema))
    return load_flow(root)


def matched(*flows: Flow, payload: Any = None, schemas: Schemas | None = None) -> Matching:
    return match(flows, event(payload), schemas or Schemas())


def reason(root: Path, schema: Any, payload: Any) -> str:
    found = matched(flow_with(root, schema), payload=payload)
    assert len(found.matches) + len(found.misses) == 1
    return found.misses[0].reason if found.misses else ""


def test_types_match_exactly_and_every_step_is_on_its_own(tmp_path: Path) -> None:
    other = TRIGGERED.replace('"hello"', '"other"').replace('type = "demo"', 'type = "Demo"')
    again = TRIGGERED.replace('"hello"', '"again"')
    idle = STEP.replace('"hello"', '"idle"')
    found = matched(load_flow(package(tmp_path, TRIGGERED + other + again + idle)))
    assert [each.step.name for each in found.matches] == ["hello", "again"]
    assert found.misses == ()


def test_reasons_as_in_the_seed(tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["name"], "properties": {"kind": {"enum": ["demo"]}}}
    assert reason(tmp_path, schema, {"kind": "x"}) == "$.name is required; $.kind must be one of demo"
    assert reason(tmp_path, schema, {"name": "Ada", "kind": "demo"}) == ""


@pytest.mark.parametrize(
    ("schema", "bad", "good", "expected"),
    [
        ({"items": {"type": "string"}}, [1], ["a"], "$[0] must be string"),
        ({"properties": {"b": {}}, "additionalProperties": False}, {"a": 1}, {"b": 1},
         "$: Additional properties are not allowed ('a' was unexpected)"),
        ({"const": 3}, 4, 3, "$: 3 was expected"),
        ({"required": ["toString"]}, {}, {"toString": 1}, "$.toString is required"),
        ({"type": ["object", "null"], "required": ["a"]}, {}, None, "$.a is required"),
        ({"properties": {"a": {"enum": [{"x": 1}]}}}, {"a": {"x": 2}}, {"a": {"x": 1}}, '$.a must be one of {"x":1}'),
        ({"$defs": {"n": {"minimum": 5}}, "$ref": "#/$defs/n"}, 1, 9, "$: value is less than the minimum of 5"),
        ({"type": ["string", "null"]}, 1, None, "$ must be null or string"),
        (False, 1, None, "$: False schema does not allow value"),
    ],
)  # fmt: skip
def test_the_whole_of_json_schema_counts(tmp_path: Path, schema: Any, bad: Any, good: Any, expected: str) -> None:
    """Fault 34: upstream knew four keywords and read some of them wrongly."""
    assert reason(tmp_path, schema, bad) == expected
    if schema is not False and good is not None:
        assert reason(tmp_path, schema, good) == ""


def test_values_do_not_leak_into_reasons(tmp_path: Path) -> None:
    schema = {"properties": {"token": {"type": "string", "pattern": "^x", "maxLength": 3}}}
    assert "s3cret" not in reason(tmp_path, schema, {"token": "s3cret"})


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("{", "is not JSON"),
        ("[]", "must be a JSON object or a boolean"),
        ('{"type": "strin"}', "$.type: "),
        ('{"pattern": "("}', "$.pattern: "),
        ('{"const": "\\ud800"}', "lone surrogates"),
        ('{"$schema": "https://example.com/own"}', "it refers to https://example.com/own, which is outside"),
        ("[" * 5_000, "nested deeper"),
        ('{"$ref": "https://example.com/x.json"}', "it refers to https://example.com/x.json, which is outside"),
        ('{"$ref": "file:///etc/hostname"}', "outside of the package"),
        ('{"$ref": "../../outside.json"}', "outside of the package"),
        ('{"$ref": "%2e%2e/%2e%2e/outside.json"}', "outside of the package"),
        ('{"$ref": "link.json"}', "outside of the package"),
        ('{"$id": "https://example.com/a", "$ref": "b"}', "it refers to https://example.com/b, which is outside"),
        ('{"$ref": "missing.json"}', "there is no such file"),
        ('{"$ref": "pipe.json"}', "there is no such file"),
        ('{"$ref": "#/$defs/none"}', "none"),
    ],
)  # fmt: skip
def test_a_broken_schema_is_a_miss_of_its_step_only(tmp_path: Path, schema: str, expected: str) -> None:
    """Faults 1 and 2: it used to throw, after the event had been stored, for all flows."""
    write(tmp_path / "outside.json", "{}")
    broken = flow_with(tmp_path / "demo", schema)
    (tmp_path / "demo/schemas/link.json").symlink_to(tmp_path / "outside.json")
    os.mkfifo(tmp_path / "demo/schemas/pipe.json")
    good = load_flow(package(tmp_path / "good", name="good"))
    found = matched(broken, good)
    assert [each.flow.name for each in found.matches] == ["good"]
    (miss,) = found.misses
    assert miss.reason.startswith("the schema schemas/demo.json cannot be used: ")
    assert expected in miss.reason


def test_a_missing_schema_is_a_miss_until_it_is_there(tmp_path: Path) -> None:
    flow, schemas = load_flow(package(tmp_path, WITH_SCHEMA)), Schemas()
    assert "there is no such file" in matched(flow, schemas=schemas).misses[0].reason
    write(tmp_path / "schemas/demo.json", "{}")
    assert matched(flow, schemas=schemas).matches


def test_schemas_may_refer_to_each_other_in_the_package(tmp_path: Path) -> None:
    write(tmp_path / "schemas/name.json", '{"$defs": {"name": {"type": "string"}}}')
    schemas = Schemas()
    flow = flow_with(tmp_path, {"properties": {"name": {"$ref": "name.json#/$defs/name"}}})
    assert matched(flow, payload={"name": 1}, schemas=schemas).misses[0].reason == "$.name must be string"
    write(tmp_path / "schemas/name.json", '{"$defs": {"name": {"type": "integer"}}}')
    assert matched(flow, payload={"name": 1}, schemas=schemas).matches


def test_a_schema_swapped_for_a_link_out_is_refused(tmp_path: Path) -> None:
    flow = flow_with(tmp_path / "demo", {})
    (tmp_path / "demo/schemas/demo.json").unlink()
    (tmp_path / "demo/schemas/demo.json").symlink_to(write(tmp_path / "outside.json", "{}"))
    assert matched(flow).misses[0].reason == "the schema schemas/demo.json leaves the package"


def test_older_drafts_keep_their_meaning(tmp_path: Path) -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert reason(tmp_path, schema, [1]) == "$[0] must be string"


def test_many_errors_stay_short_and_quick(tmp_path: Path) -> None:
    schema = {"items": {"type": "string"}}
    assert reason(tmp_path, schema, [1] * 200_000) == "$[0] must be string"
    assert reason(tmp_path, schema, [1] * 50).endswith("$[9] must be string; and 40 more")


def test_a_disabled_step_is_a_miss(tmp_path: Path) -> None:
    disabled = STEP + 'enabled = false\ntrigger = {type = "demo"}\n'
    elsewhere = disabled.replace('"hello"', '"b"').replace('"demo"', '"x"')
    found = matched(load_flow(package(tmp_path, disabled + elsewhere)))
    assert [(miss.step.name, miss.reason) for miss in found.misses] == [("hello", "the step is disabled")]


def test_misses_are_bounded(tmp_path: Path) -> None:
    flow = load_flow(package(tmp_path, STEP + 'enabled = false\ntrigger = {type = "demo"}\n'))
    assert len(matched(*[flow] * 150).misses) == MAX_MISSES


@pytest.mark.parametrize(
    ("pointer", "key"),
    [
        ("/payload/name", "Ada"),
        ("/payload/n", "5"),
        ("/payload/flag", "true"),
        ("/payload/list/1", "y"),
        ("/payload/list/01", None),
        ("/payload/list/9", None),
        ("/payload/list/-", None),
        ("/payload/none", None),
        ("/payload/missing/deep", None),
        ("/payload/a~1b~0c", "slash"),
        ("/payload/object", '{"a":1,"b":[]}'),
        ("/payload/control", f"sha256:{sha256(b'a' + bytes(1)).hexdigest()}"),
        ("/type", "demo"),
        ("/trace", "t"),
    ],
)
def test_concurrency_keys(tmp_path: Path, pointer: str, key: str | None) -> None:
    payload = {"name": "Ada", "n": 5, "flag": True, "list": ["x", "y"], "none": None, "a/b~c": "slash",
               "object": {"b": [], "a": 1}, "control": "a\x00"}  # fmt: skip
    flow = load_flow(
        package(tmp_path, STEP + f'trigger = {{type = "demo"}}\nconcurrency = {{key = "{pointer}", limit = 1}}')
    )
    (found,) = match([flow], event(payload, trace="t"), Schemas()).matches
    assert found.key == key


def test_long_keys_are_hashed(tmp_path: Path) -> None:
    flow = load_flow(package(tmp_path, STEP + 'trigger = {type = "demo"}\nconcurrency = {key = "/payload", limit = 1}'))
    keys = [matched(flow, payload=payload).matches[0].key for payload in ("x" * 128, "x" * 129, ["x" * 200])]
    assert [len(key or "") for key in keys] == [128, 71, 71]
    assert matched(load_flow(package(tmp_path / "b"))).matches[0].key is None
