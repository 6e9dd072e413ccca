"""Areas C and D over HTTP: what answers hold, and what they must not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.engine.clock import wall_ms
from stepwell.model import commands as c
from tests.server.support import Server, database, flow, serving
from tests.support import Bench, durable
from tests.support.bench import Clock

PIECES = 1_234


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One without a worker, so that a test can be the worker."""
    flow(tmp_path)
    with serving(tmp_path, "--slots", "0") as server:
        yield server


@pytest.fixture
def worker(server: Server) -> Iterator[Bench]:
    bench = Bench(durable(database(server.cwd)), clock=Clock(wall_ms()), name="worker")
    yield bench
    bench.close()


def test_fault_29_no_answer_tells_a_token_or_a_command(server: Server, worker: Bench) -> None:
    (run_id,) = server.send("e")["runIds"]
    (task,) = worker.claim()
    seen = [server.ask("GET", target).body.decode() for target in ("/runs", f"/runs/{run_id}", "/events", "/events/e")]
    worker.do(c.Finish(task.lease, 1, c.Completed('{"status":"completed"}', "completed")))
    seen.append(server.ask("GET", f"/runs/{run_id}").body.decode())
    assert all(run_id in text for text in seen[:2])
    for secret in (task.lease.token, "secret-", "commandJson", "token"):
        assert not [text for text in seen if secret in text], secret


def test_fault_30_output_beyond_500_pieces_is_there_by_cursor(server: Server, worker: Bench) -> None:
    (run_id,) = server.send("e")["runIds"]
    (task,) = worker.claim()
    for n in range(PIECES):
        worker.do(c.Say(task.lease, n, (("stdout", f"{n}\n"),)))
    worker.do(c.Finish(task.lease, 1, c.Completed('{"status":"completed"}', "completed")))
    pages = [server.get(f"/runs/{run_id}/output")]
    while not pages[-1]["ended"] and len(pages) < PIECES:
        pages.append(server.get(f"/runs/{run_id}/output?after={pages[-1]['next']}"))
    assert [one["text"] for page in pages for one in page["output"]] == [f"{n}\n" for n in range(PIECES)]
    assert len(pages) > 1
