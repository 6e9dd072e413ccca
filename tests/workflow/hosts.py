"""The workers that host lives: they lease turns, send what a life writes, run its steps, and die."""

from typing import Any

from stepwell.functions.errors import NonRetryable
from stepwell.functions.values import encode
from stepwell.model import commands as c
from stepwell.model import errors
from stepwell.model.entries import StepCompleted
from stepwell.workflow.turn import Done, Failed, Matched, Work
from tests.workflow.called import Boom, fail, flaky, look
from tests.workflow.lives import Bad, Life
from tests.workflow.player import play
from tests.workflow.world import LEASE_MS, World, agree, said, short


class Fatal(NonRetryable):
    """A failure that no policy tries again."""


class Hosts(World):
    """Each public method without arguments is a move, and answers whether it did anything."""

    def claim(self) -> bool:
        """A worker leases turns."""
        if self.still("turns"):
            return False
        worker = self.rng.choice(["w0", "w1"])
        command = c.Claim(worker, self.secret(), requires=(f"workflow:{play.path}",), lease_ms=LEASE_MS)
        command.limit = self.rng.randrange(1, 4)
        claimed = self.bench.do(command)
        if claimed.tasks and self.rng.random() < 0.1:
            claimed = self.bench.do(command)  # the first answer was lost
        for leased in claimed.tasks:
            self.embody(leased, worker)
        self.still("turns", bool(claimed.tasks))
        return bool(claimed.tasks)

    def embody(self, leased: c.Leased, worker: str) -> None:
        run_id = leased.run.id
        if self.newer is not None and run_id == "r":
            leased.input = self.newer
        self.note("life of", run_id, "epoch", leased.lease.epoch, "with", len(leased.journal), "entries")
        self.first.setdefault(run_id, leased)
        self.epochs[run_id] = leased.lease.epoch
        self.junk = [object() for _ in range(self.rng.randrange(50))]
        life = Life(leased, worker)
        life.turn.begin()
        self.lives.append(life)
        if run_id == "r" and self.before is not None:
            life.misfit = life.turn.instance.mismatch is not None
            self.before = self.before if life.misfit else None
        if not life.misfit:
            self.stories(run_id).learn(life.trace.seen, life.asked, f"a new life of {run_id}")

    def end_life(self, life: Life) -> None:
        self.lives.remove(life)
        self.ghosts = [*self.ghosts, life.leased][-3:]
        story = life.close()
        if not life.misfit:
            self.stories(life.run_id).learn(*story, f"a life of {life.run_id}")

    def crash(self) -> bool:
        """A life ends without a word, whatever it was about to do."""
        if not self.lives:
            return False
        life = self.rng.choice(self.lives)
        self.end_life(life)
        return self.note("crash of", life.run_id, "epoch", life.leased.lease.epoch)

    def drain(self) -> bool:
        """A life hands its lease back."""
        ready = [life for life in self.lives if life.command is None]
        if not ready:
            return False
        life = self.rng.choice(ready)
        reply = self.bench.all(c.Release(life.leased.lease, life.turn.n + 1))[0]
        self.note("drain of", life.run_id, type(reply).__name__)
        self.end_life(life)
        return True

    def ghost(self) -> bool:
        """A worker whose lease is over writes all the same."""
        over = [one for one in self.ghosts if one.lease.epoch < self.epochs[one.run.id]]
        if not over:
            return False
        lease = self.rng.choice(over).lease
        draft = c.Draft(StepCompleted(), "ghost#0")
        for n in (1, 2, 3):
            reply = self.bench.all(c.Record(lease, n, 1_000, (draft,)))[0]
            if not isinstance(reply, errors.Stale | errors.Ended):
                raise Bad(f"a stale lease was answered with {reply}")
        return self.note("ghost", lease.epoch)

    # ── what a life writes ───────────────────────────────────────────────────────────────────────────────────────

    def pump(self) -> bool:
        """Asks a life for its next write."""
        ready = [life for life in self.lives if life.command is None]
        if not ready:
            return False
        life = self.rng.choice(ready)
        return self.ask(life, self.clock.now + self.rng.choice([0, 0, 0, -1, -3, 2]))

    def ask(self, life: Life, now: int) -> bool:
        life.command = life.turn.next(now)
        self.begin_jobs(life)
        return life.command is not None and self.note("next of", life.run_id, said(life.command))

    def begin_jobs(self, life: Life) -> None:
        life.take_work()
        for key in life.turn.dropped:
            if self.rng.random() < 0.7:
                life.jobs.pop(key, None)
        life.turn.dropped.clear()

    def park(self) -> bool:
        """Asks a life that only waits to give its lease back."""
        ready = [life for life in self.lives if life.command is None and life.turn.idle]
        return bool(ready) and self.rest(self.rng.choice(ready))

    def rest(self, life: Life) -> bool:
        life.command = life.turn.park(self.clock.now)
        self.begin_jobs(life)
        if life.command is None and life.turn.idle:
            raise Bad(f"{life.run_id} is idle, and does not park")
        return life.command is not None and self.note("park of", life.run_id, said(life.command))

    def send(self) -> bool:
        """Sends what some lives want written in one batch, once or twice; some answers get lost."""
        ready = [life for life in self.lives if life.command is not None]
        if not ready:
            return False
        chosen = self.rng.sample(ready, self.rng.randrange(1, len(ready) + 1))
        outside = [self.call_from_outside()] if self.rng.random() < 0.05 else []
        if outside:
            self.note("in one batch with", outside[0])
        twice = [life for life in chosen if self.rng.random() < 0.05]
        commands = [*outside, *(life.command for life in chosen), *(life.command for life in twice)]
        replies = self.bench.all(*commands)[len(outside) :]
        for life, reply in zip(twice, replies[len(chosen) :], strict=True):
            at = chosen.index(life)
            agree(replies[at], reply)
            replies[at] = self.rng.choice([replies[at], reply])
        for life, reply in zip(chosen, replies, strict=False):
            self._fate(life, reply)
        return True

    def _fate(self, life: Life, reply: Any) -> None:
        """What becomes of an answer."""
        chance = self.rng.random()
        if chance < 0.08:
            life.sent = self.note("the answer is lost to", life.run_id)
        elif chance < 0.1:
            self.note("crash before the answer of", life.run_id)
            self.end_life(life)
        else:
            self.hand(life, reply)

    def hand(self, life: Life, reply: Any) -> None:
        command, life.command = life.command, None
        repeated, life.sent = life.sent, False
        if isinstance(reply, errors.StepwellError):
            self.note(life.run_id, "is refused:", reply)
            self.counts[type(reply).__name__] += 1
            if isinstance(reply, errors.Stale | errors.Ended):
                self.end_life(life)
                return
            life.turn.refused(reply)
        else:
            if life.leased.lease.epoch < self.epochs[life.run_id] and not repeated:
                raise Bad(f"a stale life of {life.run_id} wrote {said(command)}")
            life.turn.answered(reply)
            self.note(life.run_id, "is answered", short(reply))
            drafts = command.entries if isinstance(command, c.Record) else ()
            life.learn_end([*getattr(reply, "own", ()), *getattr(reply, "missed", ())], drafts)
        self._after(life)

    def _after(self, life: Life) -> None:
        if life.turn.state == "held" and not life.misfit:
            raise Bad(f"{life.run_id} is held: {life.turn.instance.mismatch}")
        if life.turn.state == "open":
            self.begin_jobs(life)
        else:
            self.end_life(life)

    def complete(self) -> bool:
        """Something that runs on a worker ends, well or badly."""
        ready = [(life, work) for life in self.lives for work in life.jobs.values()]
        if not ready:
            return False
        life, work = self.rng.choice(ready)
        return self.finish_job(life, work, fails=self.rng.random() < 0.25)

    def complete_all(self) -> bool:
        """Everything that runs on one worker ends."""
        ready = [life for life in self.lives if life.jobs]
        if not ready:
            return False
        life = self.rng.choice(ready)
        for work in list(life.jobs.values()):
            self.finish_job(life, work, fails=self.rng.random() < 0.1)
        return True

    def finish_job(self, life: Life, work: Work, *, fails: bool) -> bool:
        del life.jobs[work.key]
        outcome = self._outcome(life, work, fails)
        life.turn.worked(work.key, outcome, self.clock.now)
        return self.note("end of", work.key, outcome)

    def _outcome(self, life: Life, work: Work, fails: bool) -> Done | Failed | Matched:
        self.nonce += 1
        if work.kind == "match":
            return self._matched(life, work)
        if work.fn is flaky and not fails:
            fails = self.rng.random() < 0.5
        if work.fn is fail or (fails and work.fn is not look):
            return Failed(self.rng.choice([Boom, Fatal])(f"boom {self.nonce}"))
        value = self.nonce if work.fn is look else work.fn(nonce=self.nonce)
        result = encode(value)
        return Done(result, value) if self.rng.random() < 0.5 and isinstance(value, str) else Done(result)

    def _matched(self, life: Life, work: Work) -> Matched:
        event = work.args[0]
        payload = encode(event.payload)
        new = c.NewEvent(event.id or f"{life.run_id} {work.key}", event.type, "2026", payload, payload)
        matches = (c.Match("f", "s", requires="flow:f"),) if self.rng.random() < 0.3 else ()
        return Matched(c.Emission((c.Emitted(new, matches),), self.revision))

    def sync(self) -> bool:
        """A worker extends its leases, and hears what others wrote."""
        worker = self.rng.choice(["w0", "w1"])
        mine = [life for life in self.lives if life.worker == worker]
        beats = tuple(c.Beat(life.leased.lease, life.turn.seen) for life in mine)
        if not mine:
            return False
        for life, told in zip(mine, self.bench.do(c.Sync(worker, beats, LEASE_MS)).tasks, strict=True):
            if told.error is not None:
                self.end_life(life)
            else:
                life.turn.heard(told.missed)
                self.begin_jobs(life)
        return self.note("sync of", worker)
