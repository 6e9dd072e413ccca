"""A process that calls a mutation as the steps of one run, one write after the other, until it is killed."""

import sys
from itertools import count
from pathlib import Path

from stepwell.functions.contexts import MutationContext
from stepwell.model import commands as c
from stepwell.model.settings import Settings
from stepwell.worker.local import open_store
from tests.functions.shop import Counter, Shop


def note(ctx: MutationContext, number: int) -> int:
    """One row for each step."""
    return ctx.db.execute("insert into told (note) values (?)", str(number))


def main(url: str, folder: Path, run_id: str) -> None:
    store = open_store(url, Settings(sync="normal"))
    store.migrate()
    shop = Shop()
    shop.mutation(note)
    counter = Counter(store, shop, folder / "migrations")
    lease = counter.bench.turn(run_id).lease
    for n in count(1):
        counter.bench.do(c.Mutate(lease, n, 1_000_000, f"k{n}", "shop:note", f'{{"number":{n}}}'))
        print(n, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), f"r{sys.argv[3]}")
