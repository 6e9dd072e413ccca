"""A process that calls a mutation as the steps of one run, one write after the other, until it is killed."""

import sys
from itertools import count
from pathlib import Path

from stepwell.functions.contexts import MutationContext
from stepwell.model import commands as c
from stepwell.store.port import Store
from stepwell.store.sqlite.store import SqliteStore
from tests.functions.shop import Counter, Shop


def note(ctx: MutationContext, number: int) -> int:
    """One row for each step."""
    return ctx.db.execute("insert into told (note) values (?)", str(number))


def main(folder: Path) -> None:
    store: Store = SqliteStore(folder / "store.sqlite", sync="normal")
    store.migrate()
    shop = Shop()
    shop.mutation(note)
    counter = Counter(store, shop, folder / "migrations")
    run_id = f"r{sys.argv[2]}"
    lease = counter.bench.turn(run_id).lease
    for n in count(1):
        counter.bench.do(c.Mutate(lease, n, 1_000_000, f"k{n}", "shop:note", f'{{"number":{n}}}'))
        print(n, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
