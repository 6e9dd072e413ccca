"""Subject `postgres_peer`: DBOS beside ours on one PostgreSQL server, in one run: ours, the peer, ours."""

from collections.abc import Iterator

from bench.peer import environment, our_rows, ours, ratios, theirs, told
from bench.pg import served
from bench.report import Row, say
from bench.rig import Rig, run


def measure(rig: Rig) -> Iterator[Row]:
    """Both durable: fsync and synchronous_commit are on."""
    python, loop = environment(rig.folder / "peer-venv"), rig.loops()[-1]
    with served(rig) as ground:
        say(f"  {ground.about}")
        mine = run(ours(rig, ground, "before"), loop)
        peer = told(rig, python, ground.database("peer"))
        for name, samples in run(ours(rig, ground, "after"), loop).items():
            mine[name] += samples
    yield from theirs("peer", peer, ", ".join(f"{name} {value}" for name, value in peer["about"].items()))
    yield from our_rows(mine)
    yield from ratios("ours / peer", mine, peer, steps_budget=40)
