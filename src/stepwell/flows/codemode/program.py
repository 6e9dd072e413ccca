"""Runs one Code Mode step: context in, what Codex says out, and one result line at the end (spec 3.2; fault 12).

The line of ours is the last of stdout and so decides, whatever was streamed before; without one the exit code is 1.
"""

import asyncio
import json
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from stepwell.flows.codemode.failure import CodeModeFailure
from stepwell.flows.codemode.output import Output
from stepwell.flows.codemode.peer import Peer, Transport
from stepwell.flows.codemode.session import interrupt, run_source
from stepwell.flows.codemode.source import build_source
from stepwell.flows.codemode.stdio import start
from stepwell.flows.codemode.turn import Turn
from stepwell.flows.jsonvalue import Bounds, parse_json
from stepwell.flows.result import MARK, FlowResult
from stepwell.model.errors import Invalid, StepwellError

MAX_SCRIPT_BYTES = 1024 * 1024
MAX_CONTEXT_BYTES = 8 * 1024 * 1024
# How long a server elsewhere has to stop the turn when the step is stopped.
INTERRUPT_S = 1.0


class Job(Struct, frozen=True):
    """The script to run, the context for it, and the app-server: a command to start, or the URL of one that runs."""

    script: Path
    context: bytes
    cwd: str
    command: Sequence[str] = ()
    url: str | None = None


def run(job: Job, output: Output) -> int:
    """The exit code: 0 with a result, 1 without, 143 after TERM. Raises nothing that a step could cause."""
    try:
        result = asyncio.run(_main(job, output))
    except StepwellError as error:
        output.last_words(error.message, error.hint)
        return 1
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    output.result(MARK + json.dumps(result.raw, ensure_ascii=False, separators=(",", ":")))
    return 0


async def _main(job: Job, output: Output) -> FlowResult:
    source = build_source(_context(job.context), _script(job.script))
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    transport = await _connect(job, output)
    turn = Turn(output.text, output.note)
    peer = Peer(transport, turn.take, output.note)
    try:
        return await run_source(peer, turn, job.cwd, source)
    except asyncio.CancelledError:
        output.last_words(f"stopped while it waited for {peer.awaits}", "")
        if job.url is not None:  # one of ours is stopped with us
            with suppress(TimeoutError, CodeModeFailure):
                await asyncio.wait_for(interrupt(peer, turn), INTERRUPT_S)
        raise
    finally:
        await transport.close()


async def _connect(job: Job, output: Output) -> Transport:
    if job.url is None:
        return await start(job.command)
    from stepwell.flows.codemode.websocket import dial, public  # 40 ms that a step of the usual kind need not spend

    output.note(f"uses the app-server at {public(job.url)}, as app_server in flow.toml says")
    return await dial(job.url)


def _context(data: bytes) -> dict[str, object]:
    value = parse_json(data, what="the context on stdin", bounds=Bounds(max_bytes=MAX_CONTEXT_BYTES))
    if not isinstance(value, dict) or not isinstance(value.get("flow"), dict):
        raise Invalid("the context on stdin has no flow", hint="This program is started by the runner code-mode.")
    return value


def _script(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SCRIPT_BYTES + 1)
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}", hint="Put it back, or correct `script`.") from None
    if len(data) > MAX_SCRIPT_BYTES:
        raise Invalid(f"{path} is over {MAX_SCRIPT_BYTES} bytes", hint="Move data out of the script.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Invalid(f"{path} is not UTF-8", hint="Save the script as UTF-8.") from None
