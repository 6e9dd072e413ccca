"""Mutations that leave a row each in a table of the app. How long one takes is not told: it would shape the batches."""

from stepwell.kernel.calls import Call, Called
from stepwell.kernel.unit import Unit
from stepwell.store.port import AppMigration, Store

#: Nothing here keeps a second row of one call out: one that happens twice is to be seen.
SCRIPT = "create table tally (function text not null, by text not null, args text not null);"


class Tally:
    """`m:count` answers how many rows there are, `m:fail` fails when it has written its row."""

    names = frozenset(("m:count", "m:fail"))

    @staticmethod
    def prepare(store: Store) -> None:
        """Makes the table."""
        store.migrate_app("tally", [AppMigration(1, "0001_tally", SCRIPT, "tally")])

    def call(self, unit: Unit, call: Call, now: int) -> Called:
        assert unit.app is not None
        unit.app.execute(
            "insert into tally (function, by, args) values (?, ?, ?)", (call.function, call.by, call.args), 0
        )
        if call.function == "m:fail":
            return Called(False, '{"type":"Never","message":"it never works"}')
        counted = unit.app.execute("select count(*) from tally", (), 1)
        return Called(True, str(counted.rows[0][0]))
