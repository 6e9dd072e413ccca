"""Why a Code Mode step failed, in words for who runs it (source: spec codex-flows 3.2; fault 15)."""

from stepwell.model.errors import StepwellError

PACKAGE = "@peezy.tech/codex"


class CodeModeFailure(StepwellError):
    """The app-server, or the turn in it, did not do its work. It ends the step's process with exit code 1."""

    code, status = "code_mode", 502
    default_hint = "See what the app-server printed to stderr."


def missing_method(method: str, user_agent: str, message: str) -> CodeModeFailure:
    """A Codex without Code Mode by protocol: the one from OpenAI, or a fork that is too old."""
    return CodeModeFailure(
        f"this Codex ({user_agent}) has no {method}; it answered: {message}",
        hint=f"Code Mode steps need {PACKAGE}: set CODEX_FLOWS_MODE=code-mode, or name a Codex that has the method by "
        "CODEX_APP_SERVER_CODEX_COMMAND or CODEX_APP_SERVER_CODEX_PACKAGE.",
    )
