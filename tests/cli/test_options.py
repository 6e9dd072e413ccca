"""The settings of the program: one table, the seed's names, and errors that name the variable (spec 4.1; plan S)."""

import re
from typing import Any

import pytest

from stepwell.cli.given import flow_options, server_options
from stepwell.cli.options import SETTINGS, variables
from stepwell.flows.context import DEFAULT_ENV
from stepwell.model.errors import Invalid
from tests.cli.support import Shop, flow, write_event
from tests.server.support import ROOT

NAMES = [name for setting in SETTINGS for name in variables(setting.name)]


def test_the_page_of_settings_has_exactly_these() -> None:
    page = (ROOT / "docs/settings.md").read_text().partition("## The program")[2]
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert table == [
        [f"`{one.name}`", ", ".join(f"`{alias}`" for alias in one.aliases), f"`{one.flag}`" if one.flag else "",
         one.default, one.what]
        for one in SETTINGS
    ]  # fmt: skip
    listed = re.findall(r"^- `([A-Z_]+)`$", page, re.MULTILINE)
    assert [*listed] == [name for name in DEFAULT_ENV if name not in ("HOME", "PATH")]


def test_the_example_for_a_service_has_exactly_these() -> None:
    text = (ROOT / "deploy/stepwell.env.example").read_text()
    named = re.findall(r"^#([A-Z_]+)=$|^#   in the seed: ([A-Z_]+)$", text, re.MULTILINE)
    steps = [name for name in DEFAULT_ENV if name not in ("HOME", "PATH")]
    assert sorted(one or other for one, other in named) == sorted([*NAMES, *steps])
    assert not re.search(r"^[^#\n]", text, re.MULTILINE), "nothing is set in an example"


def test_no_name_is_there_twice() -> None:
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"CODEX_FLOW_BACKEND_EXECUTOR": "systemd-run"}, "executor", "systemd-run"),
        ({"CODEX_FLOW_BACKEND_EXECUTOR": "docker", "STEPWELL_EXECUTOR": "direct"}, "executor", "direct"),
        ({"CODEX_FLOW_BACKEND_EXECUTOR": "systemd-run", "STEPWELL_EXECUTOR": " "}, "executor", "systemd-run"),
        ({"CODEX_FLOW_BACKEND_FORWARD_ENV": "LANG, TERM,"}, "forward_env", ("LANG", "TERM")),
        ({"CODEX_FLOW_BACKEND_FORWARD_ENV": ","}, "forward_env", ()),
        ({}, "forward_env", None),
        ({"CODEX_WORKSPACE_BACKEND_WS_URL": "ws://127.0.0.1:3586"}, "workspace_url", "ws://127.0.0.1:3586"),
        ({"CODEX_FLOW_BACKEND_BUN": "/a/bun", "STEPWELL_NODE": "/b/node", "STEPWELL_PYTHON": "/c/python"}, "tools",
         {"bun": "/a/bun", "node": "/b/node", "python": "/c/python"}),
    ],
)  # fmt: skip
def test_how_steps_are_run(environ: dict[str, str], field: str, value: object) -> None:
    assert getattr(flow_options(environ), field) == value


def test_an_option_wins_over_a_variable() -> None:
    environ = {"STEPWELL_EXECUTOR": "docker", "STEPWELL_BUN": "/a"}
    assert flow_options(environ, executor="direct", bun="/b").tools == {"bun": "/b"}


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"STEPWELL_EXECUTOR": "docker"}, "STEPWELL_EXECUTOR must be direct or systemd-run"),
        ({"CODEX_FLOW_BACKEND_EXECUTOR": "docker"}, "CODEX_FLOW_BACKEND_EXECUTOR must be direct or systemd-run"),
        ({"CODEX_FLOW_BACKEND_FORWARD_ENV": "A B"}, "CODEX_FLOW_BACKEND_FORWARD_ENV has a member"),
        ({"CODEX_WORKSPACE_BACKEND_WS_URL": "http://x"}, "CODEX_WORKSPACE_BACKEND_WS_URL is not a ws://"),
        ({"STEPWELL_BUN": "a\0b"}, "STEPWELL_BUN has no usable path"),
    ],
)
def test_a_value_for_steps_that_cannot_be_used_names_its_variable(environ: dict[str, str], says: str) -> None:
    with pytest.raises(Invalid) as refused:
        flow_options(environ)
    assert refused.value.message.startswith(says)
    assert refused.value.hint


