"""What options and variables give: how steps are run, who may ask the server (source: spec codex-flows 4.1, 4.7)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stepwell.cli.options import flag_of, holder
from stepwell.flows.options import FlowOptions
from stepwell.model.errors import Invalid
from stepwell.server.options import MAX_SECRET_BYTES, ServerOptions

MAX_WINDOW_S = 86_400


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────


def flow_options(
    environ: Mapping[str, str],
    *,
    executor: str | None = None,
    bun: str | None = None,
    workspace_url: str | None = None,
) -> FlowOptions:
    """How steps are run: from options first, then from variables. Raises `Invalid`."""
    given = {"STEPWELL_EXECUTOR": executor, "STEPWELL_BUN": bun, "STEPWELL_WORKSPACE_URL": workspace_url}
    values: dict[str, Any] = {}
    for name, field, read in _FLOW_FIELDS:
        option, held = given.get(name), holder(name, environ)
        source = flag_of(name) if option is not None else held
        text = option if option is not None else environ.get(held or "", "").strip()
        if source is None:
            continue
        try:
            FlowOptions(**{field: read(text)})
        except Invalid as error:
            said = error.message.removeprefix(f"{error.fields.get('option', '')} ")
            raise Invalid(f"{source} {said}", hint=error.hint, variable=source) from None
        value = read(text)
        values[field] = {**values.get(field, {}), **value} if isinstance(value, dict) else value
    return FlowOptions(**values)


def _words(text: str) -> tuple[str, ...]:
    return tuple(part for part in (one.strip() for one in text.split(",")) if part)


def _tool(name: str) -> Callable[[str], dict[str, str]]:
    return lambda text: {name: text}


_FLOW_FIELDS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("STEPWELL_EXECUTOR", "executor", str),
    ("STEPWELL_BUN", "tools", _tool("bun")),
    ("STEPWELL_NODE", "tools", _tool("node")),
    ("STEPWELL_PYTHON", "tools", _tool("python")),
    ("STEPWELL_FORWARD_ENV", "forward_env", _words),
    ("STEPWELL_WORKSPACE_URL", "workspace_url", str),
)


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────


def server_options(
    environ: Mapping[str, str], *, secret: str | None = None, events_dir: Path | None = None
) -> ServerOptions:
    """The server's guards from the option and the variables. Raises `Invalid`, never with a secret in it."""
    now = _secret("--secret", secret) if secret is not None else _secret_of("STEPWELL_SECRET", environ)
    others = {name: _secret_of(name, environ) for name in ("STEPWELL_SECRET_PREVIOUS", "STEPWELL_TOKEN")}
    for name, value in others.items():
        if value is not None and now is None:
            raise Invalid(f"{name} is set without STEPWELL_SECRET", hint="Set STEPWELL_SECRET, or neither.")
    before = others["STEPWELL_SECRET_PREVIOUS"]
    return ServerOptions(
        secrets=tuple(one for one in (now, before) if one is not None),
        token=others["STEPWELL_TOKEN"],
        window_s=_whole("STEPWELL_SIGNATURE_WINDOW_S", environ, 300, 1, MAX_WINDOW_S),
        require_timestamp=_flag("STEPWELL_REQUIRE_TIMESTAMP", environ),
        allowed_origins=_origins(environ),
        allowed_hosts=_words(environ.get("STEPWELL_ALLOWED_HOSTS", "")),
        events_dir=events_dir,
    )


def _secret_of(name: str, environ: Mapping[str, str]) -> str | None:
    held = holder(name, environ)
    return None if held is None else _secret(held, environ[held])


def _secret(source: str, text: str) -> str:
    if not text.strip() or text != text.strip() or not text.isprintable() or len(text.encode()) > MAX_SECRET_BYTES:
        raise Invalid(
            f"{source} is empty, too long, or has spaces around it or characters that cannot be printed",
            hint="Use a random text, as of `openssl rand -hex 32`, without a line end.",
        )
    return text


def _whole(name: str, environ: Mapping[str, str], default: int, low: int, high: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and low <= int(text) <= high):
        hint = f"The default is {default}; leave the variable out to use it."
        raise Invalid(f"{name} must be a whole number from {low:,} to {high:,}, not {text!r:.80}", hint=hint)
    return int(text)


def _flag(name: str, environ: Mapping[str, str]) -> bool:
    text = environ.get(name, "").strip().lower()
    if text in ("1", "true", "yes"):
        return True
    if text not in ("", "0", "false", "no"):
        raise Invalid(f"{name} must be 1 or 0, not {text!r:.80}", hint="Leave the variable out for 0.")
    return False


def _origins(environ: Mapping[str, str]) -> tuple[str, ...]:
    origins = _words(environ.get("STEPWELL_ALLOWED_ORIGINS", ""))
    for origin in origins:
        scheme, _, host = origin.partition("://")
        if scheme not in ("http", "https") or not host or "/" in host:
            raise Invalid(
                f"STEPWELL_ALLOWED_ORIGINS has {origin!r:.80}, which is no origin",
                hint="An origin is a scheme, a name and perhaps a port, as https://flows.example.org.",
            )
    return origins
