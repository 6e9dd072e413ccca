"""Several server processes on one PostgreSQL, and several lanes in one, each beside one with one lane."""

import os
import subprocess
import sys
from collections.abc import Iterator

from bench.pg import OnPostgres
from bench.report import Row
from bench.rig import Rig

LANES = (1, 2, 4)
PROCESSES = (1, 2)


def measure(ground: OnPostgres, rig: Rig) -> Iterator[Row]:
    """Each number of processes with each number of lanes, in turns."""
    rounds, steps = rig.pick((2, 20), (5, 60))
    kinds = [(processes, lanes) for processes in PROCESSES for lanes in LANES]
    rates: dict[tuple[int, int], list[float]] = {kind: [] for kind in kinds}
    servers = {(processes, lanes): Servers(ground, processes, lanes, steps) for processes, lanes in kinds}
    for _ in range(rounds):
        for kind, several in servers.items():
            rates[kind].append(several.rate())
    for several in servers.values():
        several.close()
    for (processes, lanes), samples in rates.items():
        what = f"{processes} server process{'es' * (processes > 1)}, {lanes} lane{'s' * (lanes > 1)} each"
        yield Row(what, "steps/s", samples, "100 workflows at once in each")


class Servers:
    """Processes on one database, which work when they are told."""

    def __init__(self, ground: OnPostgres, processes: int, lanes: int, steps: int) -> None:
        url = ground.url(f"servers_{processes}_{lanes}")
        environment = os.environ | {"STEPWELL_LANES": str(lanes)}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.busy", url, str(steps)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            )
            for _ in range(processes)
        ]
        for one in self._processes:
            _said(one)
        self.rate()  # the first pages and plans are not what is compared

    def rate(self) -> float:
        """Steps a second of all together."""
        for one in self._processes:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        return sum(float(_said(one)) for one in self._processes)

    def close(self) -> None:
        for one in self._processes:
            one.communicate(timeout=60)


def _said(one: "subprocess.Popen[str]") -> str:
    assert one.stdout is not None
    line = one.stdout.readline()
    if not line:
        raise RuntimeError("a server process ended")
    return line
