"""Whether Code Mode steps may run at all (source: spec codex-flows 3.2, gate; conformance 8.1, items 4, 5 and 8)."""

from collections.abc import Mapping

from stepwell.model.errors import Forbidden

ENABLE = "CODEX_FLOWS_ENABLE_CODE_MODE"
MODE = "CODEX_FLOWS_MODE"
CODE_MODE = "code-mode"
_YES = ("1", "true", "yes", "on")


def has_mode(environ: Mapping[str, str]) -> bool:
    """Whether everything here is to run in Code Mode; that also chooses the Codex."""
    return environ.get(MODE, "").strip().lower() == CODE_MODE


def is_enabled(environ: Mapping[str, str]) -> bool:
    """Whether `environ`, which is that of the step, lets Code Mode steps run."""
    return has_mode(environ) or environ.get(ENABLE, "").strip().lower() in _YES


def check_gate(flow: str, step: str, environ: Mapping[str, str]) -> None:
    """Raises `Forbidden` in the words of the seed when the step may not run."""
    if not is_enabled(environ):
        hint = f"Set it in the worker's environment, and forward it when the list of forwarded names is yours: {ENABLE}"
        raise Forbidden(f"Code Mode flow step {flow}/{step} requires {ENABLE}=1", hint=f"{hint}.")
