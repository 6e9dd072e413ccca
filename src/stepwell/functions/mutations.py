"""The lane's mutations: an app's functions in the kernel's transaction (source: KERNEL, mutations)."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from stepwell.functions import waits
from stepwell.functions.contexts import Matcher, MutationContext, Transaction
from stepwell.functions.database import Database
from stepwell.functions.define import Mutation, Principal
from stepwell.functions.failures import failure_json
from stepwell.functions.guard import Guard, Watched
from stepwell.functions.migrations import read_migrations
from stepwell.functions.pools import NONE_NAMED, NamedPools
from stepwell.functions.registry import Registry
from stepwell.functions.retry import Retry
from stepwell.kernel import check
from stepwell.kernel.calls import Away, Call, Called
from stepwell.kernel.unit import Unit
from stepwell.model.errors import Outdated, UnknownFunction
from stepwell.model.settings import Settings
from stepwell.store.port import Store

log = logging.getLogger("stepwell.functions")


class AppMutations:
    """What an engine is opened with, so that the mutations of an app run in its lane.

    `match` finds what an event starts, `retry` is the app's policy of actions, `pools` those that its functions name.
    Close it after the engine.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        app: str = "app",
        migrations: Path | None = None,
        settings: Settings | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        match: Matcher | None = None,
        retry: Retry | None = None,
        pools: NamedPools = NONE_NAMED,
    ) -> None:
        self._registry, self._app, self._migrations = registry, app, migrations
        self._settings, self._entropy, self._match = settings or Settings(), entropy, match
        self._retry, self._pools = retry, pools
        self.guard = Guard(self._settings.mutation_limit_ms)
        self._known: tuple[int, frozenset[str]] = (0, frozenset())

    @property
    def names(self) -> frozenset[str]:
        size = len(self._registry)
        if size != self._known[0]:
            mutations = self._registry.of("mutation")
            self._known = (size, frozenset(one.path for one in mutations))
            for one in mutations:
                waits.kept().swap(getattr(one.fn, "__globals__", {}))
        return self._known[1]

    def migrate(self, store: Store) -> list[int]:
        """Applies the app's own migrations; answers the numbers of those that were missing."""
        if self._migrations is None:
            return []
        return store.migrate_app(self._app, read_migrations(self._migrations, store.dialect))

    def close(self) -> None:
        self.guard.close()

    def call(self, unit: Unit, call: Call, now: int) -> Called:
        began = perf_counter()
        _ = self.names  # what came since the last call may have imported a sleep
        try:
            text = self._run(unit, call, now)
        except (Away, Outdated):  # the store's trouble, or the manifests': the call is made again
            raise
        except BaseException as error:
            log.info("mutation %s failed: %s: %s", call.function, type(error).__name__, error)
            return Called(False, failure_json(error), (perf_counter() - began) * 1_000)
        return Called(True, text, (perf_counter() - began) * 1_000)

    def _run(self, unit: Unit, call: Call, now: int) -> str:
        function = self._registry.get(call.function)
        tables = unit.app
        if not isinstance(function, Mutation) or tables is None:
            raise UnknownFunction(f"{call.function} is no mutation", function=call.function)

        def work(watched: Watched) -> str:
            signature = function.signature
            given = signature.arguments(_arguments(function, call))
            db = Database(tables, self.guard, watched)
            inside = Transaction(
                unit, call, now, self.guard, watched, self._entropy, self._match, self._pools, self._retry
            )
            extra = {"function": call.function, "run_no": call.run_no}
            context = MutationContext(db, Principal(), logging.LoggerAdapter(log, extra), inside)
            try:
                text = signature.encode_result(function.fn(context, **given))
                db.settle()
            finally:
                db.close()
                inside.closed = True
            check.json(self._settings, "result", text)
            return text

        return self.guard.run(call.function, work, tables)


def _arguments(function: Mutation[..., Any], call: Call) -> str:
    """The call's arguments as an object of names; null is none."""
    if call.whole:
        return function.signature.whole(call.args)
    return "{}" if call.args == "null" else call.args
