"""Queries: an app's functions on a reading connection, in one snapshot, under the same guard."""

import logging

from stepwell.functions import waits
from stepwell.functions.contexts import QueryContext
from stepwell.functions.database import Database
from stepwell.functions.define import Principal, Query
from stepwell.functions.failures import failure_json, step_error
from stepwell.functions.guard import Guard, Watched
from stepwell.functions.registry import Registry
from stepwell.kernel import check
from stepwell.kernel.calls import Away
from stepwell.model.errors import Unavailable, UnknownFunction
from stepwell.model.settings import Settings
from stepwell.store.port import Reader

log = logging.getLogger("stepwell.functions")


class AppQueries:
    """Runs queries: `await engine.read(lambda reader: queries.call(reader, path, args))`. Close it after the engine."""

    def __init__(self, registry: Registry, *, settings: Settings | None = None) -> None:
        self._registry, self._settings = registry, settings or Settings()
        self.guard = Guard(self._settings.mutation_limit_ms)
        self._known = 0

    def close(self) -> None:
        self.guard.close()

    def call(self, reader: Reader, path: str, args: str, *, principal: Principal | None = None) -> str:
        """The result as JSON, of arguments as a JSON object of names.

        Raises `StepError` with what the query raised, whatever that was: `Unavailable` is the store's, nobody else's.
        """
        self._guard_sleeps()
        function = self._registry.get(path)
        if not isinstance(function, Query):
            raise UnknownFunction(f"{path} is no query", function=path)
        tables = reader.app

        def work(watched: Watched) -> str:
            given = function.signature.arguments(args)
            db = Database(tables, self.guard, watched)
            adapter = logging.LoggerAdapter(log, {"function": path})
            try:
                text = function.signature.encode_result(
                    function.fn(QueryContext(db, principal or Principal(), adapter), **given)
                )
            finally:
                db.close()
            check.json(self._settings, "result", text)
            return text

        try:
            return self.guard.run(path, work, tables)
        except Away as away:
            raise Unavailable(f"the store cannot be read: {away}") from away
        except BaseException as error:
            raise step_error(failure_json(error)) from None

    def _guard_sleeps(self) -> None:
        """What came since the last call may have imported a sleep."""
        size = len(self._registry)
        if size != self._known:
            for one in self._registry.of("query"):
                waits.kept().swap(getattr(one.fn, "__globals__", {}))
            self._known = size