def test_who_may_ask_the_server() -> None:
    found = server_options(
        {
            "CODEX_FLOW_BACKEND_SECRET": "old name",
            "STEPWELL_SECRET_PREVIOUS": "before",
            "STEPWELL_TOKEN": "reader",
            "STEPWELL_SIGNATURE_WINDOW_S": "60",
            "STEPWELL_REQUIRE_TIMESTAMP": "1",
            "STEPWELL_ALLOWED_ORIGINS": "https://a.example, http://b.example:81",
            "STEPWELL_ALLOWED_HOSTS": "flows.example",
        }
    )
    assert (found.secrets, found.token, found.window_s) == (("old name", "before"), "reader", 60)
    assert (found.require_timestamp, found.allowed_hosts) == (True, ("flows.example",))
    assert found.allowed_origins == ("https://a.example", "http://b.example:81")
    assert server_options({"STEPWELL_SECRET": "variable"}, secret="option").secrets == ("option",)
    assert server_options({}).secrets == ()


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"CODEX_FLOW_BACKEND_SECRET": "top\nsecret"}, "CODEX_FLOW_BACKEND_SECRET is empty"),
        ({"STEPWELL_SECRET": " topsecret"}, "STEPWELL_SECRET is empty, too long, or has spaces"),
        ({"STEPWELL_SECRET": "topsecret" * 1_000}, "STEPWELL_SECRET is empty, too long"),
        ({"STEPWELL_TOKEN": "topsecret"}, "STEPWELL_TOKEN is set without STEPWELL_SECRET"),
        ({"STEPWELL_SECRET_PREVIOUS": "topsecret"}, "STEPWELL_SECRET_PREVIOUS is set without"),
        ({"STEPWELL_SIGNATURE_WINDOW_S": "0"}, "STEPWELL_SIGNATURE_WINDOW_S must be a whole number from 1 to 86,400"),
        ({"STEPWELL_SIGNATURE_WINDOW_S": "5m"}, "STEPWELL_SIGNATURE_WINDOW_S must be a whole number"),
        ({"STEPWELL_REQUIRE_TIMESTAMP": "maybe"}, "STEPWELL_REQUIRE_TIMESTAMP must be 1 or 0"),
        ({"STEPWELL_ALLOWED_ORIGINS": "*"}, "STEPWELL_ALLOWED_ORIGINS has '*'"),
        ({"STEPWELL_ALLOWED_ORIGINS": "https://a.example/path"}, "STEPWELL_ALLOWED_ORIGINS has"),
    ],
)
def test_a_guard_that_cannot_be_used_names_its_variable_and_no_secret(environ: dict[str, str], says: str) -> None:
    with pytest.raises(Invalid) as refused:
        server_options(environ)
    assert refused.value.message.startswith(says)
    assert "top" not in f"{refused.value!r}{refused.value.as_json()}"


@pytest.mark.stores("sqlite")
def test_the_seeds_names_say_where_things_are(shop: Shop) -> None:
    """And ours win over them."""
    flow(shop.cwd / "else", type_="demo")
    event = write_event(shop.cwd, "e1")
    named: dict[str, Any] = {
        "CODEX_FLOW_BACKEND_CWD": str(shop.cwd / "else"),
        "CODEX_FLOW_BACKEND_DATA_DIR": str(shop.cwd / "data"),
    }
    shop.ok("flow", "fire", "--event", event, **named)
    assert (shop.cwd / "data/stepwell.sqlite").exists()
    assert len(shop.json("events", "list", **named)["events"]) == 1
    assert "no database" in shop.refused("events", "list", STEPWELL_DATA_DIR=str(shop.cwd / "none"), **named)
    assert "CODEX_FLOW_BACKEND_CWD names the folder" in shop.refused("flow", "list", CODEX_FLOW_BACKEND_CWD="/nowhere")


@pytest.mark.parametrize("name", ["STEPWELL_PORT", "CODEX_FLOW_BACKEND_PORT", "CODEX_WORKSPACE_BACKEND_PORT"])
def test_a_port_that_is_none_names_its_variable(shop: Shop, name: str) -> None:
    """The seed took its default for it."""
    assert f"'--port' (from {name})" in shop.misused("serve", **{name: "http"})


def test_no_secret_is_printed(shop: Shop) -> None:
    """Neither in the help, nor when the server cannot start."""
    secrets = {"STEPWELL_SECRET": "hush-1", "STEPWELL_SECRET_PREVIOUS": "hush-2", "STEPWELL_TOKEN": "hush-3"}
    for args in (("serve", "--help"), ("serve", "--host", "no such host"), ("doctor",)):
        done = shop.call(*args, **secrets)
        assert "hush" not in done.stdout + done.stderr
