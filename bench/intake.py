"""Subject `http`: events accepted over HTTP by one server process, each with one match, 32 connections."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bench.report import Row, at_least, number, quantile
from bench.rig import Rig
from stepwell.store.sqlite.store import SqliteStore

CONNECTIONS = 32
FLOW = """name = "bench"
version = 1
[[steps]]
name = "hello"
runner = "command"
script = "exec/hello.sh"
[steps.trigger]
type = "bench"
"""
SCRIPT = """#!/bin/sh
cat > /dev/null
echo 'FLOW_RESULT {"status":"completed","message":"hello"}'
"""


def measure(rig: Rig) -> Iterator[Row]:
    """The server's own process with all of it; the client's process only writes and reads sockets."""
    path = rig.fresh("http")
    cwd = path.parent
    flow(cwd / "flows" / "bench")
    rounds, seconds = rig.pick(3, 7), rig.pick(1.5, 4.0)
    rates: dict[str, list[float]] = {"floor": [], "events": []}
    took: list[float] = []
    with serve(path, cwd) as port:
        post(port, 0.5, "warm")
        for one in range(rounds):
            rates["floor"].append(post(port, seconds / 3, "-")["rate"])
            posted = post(port, seconds, f"round{one}")
            rates["events"].append(posted["rate"])
            took += posted["took"]
    stored = _stored(path)
    yield Row("floor: GET /healthz, 32 connections", "req/s", rates["floor"])
    ms = [one * 1_000 for one in took]
    note = f"p50 {number(quantile(ms, 0.5))} p99 {number(quantile(ms, 0.99))} ms; {stored:,} runs stored, one an event"
    yield Row("POST /events, one match, 32 connections", "events/s", rates["events"], note, at_least(3_000))


def flow(root: Path) -> Path:
    """A package with one step for events of type bench."""
    (root / "exec").mkdir(parents=True)
    (root / "flow.toml").write_text(FLOW)
    script = root / "exec" / "hello.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    return root


@contextmanager
def serve(path: Path, cwd: Path, secret: str = "") -> Iterator[int]:
    """A real `stepwell serve` without a worker, with a secret or without; answers its port."""
    command = [sys.executable, "-m", "stepwell.cli", "serve", "--db", str(path), "--cwd", str(cwd), "--port", "0"]
    env = {**os.environ, "STEPWELL_SECRET": secret}
    with subprocess.Popen([*command, "--slots", "0"], env=env, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            said = server.stdout.readline()
            found = re.search(r"http://[^:]+:(\d+)", said)
            if found is None:
                raise RuntimeError(f"the server did not start: {said!r}")
            yield int(found[1])
        finally:
            server.terminate()
            server.wait(30)


def post(port: int, seconds: float, prefix: str, secret: str = "") -> dict[str, Any]:
    """What the poster says, when all answers were good: rate, seconds of each, statuses."""
    command = [sys.executable, "-m", "bench.poster", str(port), str(CONNECTIONS), str(seconds), prefix]
    env = {**os.environ, "BENCH_SECRET": secret}
    out = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, timeout=seconds + 60).stdout
    posted: dict[str, Any] = json.loads(out)
    good = "200" if prefix == "-" else "202"
    if set(posted["statuses"]) != {good}:
        raise RuntimeError(f"answers other than {good}: {posted['statuses']}")
    return posted


def _stored(path: Path) -> int:
    """How many runs there are; as many as events, or what was measured is not acceptance."""
    with closing(SqliteStore(path).connect()) as db:
        events, runs = db.execute("select (select count(*) from event), (select count(*) from run)").fetchone()
    if events != runs:
        raise RuntimeError(f"{events} events made {runs} runs")
    return int(runs)
