"""`Handle`: one run, from outside: its end, its state, and what may be done to it (source: API, Handle)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, Protocol, TypeVar, overload

import msgspec

from stepwell.client.connection import BY, Connection, known
from stepwell.client.run import Entry, Output, Run, entry_of, output_of, run_of
from stepwell.functions import values
from stepwell.functions.define import Duration, Signal, Workflow, duration_ms
from stepwell.functions.errors import RunError
from stepwell.functions.failures import run_error
from stepwell.functions.messages import need_state, need_text, signal_json
from stepwell.model import commands as c
from stepwell.model import rows
from stepwell.model.errors import Conflict, Timeout, Unknown
from stepwell.store.port import Reader
from stepwell.worker.said import state_text

R = TypeVar("R", covariant=True)
T = TypeVar("T")
#: Rows that are read at once.
AT_ONCE = 500
#: The end of a run is among so many last entries of its journal.
_LAST = 20


class Readable(Protocol[R]):
    """A `State` as a reader needs it: one of int will do where any value will, as in `print(await run.get(done))`."""

    name: str

    @property
    def type(self) -> type[R]: ...


class ResultTimeout(Timeout, TimeoutError):
    """The run has not ended in the time that was given for its result; it goes on."""

    default_hint = "Ask again later: the run goes on, and its handle can be made anew from its id."


class Handle(Generic[R]):
    """A run by its id. Nothing of its state is kept here: two handles of one run, in any process, see the same.

    `new`: its number, and the steady clock in seconds before it was started here.
    """

    def __init__(
        self,
        connection: Connection,
        run_id: str,
        workflow: Workflow[..., R] | None,
        *,
        scope: str,
        new: tuple[int, float] | None = None,
    ) -> None:
        need_text("run_id", run_id, "the id of a run")
        self.id = run_id
        self._connection, self._workflow, self._scope, self._new = connection, workflow, scope, new

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def result(self, *, timeout: Duration | None = None) -> R:
        """Waits for the end and answers what the workflow returned, by its annotation; of a run that continues as a
        new one, what that one returned.

        Raises RunError if it failed, RunCanceled if it was canceled or terminated, TimeoutError if it goes on,
        NotFound.
        """
        text = await self.outcome(timeout)
        result: R = (
            msgspec.json.decode(text) if self._workflow is None else self._workflow.signature.decode_result(text)
        )
        return result

    async def outcome(self, timeout: Duration | None = None) -> str:
        """The same as JSON."""
        run = await self.ended(timeout)
        if run.status == "failed":
            raise run_error(run.error, run.status)
        if run.status == "canceled":
            raise await self._canceled(run)
        return "null" if run.result is None else run.result

    async def ended(self, timeout: Duration | None = None) -> rows.Run:
        """The row of the run when it has ended; of the last one if it continues."""
        if timeout is None:
            return await self._last()
        limit_s = duration_ms(timeout, "timeout") / 1_000
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await self._last()
        except TimeoutError:
            if not limit.expired():
                raise
            run_now = await self.status()
            raise ResultTimeout(f"run {self.id} is {run_now.status} after {limit_s:g} s", run_id=self.id) from None

    async def _last(self) -> rows.Run:
        number, since = self._new or ((await self._known()).no, None)
        while True:
            run = await self._connection.engine.wait_end(number, since=since)
            if run is None:
                raise Unknown(f"run {self.id} was deleted", run_id=self.id)
            if run.next_no is None:
                return run
            number = run.next_no

    async def _known(self) -> rows.Run:
        run = await self._connection.run(self._scope, self.id)
        if self._workflow is not None and run.name != self._workflow.path:
            hint = "Leave the workflow out of handle(), or give the one that the run is of."
            raise Conflict(f"run {self.id} is of {run.name}, not of {self._workflow.path}", hint=hint, run_id=self.id)
        return run

    async def _canceled(self, run: rows.Run) -> RunError:
        def look(reader: Reader) -> dict[str, Any]:
            entries = reader.entries(run.no, after=max(0, run.head_seq - _LAST))
            ends = [one.data for one in entries if one.kind == "run.canceled"]
            return msgspec.json.decode(ends[-1], type=dict[str, Any]) if ends else {}

        said = await self._connection.engine.read(look)
        what = "terminated" if said.get("terminated") else "canceled"
        reason = f": {said['reason']}" if said.get("reason") else ""
        return run_error(values.encode({"message": f"run {run.id} was {what}{reason}"}), what)

    async def status(self) -> Run:
        """The run as it is now. Raises NotFound."""
        return run_of(await self._connection.run(self._scope, self.id))

    async def get(self, state: Readable[T]) -> T | None:
        """What the run last said by `ctx.set(state, ...)`; None if it has not."""
        need_state(state)

        def look(reader: Reader) -> str | None:
            return state_text(reader, known(reader, self._scope, self.id), state.name)

        text = await self._connection.engine.read(look)
        return None if text is None else values.decode(text, state.type)

    async def watch(self) -> AsyncIterator[Run]:
        """The run now, and after each change until it has ended. Changes that come fast are told as one."""
        number, seen = (await self._known()).no, 0
        async for run in self._connection.changes(number, lambda reader: _still(reader, number, self.id)):
            if run.head_seq != seen:
                seen = run.head_seq
                yield run_of(run)
            if run.terminal:
                return

    async def output(self, *, after: int = 0, follow: bool = False) -> AsyncIterator[Output]:
        """What the run said after piece `after`; with `follow` also what it says until it has ended."""
        number = (await self._known()).no

        def look(reader: Reader) -> tuple[bool, list[rows.Output]]:
            ended = _still(reader, number, self.id).terminal
            return ended, reader.output(number, after=after, limit=AT_ONCE)

        async for ended, chunks in self._connection.changes(number, look):
            while chunks:
                for chunk in chunks:
                    after = chunk.n
                    yield output_of(chunk)
                ended, chunks = await self._connection.engine.read(look)
            if ended or not follow:
                return

    async def journal(self) -> AsyncIterator[Entry]:
        """All that has happened to the run, oldest first."""
        number, after = (await self._known()).no, 0
        while entries := await self._connection.engine.read(_entries(number, after)):
            for entry in entries:
                after = entry.seq
                yield entry_of(self.id, entry)

    # ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    async def signal(self, signal: Signal[T], value: T, *, key: str | None = None) -> None: ...
    @overload
    async def signal(self, signal: str, value: Any = None, *, key: str | None = None) -> None: ...
    async def signal(self, signal: Signal[Any] | str, value: Any = None, *, key: str | None = None) -> None:
        """Sends a signal; durable when this returns. One with the same `key` again is the same signal.

        Raises Conflict when the run has ended or the key came with another value, NotJson for a value that is not of
        the signal's type.
        """
        name, payload = signal_json(signal, value)
        run_id = self.id
        while True:
            command = c.Signal(run_id, name, payload, dedup=key, by=BY, scope=self._scope)
            signaled: c.Signaled = await self._connection.engine.submit(command)
            if signaled.moved_to is None:
                return
            run_id = signaled.moved_to

    async def cancel(self, reason: str = "") -> None:
        """Asks the run to end: its body gets CancelledError and may clean up. Raises Conflict when it has ended."""
        await self._connection.engine.submit(c.Cancel(self.id, by=BY, reason=reason, scope=self._scope))

    async def terminate(self, reason: str = "") -> None:
        """Ends the run without asking it. Raises Conflict when it has ended."""
        await self._connection.engine.submit(c.Terminate(self.id, by=BY, reason=reason, scope=self._scope))


def _still(reader: Reader, number: int, run_id: str) -> rows.Run:
    run = reader.run_by_no(number)
    if run is None:
        raise Unknown(f"run {run_id} was deleted", run_id=run_id)
    return run


def _entries(number: int, after: int) -> Callable[[Reader], list[rows.Entry]]:
    return lambda reader: reader.entries(number, after=after, limit=AT_ONCE)
