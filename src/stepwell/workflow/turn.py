"""A turn: what one lease of a workflow says to the kernel, and in which order. No I/O, no clock.

Whoever hosts it sends the command that `next` gives, tells `answered` or `refused`, runs what `take_work` gives and
tells `worked`. One write is under way at a time; what gets ready meanwhile goes together in the next. Entries of others
come with each answer and are delivered first, own ones after, in order of seq (source: KERNEL, who writes what when).
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

from msgspec import structs

from stepwell.functions.define import Workflow
from stepwell.functions.errors import NondeterministicCall, StepError, StepTimeout
from stepwell.functions.failures import BRIEF_CHARS, brief_json, failure_json, step_error
from stepwell.kernel.tasks import RetryPolicy
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import (
    Body,
    EventSent,
    PatchMarked,
    StepCompleted,
    StepFailed,
    StepRetried,
    TimerFired,
    decode_body,
    raw,
    text_of,
)
from stepwell.model.ids import unit_interval
from stepwell.model.rows import Entry
from stepwell.workflow import left
from stepwell.workflow.context import Context, Facts
from stepwell.workflow.instance import RETRY, SEEN, Instance
from stepwell.workflow.ops import ActionOp, CancelOp, ChildOp, EventOp, MutationOp, Op, PatchOp, StepOp, TimerOp
from stepwell.workflow.versions import MARK
from stepwell.workflow.work import UNSET, Done, Failed, Known, Matched, Work

#: How many entries one write brings at the most; the rest follows.
MAX_DRAFTS = 1_000
#: How many waits a parked run tells, and how many bytes of them: what a payload may have at the least, and a key less.
TOLD_WAITS, TOLD_BYTES = 100, 1_024
State = Literal["open", "parked", "ended", "held", "lost"]
#: Entries after which an earlier life of the body saw nothing more.
_BOUNDARIES = frozenset(("run.parked", "attempt.ended"))
#: What a step has come to.
_RESULTS = (StepCompleted, StepFailed, StepRetried)
#: Entries that others write under no lease of the turn, or that say nothing of how far the body was.
_NOT_OWN = frozenset(("attempt.started", "attempt.ended", "run.held", "signal.received", "cancel.requested"))


class Turn:
    """`logger(name, instance)` makes the log of a body, `given` the arguments of a run that an event started:
    what does not fit is the body's error, so the run fails.
    """

    def __init__(
        self,
        leased: c.Leased,
        workflow: Workflow[Any, Any],
        *,
        facts: Facts,
        logger: Callable[[str, Instance], Any],
        given: Callable[[], str] | None = None,
    ) -> None:
        self.leased, self.workflow, self.facts = leased, workflow, facts
        self.state: State = "open"
        self.seen = leased.seen
        self.n = 0
        self.dropped: list[str] = []  # work that nobody wants any more
        self._given = given
        self._now = 0
        self._command: Any = None
        self._sent: tuple[c.Draft, ...] = ()
        self._drafts: list[c.Draft] = []
        self._mutations: dict[str, MutationOp] = {}
        self._work: list[Work] = []
        self._running: dict[str, Op] = {}
        self._timers: list[tuple[int, str]] = []
        self._deadlines: list[tuple[int, str]] = []
        self._singly = 0  # so many drafts go one by one, to find the one that is refused
        self._failure: BaseException | None = None
        self._brief = False  # the error was too large to be kept
        self._patient: dict[str, EventOp] = {}
        self._logger = logger
        self.instance = self._new_instance()

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _new_instance(self) -> Instance:
        generation, began_ms = self._began()
        return Instance(self._body, run_id=self.leased.run.id, generation=generation, now_s=began_ms / 1_000)

    async def _body(self, instance: Instance) -> Any:
        given = self.leased.input if self._given is None else self._given()
        arguments = self.workflow.signature.arguments(given or "{}")
        ctx = Context(instance, self.facts, self._logger(self.facts.name, instance))
        return await self.workflow.fn(ctx, **arguments)

    def _began(self) -> tuple[int, int]:
        """In which generation and when the body first ran: the same for every later life of what is kept of it."""
        for entry in self.leased.journal:
            if entry.kind == "attempt.started":
                return entry.generation, entry.at
        return self.leased.run.generation, self.leased.run.updated_at

    def begin(self) -> None:
        """Runs the body, and hands it what the journal has."""
        instance, journal = self.instance, self.leased.journal
        boundary = max((at for at, one in enumerate(journal) if one.kind in _BOUNDARIES), default=-1)
        bodies = [(at, one, decode_body(one.kind, one.data)) for at, one in enumerate(journal) if one.kind in SEEN]
        ahead = instance.ahead
        ahead.extend((at, one.key) for at, one in enumerate(journal) if _is_own(one))
        instance.marks = {body.id for _, _, body in bodies if isinstance(body, PatchMarked)}
        instance.replaying = boundary >= 0
        instance.start()
        for at, entry, body in bodies:
            while ahead and ahead[0][0] <= at:
                ahead.popleft()
            instance.replaying = at < boundary
            instance.deliver(body, entry.key, entry.at)
        instance.replaying = False
        ahead.clear()
        self.leased.journal = []  # a run may stay in memory for long
        for op in instance.retrying.values():
            self._mind_deadline(op)

    def close(self) -> None:
        """Takes the body out of memory."""
        if self.state == "open":
            self.state = "lost"
        self.instance.close()
        self._work.clear()

    # ── to the kernel ────────────────────────────────────────────────────────────────────────────────────────────

    def next(self, now: int) -> Any:
        """The next command to send, or None. `now` in milliseconds of the kernel's clock."""
        if self._command is not None or self.state != "open":
            return None
        self._now = max(now, self._now)
        instance = self.instance
        if instance.mismatch is not None:
            diff = f"{instance.mismatch}\n{MARK}{self.facts.code}"
            return self._send(c.Release(self.leased.lease, self.n + 1, hold="mismatch", diff=diff))
        if instance.violation is not None or self._failure is not None:
            return self._send(self._fail(instance.violation or self._failure))
        if instance.root.done():
            return self._send(self._last_marks() or self._end())
        self._collect()
        self._fire()
        if self._drafts:
            return self._send(self._record())
        for key, op in self._mutations.items():
            if key in instance.pending:
                return self._send(c.Mutate(self.leased.lease, self.n + 1, self.seen, key, op.function, op.args))
        self._mutations.clear()
        return None

    def park(self, now: int) -> Any:
        """Gives the lease back until something comes; None when there is something to do after all."""
        command = self.next(now)
        if command is not None or not self.idle or self._command is not None:
            return command
        due = self._earliest()
        command = c.Park(self.leased.lease, self.n + 1, self.seen, _told(self._waits()))
        if due is not None:
            command.due_at, command.due_key = due
        command.unread = tuple(self.instance.unread[:TOLD_WAITS])
        return self._send(command)

    def _waits(self) -> Iterator[str]:
        """What the body waits for. Timers come last: a run that tells of nothing else counts as sleeping."""
        yield from (f"signal:{name}" for name, box in self.instance.inboxes.items() if _waited_for(box.waiters))
        ops = self.instance.pending.values()
        yield from (wait for op in ops if not (wait := _wait_of(op)).startswith("timer:"))
        yield from (wait for op in ops if (wait := _wait_of(op)).startswith("timer:"))

    def _last_marks(self) -> c.Record | None:
        """A patch that the body asked for right before its end is recorded, too: a replay must take its path."""
        marks = [c.Draft(op.body, op.key) for op in self.instance.take() if isinstance(op, PatchOp)]
        self._drafts = [draft for draft in self._drafts if isinstance(draft.body, PatchMarked)] + marks
        return self._record() if self._drafts else None

    def _record(self) -> c.Record:
        most = MAX_DRAFTS
        if self._singly:
            self._singly, most = self._singly - 1, 1
        self._sent, self._drafts = tuple(self._drafts[:most]), self._drafts[most:]
        return c.Record(self.leased.lease, self.n + 1, self.seen, self._sent)

    def _send(self, command: Any) -> Any:
        self._command = command
        return command

    def answered(self, reply: Any) -> None:
        """The kernel's answer to the last command."""
        command, self._command = self._command, None
        self.n += 1
        if isinstance(command, c.Record):
            sent, self._sent = self._sent, ()
            self.seen = reply.head
            if reply.missed:
                self._hear(reply.missed)
            if reply.own:
                self._hear(reply.own)
                for draft in sent if self._patient else ():
                    self._patient.pop(draft.key or "", None)
            else:
                instance, at = self.instance, reply.at
                for draft in sent:
                    instance.deliver(draft.body, draft.key, at)
        elif isinstance(command, c.Mutate):
            self._mutations.pop(command.key, None)
            self.seen = reply.head
            self._hear(reply.missed)
            self._hear(reply.own)
        elif isinstance(command, c.Park):
            self.state = "parked"
        elif isinstance(command, c.Release):
            self.state = "held"
        else:
            self.state = "ended"
            if self.instance.pending and self.instance.canceled is None:
                left.warn(self.leased.run.id, self.instance.pending.values())

    def refused(self, error: errors.StepwellError) -> None:
        """The kernel refused the last command, and changed nothing. Raises what only the host can settle."""
        command, self._command = self._command, None
        sent, self._sent = self._sent, ()
        if isinstance(error, errors.Unseen):
            self.heard(error.entries)
        elif isinstance(error, errors.Outdated) and isinstance(command, c.Record):
            self._match_again(sent)
        elif isinstance(error, errors.UnknownFunction) and isinstance(command, c.Mutate):
            self.instance.mismatch = f"{error.message}\n{error.hint}"
        elif isinstance(error, errors.TooLarge | errors.Invalid | errors.Exists) and isinstance(command, c.Record):
            self._refuse_drafts(sent, error)
        elif isinstance(error, errors.TooLarge | errors.Invalid | errors.Outdated) and isinstance(command, c.Mutate):
            self._mutations.pop(command.key, None)
            self._drafts.append(c.Draft(StepFailed(raw(failure_json(error, attempts=1))), command.key))
        elif isinstance(error, errors.TooLarge | errors.Invalid) and isinstance(command, c.Finish | c.Park):
            self._failure = error
        elif isinstance(error, errors.TooLarge) and isinstance(command, c.Fail) and not self._brief:
            self._brief = True
        else:
            raise error

    def _refuse_drafts(self, sent: Sequence[c.Draft], error: errors.StepwellError) -> None:
        """Finds the guilty draft of a refused write, and records that its step failed instead."""
        what = error.fields.get("what", "")
        if what in ("journal_entries", "journal_bytes") and len(sent) == 1:
            self._failure = error
        elif len(sent) > 1:
            self._drafts[:0] = sent
            self._singly = len(sent)
        elif not isinstance(sent[0].body, StepFailed | StepRetried):
            self._running.pop(sent[0].key or "", None)
            self._instead(sent[0], StepFailed(raw(failure_json(error, attempts=1))))
        else:
            self._refuse_failure(sent[0], sent[0].body, error)

    def _refuse_failure(self, draft: c.Draft, body: StepFailed | StepRetried, error: errors.StepwellError) -> None:
        """Rather the reason without its data than neither."""
        text = text_of(body.error) or "{}"
        known = step_error(text)
        brief = failure_json(
            StepError(known.message[:BRIEF_CHARS], type=known.type[:BRIEF_CHARS], attempts=known.attempts)
        )
        if len(brief) < len(text):
            self._instead(draft, structs.replace(body, error=raw(brief)))
        else:
            self._failure = error

    def _instead(self, refused: c.Draft, body: Body) -> None:
        self._drafts.insert(0, c.Draft(body, refused.key))
        self._singly += 1 if self._singly else 0

    def _match_again(self, sent: Sequence[c.Draft]) -> None:
        """The events of a refused write are matched anew; the rest keeps its place before what came later."""
        again = {draft.key: op for draft in sent if (op := self._patient.pop(draft.key or "", None)) is not None}
        self._drafts[:0] = [draft for draft in sent if draft.key not in again]
        for op in again.values():
            self._match(op)

    def heard(self, entries: Iterable[Entry]) -> None:
        """What others wrote meanwhile, from a Sync. While a write is under way, its answer brings it."""
        if self._command is not None or self.state != "open":
            return
        fresh = [entry for entry in entries if entry.seq > self.seen]
        if fresh:
            self.seen = fresh[-1].seq
            self._hear(fresh)

    def _hear(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.kind in SEEN:
                self.instance.deliver(decode_body(entry.kind, entry.data), entry.key, entry.at)

    # ── what the body issued ─────────────────────────────────────────────────────────────────────────────────────

    def _collect(self) -> None:
        for op in self.instance.take():
            if isinstance(op, StepOp):
                self._mind_deadline(op)
                self._run(op)
            elif isinstance(op, TimerOp):
                heapq.heappush(self._timers, (op.timer.due_ms, op.key))
            elif isinstance(op, MutationOp):
                self._mutations[op.key] = op
            elif isinstance(op, EventOp):
                self._match(op)
            else:
                body = op.draft()
                assert body is not None
                self._drafts.append(c.Draft(body, op.key))
        for key in self.instance.gone():
            if self._running.pop(key, None) is not None:
                self.dropped.append(key)

    def _match(self, op: EventOp) -> None:
        self._running[op.key] = op
        self._work.append(Work(op.key, "match", None, (op.event,), {}, None))

    def _mind_deadline(self, op: StepOp) -> None:
        if op.deadline_ms is not None:
            heapq.heappush(self._deadlines, (op.deadline_ms, op.key))

    def _run(self, op: StepOp) -> None:
        self._running[op.key] = op
        kind: Literal["step", "query"] = "query" if getattr(op.fn, "kind", "") == "query" else "step"
        work = Work(op.key, kind, op.fn, op.args, op.kwargs, op.signature, op.attempt, op.timeout_ms)
        self._work.append(work)

    def take_work(self) -> list[Work]:
        """What the host is to do now; call it after `next`."""
        work, self._work = self._work, []
        return [one for one in work if one.key in self._running] if work else work

    def worked(self, key: str, outcome: Done | Failed | Matched, now: int) -> None:
        """How the work ended. What nobody waits for any more is forgotten."""
        op = self._running.pop(key, None)
        if op is None or key not in self.instance.pending or self.state != "open":
            return
        self._now = max(now, self._now)
        if isinstance(outcome, Done):
            assert isinstance(op, StepOp)
            if outcome.value is not UNSET:
                op.signature = Known(outcome.value, outcome.text, op.signature)
            self._drafts.append(c.Draft(StepCompleted(raw(outcome.text), op.attempt), key))
        elif isinstance(outcome, Matched):
            assert isinstance(op, EventOp)
            self._patient[key] = op
            event = outcome.sends.events[0].event
            self._drafts.append(c.Draft(EventSent(id=event.id), key, outcome.sends))
        else:
            self._step_failed(op, outcome.error)

    def _step_failed(self, op: Op, error: BaseException) -> None:
        attempt = op.attempt if isinstance(op, StepOp) else 1
        text = raw(failure_json(error, attempts=attempt))
        retry = op.retry if isinstance(op, StepOp) else None
        if retry is None or attempt >= retry.max_attempts or not retry.allows(error):
            self._drafts.append(c.Draft(StepFailed(text, attempt), op.key))
            return
        assert isinstance(op, StepOp)
        jitter = unit_interval(self.leased.run.id, op.key, attempt)
        policy: RetryPolicy = retry.policy
        next_at = self._now + policy.delay_ms(attempt, jitter)
        self._drafts.append(c.Draft(StepRetried(attempt, next_at, text), op.key))

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fire(self) -> None:
        """Timers and retries that are due, in order of (due_at, key)."""
        pending, timers = self.instance.pending, self._timers
        while timers and (timers[0][0] <= self._now or timers[0][1] not in pending):
            due, key = heapq.heappop(timers)
            if key in pending:
                self._drafts.append(c.Draft(TimerFired(due), key))
        while self._deadlines and self._deadlines[0][0] <= self._now:
            self._past_deadline(heapq.heappop(self._deadlines)[1])
        retrying = self.instance.retrying
        for key in [key for key, op in retrying.items() if op.next_at <= self._now] if retrying else ():
            op = retrying.pop(key)
            if key in pending and not self._recording(key):  # its deadline may have come before its retry was written
                self._run(op)

    def _past_deadline(self, key: str) -> None:
        op = self.instance.pending.get(key)
        if isinstance(op, StepOp) and not self._recording(key):
            if self._running.pop(key, None) is not None:
                self.dropped.append(key)
            self.instance.retrying.pop(key, None)
            error = StepTimeout("the step is past its deadline")
            self._drafts.append(c.Draft(StepFailed(raw(failure_json(error, attempts=op.attempt)), op.attempt), key))

    def _recording(self, key: str) -> bool:
        """Whether the end of a step is on its way into the journal."""
        return any(draft.key == key and not isinstance(draft.body, StepRetried) for draft in self._drafts)

    def _earliest(self) -> tuple[int, str] | None:
        """The next timer, retry or deadline that the run waits for, with its key."""
        if not (self._timers or self._deadlines or self.instance.retrying):
            return None
        pending = self.instance.pending
        while self._timers and self._timers[0][1] not in pending:
            heapq.heappop(self._timers)
        found = self._timers[:1]
        found += [(op.next_at, key + RETRY) for key, op in self.instance.retrying.items() if key in pending]
        while self._deadlines and self._deadlines[0][1] not in pending:
            heapq.heappop(self._deadlines)
        found += [(due, key + RETRY) for due, key in self._deadlines[:1]]
        return min(found, default=None)

    @property
    def due(self) -> int | None:
        """When `next` will have something to say at the latest, if nothing else happens."""
        earliest = self._earliest()
        return None if earliest is None else earliest[0]

    @property
    def has_results(self) -> bool:
        """Whether something was done that is not written yet: steps that have ended, or the whole body."""
        return self.instance.root.done() or any(isinstance(draft.body, _RESULTS) for draft in self._drafts)

    @property
    def waits_for_write(self) -> bool:
        """Whether a command is under way."""
        return self._command is not None

    @property
    def idle(self) -> bool:
        """Nothing is written, nothing runs here: the run only waits."""
        return (
            self.state == "open"
            and self._command is None
            and not (self._drafts or self._mutations or self._running or self._work or self.instance.fresh)
            and not self.instance.root.done()
        )

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _end(self) -> Any:
        root, lease, n = self.instance.root, self.leased.lease, self.n + 1
        unread = tuple(self.instance.unread[:TOLD_WAITS])
        if root.cancelled():
            asked = self.instance.canceled
            if asked is None:
                return self._fail(NondeterministicCall("the body was canceled, and nobody had asked for it"))
            return c.Finish(lease, n, c.Canceled(asked.reason), unread=unread)
        error = root.exception()
        if error is not None:
            return self._fail(error)
        try:
            return c.Finish(lease, n, c.Completed(self.workflow.signature.encode_result(root.result())), unread=unread)
        except errors.StepwellError as wrong:
            return self._fail(wrong)

    def _fail(self, error: BaseException | None) -> Any:
        assert error is not None
        unread = tuple(self.instance.unread[:TOLD_WAITS])
        text = brief_json(error) if self._brief else failure_json(error)
        return c.Fail(self.leased.lease, self.n + 1, text, retry=False, unread=() if self._brief else unread)


def _is_own(entry: Entry) -> bool:
    return entry.n > 0 and entry.kind not in _NOT_OWN


def _wait_of(op: Op) -> str:
    if isinstance(op, TimerOp):
        return f"timer:{op.key}"
    if isinstance(op, ActionOp):
        return f"action:{op.key}"
    return f"child:{op.key}" if isinstance(op, ChildOp) else f"timer:{op.key}{RETRY}"


def _told(waits: Iterable[str]) -> tuple[str, ...]:
    """As many of them as are told, from the first on."""
    told, left = list[str](), TOLD_BYTES
    for wait in islice(waits, TOLD_WAITS):
        left -= len(wait.encode())
        if left < 0:
            break
        told.append(wait)
    return tuple(told)


def _waited_for(waiters: Iterable[Any]) -> bool:
    return any(not waiter.done() for waiter in waiters)


__all__ = ["Body", "CancelOp", "Done", "Failed", "Matched", "Turn", "Work"]
