"""The others around a run: workers of actions, the engine's roles, callers, and the clock."""

from typing import Any

from msgspec import json

from stepwell.functions.values import encode
from stepwell.model import commands as c
from stepwell.model import errors
from tests.workflow.called import act
from tests.workflow.world import LEASE_MS, World, agree, short


class Others(World):
    """Each public method without arguments is a move, and answers whether it did anything."""

    def begin_action(self) -> bool:
        """A worker leases actions."""
        if self.still("actions"):
            return False
        command = c.Claim("a", self.secret(), requires=(f"function:{act.path}",), lease_ms=LEASE_MS)
        command.limit = self.rng.randrange(1, 4)
        leases = self.bench.do(command).tasks
        self.actions += [(leased, self.secret()) for leased in leases]
        self.still("actions", bool(leases))
        return bool(leases) and self.note("actions begin:", len(leases))

    def end_action(self) -> bool:
        """An action ends, well or badly; some answers get lost."""
        if not self.actions:
            return False
        leased, nonce = self.actions.pop(self.rng.randrange(len(self.actions)))
        error = json.encode({"type": "Boom", "message": nonce}).decode()
        command: Any = c.Finish(leased.lease, 1, c.Completed(encode(f"acted {nonce}")))
        if self.rng.random() < 0.3:
            command = c.Fail(leased.lease, 1, error, retry=self.rng.random() < 0.8)
        reply = self.bench.all(command)[0]
        if self.rng.random() < 0.1 and not isinstance(reply, errors.StepwellError):
            agree(reply, self.bench.do(command))
        return self.note("action", leased.run.id, leased.key, "ends:", short(reply))

    def leave_action(self) -> bool:
        """A worker forgets an action."""
        if not self.actions:
            return False
        self.actions.pop(self.rng.randrange(len(self.actions)))
        return True

    def role(self) -> bool:
        """One of the engine's roles does what there is to do."""
        command: Any = self.rng.choice([c.Sweep, c.Fire, c.Deliver, c.Promote])()
        name = type(command).__name__
        if self.still(name):
            return False
        count = self.bench.do(command).count
        self.still(name, count > 0)
        return count > 0 and self.note(name, count)

    def tick(self) -> bool:
        """Time passes."""
        self.clock.tick(self.rng.choice([0, 1, 1, 100, 250, 500, 999, 1_000, 2_000]))
        return self.note("tick to", self.clock.now)

    def tick_exactly(self) -> bool:
        """Time passes until exactly when something is due; a signal may come in that millisecond."""
        due = self.due()
        if due is None:
            return False
        self.clock.now = max(self.clock.now, due)
        self.note("tick exactly to", self.clock.now)
        return self.outside() if self.rng.random() < 0.5 else True

    def tick_far(self) -> bool:
        """Nobody is there for a while: every lease is over."""
        self.clock.tick(self.rng.choice([5_000, LEASE_MS + 1, 60_000]))
        return self.note("tick far to", self.clock.now)

    def outside(self) -> bool:
        """A caller signals, or asks for an end."""
        command = self.call_from_outside()
        reply = self.bench.all(command)[0]
        return self.note("outside", command, short(reply))

    def manifests(self) -> bool:
        """The manifests change: what was matched is outdated."""
        self.nonce += 1
        synced = self.bench.do(c.SyncManifests((("flow", "1", f"hash {self.nonce}", "{}"),)))
        if self.rng.random() < 0.7:
            self.revision = synced.revision
        return self.note("manifests", synced.revision)
