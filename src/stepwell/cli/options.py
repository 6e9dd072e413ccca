"""The settings of the program: names, the seed's names for them, and how they are read (source: spec codex-flows 4.1).

One table for options, documents and the example of `deploy/`, so that they cannot drift apart. `STEPWELL_*` wins over
the seed's name, an option over both. A value that cannot be used is an error that names the variable which held it.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from msgspec import Struct

F = TypeVar("F", bound=Callable[..., Any])


class Setting(Struct, frozen=True):
    """A variable, what the seed calls it, and the option that says the same."""

    name: str
    what: str
    default: str = ""
    aliases: tuple[str, ...] = ()
    flag: str = ""
    secret: bool = False


SETTINGS = (
    Setting(
        "STEPWELL_CWD", "the folder that holds `flows/` and `.codex/flows/`", ".", ("CODEX_FLOW_BACKEND_CWD",), "--cwd"
    ),
    Setting(
        "STEPWELL_DATA_DIR",
        "the folder of the database `stepwell.sqlite`, unless `STEPWELL_DB` names another, and of `events/`",
        "CWD/.stepwell",
        ("CODEX_FLOW_BACKEND_DATA_DIR",),
        "--data-dir",
    ),
    Setting(
        "STEPWELL_DB",
        "the database itself: a file, `sqlite:///FILE`, or `postgresql://USER@HOST/DATABASE`",
        flag="--db",
    ),
    Setting("STEPWELL_APP", "the app with workflows, as `MODULE:APP`", flag="--app"),
    Setting(
        "STEPWELL_HOST",
        "the address to listen on; without a secret a loopback address",
        "127.0.0.1",
        ("CODEX_FLOW_BACKEND_HOST", "CODEX_WORKSPACE_BACKEND_HOST"),
        "--host",
    ),
    Setting(
        "STEPWELL_PORT",
        "the port to listen on; 0 takes a free one",
        "7345",
        ("CODEX_FLOW_BACKEND_PORT", "CODEX_WORKSPACE_BACKEND_PORT"),
        "--port",
    ),
    Setting("STEPWELL_SLOTS", "steps at once; 0: the server runs none", "4", flag="--slots"),
    Setting(
        "STEPWELL_SECRET",
        "the secret that requests are signed with",
        aliases=("CODEX_FLOW_BACKEND_SECRET",),
        flag="--secret",
        secret=True,
    ),
    Setting(
        "STEPWELL_SECRET_PREVIOUS", "the secret before this one: still good while senders change over", secret=True
    ),
    Setting("STEPWELL_TOKEN", "what reads show as `Authorization: Bearer`; without it, the secret", secret=True),
    Setting("STEPWELL_SIGNATURE_WINDOW_S", "how old a signature with a timestamp may be", "300"),
    Setting("STEPWELL_REQUIRE_TIMESTAMP", "1: a signature without a timestamp is refused", "0"),
    Setting("STEPWELL_ALLOWED_ORIGINS", "web pages that may send requests: origins, with commas"),
    Setting("STEPWELL_ALLOWED_HOSTS", "names besides loopback ones that a `Host` header may have, with commas"),
    Setting(
        "STEPWELL_EXECUTOR",
        "how steps are started: `direct` or `systemd-run`",
        "direct",
        ("CODEX_FLOW_BACKEND_EXECUTOR",),
        "--executor",
    ),
    Setting(
        "STEPWELL_BUN", "the program `bun`", "`node_modules/.bin`, then PATH", ("CODEX_FLOW_BACKEND_BUN",), "--bun"
    ),
    Setting("STEPWELL_NODE", "the program `node`", "`node_modules/.bin`, then PATH"),
    Setting("STEPWELL_PYTHON", "the program `python`", "the one that runs Stepwell"),
    Setting(
        "STEPWELL_FORWARD_ENV",
        "the variables that every step gets, with commas, instead of the default list",
        "see docs/settings.md",
        ("CODEX_FLOW_BACKEND_FORWARD_ENV",),
    ),
    Setting(
        "STEPWELL_WORKSPACE_URL",
        "the `ws://` address of a workspace backend, told to steps",
        aliases=("CODEX_WORKSPACE_BACKEND_WS_URL",),
        flag="--workspace-url",
    ),
    Setting("CODEX_FLOW_RUNNER_PATH", "accepted, without effect: there is no runner beside this program"),
)
_BY_NAME = {one.name: one for one in SETTINGS}


def variables(name: str) -> tuple[str, ...]:
    """A setting's own variable and the seed's, in the order of precedence."""
    return (name, *_BY_NAME[name].aliases)


def holder(name: str, environ: Mapping[str, str]) -> str | None:
    """The variable that holds a setting; None when all are unset or empty."""
    return next((one for one in variables(name) if environ.get(one, "").strip()), None)


class FromEnv(click.Option):
    """An option that its variables may give as well; an unusable value names the variable that held it."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """The option, and whence its value came."""
        source = None if ctx is None else ctx.get_parameter_source(self.name or "")
        held = self._holder() if source is click.core.ParameterSource.ENVIRONMENT else None
        return f"'{self.opts[0]}' (from {held})" if held else f"'{self.opts[0]}'"

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The value of the first variable that is not empty."""
        held = self._holder()
        return None if held is None else os.environ[held].strip()

    def _holder(self) -> str | None:
        return next((one for one in self.envvar or () if os.environ.get(one, "").strip()), None)


def setting_option(name: str, **more: Any) -> Callable[[F], F]:
    """The click option of a setting, with its variables."""
    setting = _BY_NAME[name]
    more.setdefault("help", f"{setting.what} [{setting.default or 'none'}].")
    return click.option(setting.flag, cls=FromEnv, envvar=list(variables(name)), **more)


def named(ctx: click.Context, parameter: str, name: str) -> str:
    """What the user wrote to give an option its value: the option, or a variable."""
    if ctx.get_parameter_source(parameter) is click.core.ParameterSource.ENVIRONMENT:
        return holder(name, os.environ) or name
    return _BY_NAME[name].flag


def flag_of(name: str) -> str:
    """The option of a setting; empty when it has none."""
    return _BY_NAME[name].flag
