"""Subject `postgres`: the same programs on PostgreSQL, next to the raw floor: server processes, lanes, parked runs."""

from collections.abc import Iterator

from bench import pg_parked, pg_servers, programs
from bench.pg import served
from bench.report import Row, say
from bench.rig import Rig, run


def measure(rig: Rig) -> Iterator[Row]:
    """The rows of one process, of several, of several lanes, and with 1,000,000 parked runs."""
    loop = rig.loops()[-1]
    with served(rig) as ground:
        say(f"  {ground.about}")
        yield from programs.rows_on(ground, rig, loop)
        yield from run(programs.long(ground, rig), loop)
        yield from pg_servers.measure(ground, rig)
        yield from pg_parked.measure(ground, rig)
