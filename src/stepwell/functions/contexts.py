"""`QueryContext` and `MutationContext`: what functions in a transaction may do (source: API, contexts).

Everything that a mutation does here commits together with whatever called it, or not at all.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import copy
from datetime import UTC, datetime
from logging import LoggerAdapter
from threading import get_ident
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from msgspec import Struct

from stepwell.functions.database import Database
from stepwell.functions.define import (
    Action,
    Dispatched,
    Event,
    Mutation,
    Principal,
    Query,
    Retry,
    Signal,
    StartOptions,
    Workflow,
)
from stepwell.functions.guard import Guard, NotAllowed, Watched
from stepwell.functions.messages import need_event, signal_json
from stepwell.functions.pools import NONE_NAMED, NamedPools, Pool, pool_row
from stepwell.functions.start_options import SCOPE, check_options, merged
from stepwell.functions.starts import start_command
from stepwell.kernel import events
from stepwell.kernel.calls import Away, Call
from stepwell.kernel.decide import decide_inside
from stepwell.kernel.unit import Unit
from stepwell.model import commands as c
from stepwell.model.errors import Invalid, Unavailable
from stepwell.model.ids import time_ordered_id

P = ParamSpec("P")
R = TypeVar("R")
#: How many commands one mutation gives.
MAX_COMMANDS = 10_000
#: Finds what an event starts: (scope, event, id) to what is accepted, with the revision that it was matched on.
Matcher = Callable[[str, Event[Any], str], c.Emission]


class Transaction(Struct):
    """What a mutation's context works on. `commands` counts those that it gave."""

    unit: Unit
    call: Call
    now: int
    guard: Guard
    watched: Watched
    entropy: Callable[[int], bytes]
    match: Matcher | None
    pools: NamedPools = NONE_NAMED
    retry: Retry | None = None
    commands: int = 0
    closed: bool = False


class QueryContext:
    """The first parameter of a query: one snapshot of the app's tables."""

    def __init__(self, db: Database, principal: Principal, log: "LoggerAdapter[Any]") -> None:
        self.db, self.principal, self.log = db, principal, log


