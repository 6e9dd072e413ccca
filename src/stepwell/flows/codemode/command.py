"""Which Codex is started, and how (source: spec codex-flows 3.2, command resolution; fault 15)."""

import shlex
from collections.abc import Callable, Mapping

from stepwell.flows.codemode.failure import PACKAGE
from stepwell.flows.codemode.gate import has_mode
from stepwell.model.errors import Invalid

COMMAND = "CODEX_APP_SERVER_CODEX_COMMAND"
PACKAGE_NAME = "CODEX_APP_SERVER_CODEX_PACKAGE"
BUNX = "CODEX_APP_SERVER_BUNX_COMMAND"

_FEATURES = ("apps", "hooks", "code_mode", "code_mode_only")
ARGUMENTS = ("app-server", "--listen", "stdio://", *(word for name in _FEATURES for word in ("--enable", name)))


def codex_words(environ: Mapping[str, str], is_program: Callable[[str], bool]) -> tuple[str, ...]:
    """The program of Codex and the arguments that come before its own, out of the step's environment.

    A value that names a program as it stands is one, blanks in its path included; else it is split as a shell would
    (`node /opt/peer.mjs`), without any other work of a shell. Raises `Invalid` for quotes that do not close.
    """
    command, package = environ.get(COMMAND, "").strip(), environ.get(PACKAGE_NAME, "").strip()
    if command:
        return _split(COMMAND, command, is_program)
    if package or has_mode(environ):
        bunx = environ.get(BUNX, "").strip() or "bunx"
        return (*_split(BUNX, bunx, is_program), package or PACKAGE)
    return ("codex",)


def _split(name: str, text: str, is_program: Callable[[str], bool]) -> tuple[str, ...]:
    if is_program(text):
        return (text,)
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise Invalid(f"{name} is not a command line: {error}", hint="Close the quotes in it.") from None
