"""The mutations of `called`, run in the lane's transaction on a table of their own; they take no time.

That nothing is measured keeps the lane's batches the same on every machine.
"""

from typing import Any

from stepwell.functions.failures import failure_json
from stepwell.functions.values import encode
from stepwell.kernel.calls import Call, Called
from stepwell.kernel.unit import Unit
from stepwell.store.port import AppMigration, Reader, Store
from tests.workflow.called import broken, effect

TABLE = AppMigration(1, "effect", "CREATE TABLE effect (token TEXT NOT NULL)", "1")
MUTATIONS = {function.path: function for function in (effect, broken)}


class _Context:
    """What a mutation needs here: `ctx.db.execute`."""

    def __init__(self, unit: Unit) -> None:
        self.db, self._unit = self, unit

    def execute(self, sql: str, *values: Any) -> int:
        app: Any = self._unit.app
        changed: int = app.execute(sql, values, 0).changed
        return changed


class Effects:
    """Known to the lane as its mutations."""

    names = frozenset(MUTATIONS)

    def call(self, unit: Unit, call: Call, now: int) -> Called:
        function = MUTATIONS[call.function]
        try:
            return Called(True, encode(function.fn(_Context(unit), **function.signature.arguments(call.args))))
        except Exception as error:
            return Called(False, failure_json(error))


def prepare(store: Store) -> None:
    """Makes the table of effects."""
    store.migrate_app("replay", [TABLE])


def tokens(reader: Reader) -> list[str]:
    """What the mutations left, each time that they did."""
    app: Any = reader
    return [row[0] for row in app.app.execute("SELECT token FROM effect", (), 100_000).rows]