class MutationContext(QueryContext):
    """The first parameter of a mutation."""

    def __init__(self, db: Database, principal: Principal, log: "LoggerAdapter[Any]", transaction: Transaction) -> None:
        super().__init__(db, principal, log)
        self._in = transaction
        self._options: Mapping[str, Any] = {}

    def options(self, **options: Unpack[StartOptions]) -> Self:
        """A view: what is started and enqueued through it has these options. Raises Invalid for what there is not."""
        check_options(options)
        view = copy(self)
        view._options = merged(self._options, options)
        return view

    def now(self) -> datetime:
        """The time of the commit, the same for all of it."""
        return datetime.fromtimestamp(self._in.now / 1_000, UTC)

    def call(self, fn: Query[P, R] | Mutation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls another function in this transaction. One that raises leaves nothing, and the error can be caught."""
        if not isinstance(fn, Query | Mutation):
            raise Invalid(f"a mutation cannot call {fn!r}", hint="There are ctx.enqueue and ctx.start for others.")
        given = fn.signature.arguments(fn.signature.bind(args, kwargs))
        unit = self._in.unit
        with self._kernel():
            mark = unit.savepoint()
        view = copy(self)
        view._options = {}
        try:
            text = fn.signature.encode_result(fn.fn(view, **given))
        except BaseException:
            with self._kernel():
                unit.rollback(mark)
            raise
        result: R = fn.signature.decode_result(text)
        return result

    def start(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Starts a run when this commits; answers its id."""
        if not isinstance(workflow, Workflow):
            raise Invalid(f"{workflow!r} is no workflow", hint="Use ctx.enqueue for actions.")
        return self._start(workflow, workflow.signature.bind(args, kwargs))

    def enqueue(self, action: Action[P, R], /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Has an action run once this commits, by any worker; answers the id of its run."""
        if not isinstance(action, Action):
            raise Invalid(f"{action!r} is no action", hint="Use ctx.start for workflows.")
        return self._start(action, action.signature.bind(args, kwargs))

    def signal(self, run_id: str, signal: Signal[Any], value: Any) -> None:
        """Sends a signal. Raises Unknown or Ended, NotJson for a value that is not of the signal's type."""
        call, (name, payload) = self._in.call, signal_json(signal, value)
        self._decide(c.Signal(run_id, name, payload, by=call.by, scope=call.scope))

    def cancel(self, run_id: str) -> None:
        """Asks a run to end. Raises Unknown or Ended."""
        call = self._in.call
        self._decide(c.Cancel(run_id, by=call.by or call.function, reason=call.function, scope=call.scope))

    def dispatch(self, event: Event[Any]) -> Dispatched:
        """Sends an event, and starts what it matches. Raises Conflict for an id that came with another body."""
        made = self._in
        if made.match is None:
            hint = "Start the server, or the embedded one, with the flows that are to hear of it."
            raise Unavailable("nobody here knows what events start", hint=hint)
        need_event(event)
        emission = made.match(made.call.scope, event, event.id or self._new_id("evt_"))
        (one,) = emission.events
        known = c.AcceptEvent(one.event, one.matches, emission.manifests_at, one.misses, made.call.scope, made.call.by)
        run = None if made.call.run_no is None else made.unit.runs.get(made.call.run_no)
        if run is None:
            accepted: c.Accepted = self._decide(known)
            return Dispatched(accepted.event_id, accepted.status == "duplicate", accepted.run_ids)
        with self._kernel():
            self._count()
            made.unit.bring(known)
            key = (run.scope, one.event.id)
            before = made.unit.events.get(key) is not None
            mark = made.unit.mark()
            try:
                events.emit(made.unit, run, emission, made.now)
            except Exception:
                made.unit.rollback(mark)
                raise
            stored = made.unit.events.rows[key]
            return Dispatched(stored.id, before, list(made.unit.event_runs.get(stored.no) or ()))

    def _start(self, function: Workflow[Any, Any] | Action[Any, Any], input_json: str) -> str:
        call, given = self._in.call, dict(self._options)
        scope = given.pop("scope", call.scope)
        if scope != call.scope:
            raise Invalid(f"a mutation of scope {call.scope!r} starts nothing in {scope!r}", field="scope")
        by = call.by or call.function
        self._limit(given.get("pool"), function.options.get("pool"), scope)
        command = start_command(
            function,
            input_json,
            given,
            run_id=self._new_id("run_"),
            scope=call.scope,
            now=self._in.now,
            by=by,
            retry=self._in.retry,
        )
        started: c.Started = self._decide(command)
        return started.run_id

    def _limit(self, given: Pool | None, own: Pool | None, scope: str) -> None:
        """The limits of a pool hold with the first start in it; those that functions name are set in the main scope."""
        pool = own if given is None and scope != SCOPE else given
        if pool is not None and (held := self._in.pools.held(pool)).limits != (None, None, None):
            with self._kernel():
                decide_inside(self._in.unit, c.SetPool(pool_row(held, scope), limits_only=True), self._in.now)

    def _decide(self, command: c.Command) -> Any:
        with self._kernel():
            self._count()
            try:
                return decide_inside(self._in.unit, command, self._in.now)
            except Away as away:
                self._in.watched.root.away = away
                raise

    def _count(self) -> None:
        self._in.commands += 1
        if self._in.commands > MAX_COMMANDS:
            hint = "Let a workflow do it in parts."
            raise Invalid(f"more than {MAX_COMMANDS:,} commands in one mutation", hint=hint)

    def _kernel(self) -> AbstractContextManager[None]:
        """Code of the kernel, which is not broken off in the middle; refused once the call is over."""
        if self._in.closed or self._in.watched.thread != get_ident():
            raise NotAllowed("this context was another call's", hint="Use it in its call, while that runs.")
        return self._in.guard.shield(self._in.watched)

    def _new_id(self, prefix: str) -> str:
        return time_ordered_id(prefix, self._in.now, self._in.entropy(10))
