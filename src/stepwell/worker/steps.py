"""Flow steps as tasks: finds the step, runs it, streams what it says, writes how it ended."""

import os
from collections.abc import Mapping

import msgspec

from stepwell.flows.backend import FlowBackend, needs_flow
from stepwell.flows.context import Runtime
from stepwell.flows.events import flow_event
from stepwell.flows.executors import EXECUTORS
from stepwell.flows.executors.guard import Guard, Late
from stepwell.flows.options import FlowOptions
from stepwell.flows.package import Flow, Step
from stepwell.flows.result import FlowResult
from stepwell.flows.runners.base import Tools
from stepwell.flows.step import Outcome, StepFailure, run_step
from stepwell.model import commands as c
from stepwell.model.errors import Conflict, Invalid, Outdated, TooLarge, Unavailable, Unknown
from stepwell.model.ids import attempt_id
from stepwell.worker.held import Held
from stepwell.worker.output import OutputPump


class StepHandler:
    """Handles tasks of kind step. `environ` is what a step's allow-list picks from."""

    def __init__(
        self,
        backend: FlowBackend,
        *,
        tools: Tools,
        options: FlowOptions | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._backend, self._tools, self._options = backend, tools, options or FlowOptions()
        self._environ = dict(os.environ if environ is None else environ)
        self._guard = Guard(EXECUTORS[self._options.executor].place(self._environ))

    def requires(self) -> tuple[str, ...]:
        """The flows that are on this machine now."""
        return tuple(needs_flow(flow.name) for flow in self._backend.discover().flows)

    async def __call__(self, held: Held) -> None:
        flow_name, _, step_name = held.leased.run.name.partition("/")
        try:
            flow, step = self._backend.step(flow_name, step_name)
        except Unknown as gone:
            await held.fail(_error("unknown_step", gone.message, hint=gone.hint), retry=False)
            return
        try:
            outcome = await self._run(held, flow, step)
        except Late:
            await held.release()  # in case that the lease goes on all the same
            return
        if held.lost:
            return
        if held.handing_back and outcome.error is not None and outcome.error.type == "canceled":
            await held.release()
        elif outcome.result is not None:
            await self._write_result(held, outcome.result)
        elif outcome.error is not None:
            await _write_error(held, outcome.error)

    async def _run(self, held: Held, flow: Flow, step: Step) -> Outcome:
        leased, settings = held.leased, self._backend.engine.settings
        assert leased.event is not None, "a step's run has an event"
        pump = OutputPump(held, settings.output_bytes, settings.payload_bytes // 4)  # 4: the bytes of a character
        runtime = Runtime(
            run_id=leased.run.id,
            attempt_id=attempt_id(leased.run.id, leased.lease.k, leased.attempt),
            replay=leased.run.replay > 0,
        )
        post = self._guard.post(held.ends_at, held.spare_s)
        held.on_extended = post.until
        try:
            return await run_step(
                flow,
                step,
                flow_event(leased.event),
                runtime=runtime,
                environ=self._environ,
                tools=self._tools,
                options=self._options,
                on_output=pump.take,
                cancel=held.cancel,
                kill_grace_ms=settings.kill_grace_ms,
                post=post,
            )
        finally:
            post.close()
            await pump.close()

    async def _write_result(self, held: Held, result: FlowResult) -> None:
        """A step that says `failed` of itself has failed, and is tried again if its retry policy says so.

        Its result and the events that it sends are written together. What the kernel refuses, an event with the id of
        another one for example, is the step's own failure.
        """
        text = msgspec.json.encode(result.raw).decode()

        async def write(revision: int) -> c.Done:
            sends = self._backend.emission(held.leased.run, result.next, revision)
            if result.status == "failed":
                error = _error("result_failed", result.message or "the step says that it failed")
                return await held.fail(error, result=text, result_status=result.status, sends=sends)
            return await held.finish(c.Completed(text, result.status), sends)

        try:
            if result.next:  # done is done: that the flows cannot be looked up now is no reason to run the step again
                await held.insist(lambda: self._backend.matched(write), Outdated, Unavailable)
            else:
                await write(0)
        except (TooLarge, Conflict, Invalid) as refused:
            await held.fail(_error(refused.code, refused.message, hint=refused.hint), retry=False)


async def _write_error(held: Held, failure: StepFailure) -> None:
    if failure.type == "canceled" and held.asked_to_cancel:
        await held.finish(c.Canceled("the step was asked to stop"))
        return
    error = _error(failure.type, failure.message, exitCode=failure.exit_code, stderr=failure.stderr, hint=failure.hint)
    try:
        await held.fail(error)
    except TooLarge:  # rather the reason without what was printed than neither
        await held.fail(_error(failure.type, failure.message[:200], exitCode=failure.exit_code))


def _error(kind: str, message: str, **more: object) -> str:
    found = {"type": kind, "message": message, **{key: value for key, value in more.items() if value not in (None, "")}}
    return msgspec.json.encode(found).decode()
