"""Runs one step for one event: context in, process, output, result or failure out."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec import Struct

from stepwell.flows.context import Runtime, step_environ, step_stdin
from stepwell.flows.events import FlowEvent
from stepwell.flows.executors import EXECUTORS
from stepwell.flows.executors.base import SCRIPT_HINT, Fault, Job
from stepwell.flows.executors.direct import Exit, Stream, execute
from stepwell.flows.executors.guard import Late, Post
from stepwell.flows.options import FlowOptions
from stepwell.flows.package import Flow, Step, is_inside
from stepwell.flows.result import FlowResult, ResultFault, ResultScanner
from stepwell.flows.runners import RUNNERS
from stepwell.flows.runners.base import OutputKind, Runner, Tools, leaves
from stepwell.model.errors import Invalid, StepwellError

MAX_TAIL_BYTES = 4_096

Said = Literal["stdout", "stderr", "agent"]
OnSaid = Callable[[Said, str], None]

FailureType = Literal["exit", "timeout", "canceled", "no_result", "bad_result", "too_large", "spawn"]


_SAY = 'End stdout with one line FLOW_RESULT {"status": "completed"}.'
_HINTS: dict[FailureType, str] = {
    "no_result": _SAY,
    "bad_result": _SAY,
    "too_large": "Write large data to a file, and say in the result's artifacts where it is.",
}


class Reason(NamedTuple):
    """Why a step failed, without what it said."""

    type: FailureType
    message: str
    hint: str


class StepFailure(Struct, frozen=True):
    """Why a step failed. `stderr` is the end of what it printed there, 4 KiB at most; `hint` says what to do."""

    type: FailureType
    message: str
    exit_code: int | None = None
    stderr: str = ""
    hint: str = ""


class Outcome(Struct, frozen=True):
    """Either a result or an error; never both, never neither."""

    result: FlowResult | None = None
    error: StepFailure | None = None


async def run_step(
    flow: Flow,
    step: Step,
    event: FlowEvent,
    *,
    runtime: Runtime,
    environ: Mapping[str, str],
    tools: Tools,
    options: FlowOptions | None = None,
    on_output: OnSaid,
    cancel: asyncio.Event,
    kill_grace_ms: int,
    post: Post,
) -> Outcome:
    """Run a step to its end, under guard of `post`.

    What can go wrong with the step is in the answer. Raises what `on_output` raises, and `Late`.
    """
    options = options or FlowOptions()
    env = step_environ(step, event, runtime, environ, options)
    with ExitStack() as stack:
        try:
            runner = _runner(step)
            argv, cwd = await asyncio.to_thread(_prepare, runner, flow, step, tools, env)
            job = Job(argv, post.way(cwd), env, runtime.run_id, runtime.attempt_id, step.timeout_ms, kill_grace_ms)
            launch = stack.enter_context(EXECUTORS[options.executor].launch(job, tools, environ))
        except StepwellError as error:
            return Outcome(error=StepFailure("spawn", error.message, hint=error.hint))
        said = _Said(on_output, runner.output_kind)
        ended = await execute(
            launch.argv,
            cwd=cwd,
            env=launch.env,
            stdin=step_stdin(flow, step, event, runtime, options),
            timeout_ms=step.timeout_ms,
            kill_grace_ms=kill_grace_ms,
            on_output=said.take,
            cancel=cancel,
            post=post,
            stop=launch.stop,
        )
        fault = launch.fault(said.stderr())
        if fault is not None and post.late:
            raise Late
        words = _last_words(said.stderr(), runner.last_words)
        return _outcome(said, ended, _process_failure(step, ended, fault, words))


def _runner(step: Step) -> Runner:
    runner = RUNNERS.get(step.runner)
    if runner is None:
        raise Invalid(f"there is no runner {step.runner!r}", hint=f"Use one of {', '.join(sorted(RUNNERS))}.")
    return runner


def _prepare(runner: Runner, flow: Flow, step: Step, tools: Tools, env: Mapping[str, str]) -> tuple[list[str], Path]:
    """The command line and the working directory. Reads files, and may start a probe; so not on the loop."""
    cwd = flow.root / (step.cwd or "")
    if not step.allow_outside and not is_inside(flow.root, cwd):  # as at the load; it may have become a link since
        raise leaves(step.cwd or "")
    return runner.argv(flow, step, tools, env), cwd


class _Said:
    """Passes output on, looking for the result in stdout and keeping the end of stderr."""

    def __init__(self, on_output: OnSaid, stdout_kind: OutputKind) -> None:
        self._on_output, self._stdout_kind = on_output, stdout_kind
        self._tail = ""
        self.scanner = ResultScanner()

    def take(self, stream: Stream, text: str) -> None:
        if stream == "stdout":
            self.scanner.feed(text)
            self._on_output(self._stdout_kind, text)
        else:
            self._tail = (self._tail + text)[-MAX_TAIL_BYTES:]
            self._on_output("stderr", text)

    def stderr(self) -> str:
        return self._tail.encode(errors="replace")[-MAX_TAIL_BYTES:].decode(errors="ignore")


def _outcome(said: _Said, ended: Exit, failure: Reason | None) -> Outcome:
    result = said.scanner.finish()
    if failure is None and isinstance(result, ResultFault):
        failure = Reason(result.type, result.message, _HINTS[result.type])
    if failure is None and isinstance(result, FlowResult):
        return Outcome(result=result)
    assert failure is not None
    return Outcome(error=StepFailure(failure.type, failure.message, ended.code, said.stderr(), failure.hint))


def _last_words(stderr: str, begin: str) -> str:
    """What the program of a runner said last of itself; empty when there is none, or it said nothing."""
    _, found, words = stderr.rpartition(begin) if begin else ("", "", "")
    return words.partition("\n")[0] if found else ""


def _process_failure(step: Step, ended: Exit, fault: Fault | None, words: str) -> Reason | None:
    """Why the process did not end well. `fault` is the executor's: it counts when the process ended by itself."""
    if ended.spawn_error is not None:
        return Reason("spawn", ended.spawn_error, SCRIPT_HINT)
    if ended.canceled:
        return Reason("canceled", "the step was canceled", "Restart the run to do it again.")
    if ended.timed_out:
        message = f"the step ran into its timeout of {step.timeout_ms} ms"
        return Reason("timeout", message, "Raise timeout_ms, or do less.")
    if fault is not None:
        return Reason("spawn", fault.message, fault.hint)
    if ended.code is None:
        return Reason("exit", "the step's process cannot be ended", "Look for a process that hangs in the kernel.")
    if ended.code < 0:
        return Reason("exit", f"the step was ended by signal {-ended.code}", "See what it printed to stderr.")
    if ended.code:
        return Reason("exit", words or f"the step exited with {ended.code}", "See what it printed to stderr.")
    return None
