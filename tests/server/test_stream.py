"""What a run says: in pages, and live (source: HTML standard, server-sent events)."""

import http.client
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from tests.server.support import OK, Server, flow, lawful, serving


class Got(Struct):
    """One event of a stream."""

    event: str
    id: str
    data: Any


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose poll is so long that only hints can be in time, and whose streams beat often."""
    cwd: Path = tmp_path_factory.mktemp("talking")
    flow(cwd, "say", {"go": f"for n in 1 2 3; do echo line $n; sleep 0.15; done; {OK}"}, "say")
    flow(cwd, "wait", {"go": f"echo begun; while [ ! -e {cwd}/go ]; do sleep 0.05; done; echo more; {OK}"}, "wait")
    flow(cwd, "much", {"go": f"yes 1234567 | head -c 800000; echo; {OK}"}, "much")
    with serving(cwd, options={"beat_s": 0.2}, STEPWELL_POLL_MS="60000") as running:
        yield running
    lawful(cwd)


def stream(server: Server, run_id: str, **headers: str) -> Generator[Got | str, None, None]:
    """The events of a stream, and its comments as texts."""
    with closing(http.client.HTTPConnection(server.host, server.port, timeout=10)) as connection:
        yield from _read(connection, run_id, headers)


def _read(connection: http.client.HTTPConnection, run_id: str, headers: dict[str, str]) -> Iterator[Got | str]:
    connection.request("GET", f"/runs/{run_id}/output", headers={"accept": "text/event-stream", **headers})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    assert answer.headers["content-type"].startswith("text/event-stream")
    fields: dict[str, str] = {}
    while line := answer.readline().decode():
        name, _, value = line.rstrip("\n").partition(": ")
        if line == "\n" and fields:
            yield Got(fields["event"], fields.get("id", ""), msgspec.json.decode(fields["data"]))
            fields = {}
        elif name == "":
            yield value
        elif name:
            fields[name] = value
    answer.close()


def events(got: Iterator[Got | str]) -> list[Got]:
    return [one for one in got if isinstance(one, Got)]


def test_a_run_is_followed_to_its_end(talking: Server) -> None:
    (run_id,) = talking.send("s1", type_="say")["runIds"]
    *said, end = events(stream(talking, run_id))
    assert {one.event for one in said} == {"output"}
    assert [int(one.id) for one in said] == list(range(1, len(said) + 1))
    text = "".join(one.data["text"] for one in said if one.data["kind"] == "stdout")
    assert text.startswith("line 1\nline 2\nline 3\nFLOW_RESULT ")
    assert (end.event, end.data["run"]["status"], end.data["run"]["id"]) == ("end", "completed", run_id)


def test_a_chunk_is_told_when_it_is_said(talking: Server) -> None:
    """The poll is a minute: what is told sooner was woken by the commit."""
    (run_id,) = talking.send("s2", type_="say")["runIds"]
    started = time.monotonic()
    with closing(stream(talking, run_id)) as got:
        first = next(one for one in got if isinstance(one, Got))
    assert "line 1" in first.data["text"]
    assert time.monotonic() - started < 5


def test_a_stream_goes_on_where_it_was_cut(talking: Server) -> None:
    (run_id,) = talking.send("s3", type_="say")["runIds"]
    whole = events(stream(talking, run_id))
    assert len(whole) > 2
    for header, rest in (("1", whole[1:]), (whole[-2].id, whole[-1:]), ("999", whole[-1:]), ("", whole)):
        assert events(stream(talking, run_id, **{"last-event-id": header})) == rest


def test_a_quiet_stream_beats(talking: Server) -> None:
    (run_id,) = talking.send("s4", type_="wait")["runIds"]
    got = stream(talking, run_id)
    assert next(got) == "following"
    beats = 0
    for one in got:
        beats += one == "beat"
        if beats == 3:
            (talking.cwd / "go").touch()
            break
    assert events(got)[-1].event == "end"


def test_a_stream_can_be_asked_for_in_the_address(talking: Server) -> None:
    (run_id,) = talking.send("s5", type_="say")["runIds"]
    talking.ended(run_id)
    answer = talking.ask("GET", f"/runs/{run_id}/output?stream=1&after=1")
    assert answer.body.count(b"event: end\n") == 1
    assert b"id: 1\n" not in answer.body
    head = talking.ask("HEAD", f"/runs/{run_id}/output?stream=1")
    assert (head.status, head.body) == (200, b"")


def test_a_stream_of_much_says_each_chunk_once_and_ends_without_saying_it_again(talking: Server) -> None:
    """Hundreds who follow one run would else get all of it at once, twice, at its end: a gigabyte of memory."""
    (run_id,) = talking.send("s7", type_="much")["runIds"]
    *said, end = events(stream(talking, run_id))
    assert [int(one.id) for one in said] == list(range(1, len(said) + 1))
    assert len(said) > 16  # more than are read at once
    run = talking.ended(run_id)
    assert "".join(one.data["text"] for one in said if one.data["kind"] == "stdout") == run["stdout"]
    assert end.data["run"] == {**{key: run[key] for key in run if key != "stdout"}, "output": []}


def test_output_comes_in_pages(talking: Server) -> None:
    (run_id,) = talking.send("s6", type_="say")["runIds"]
    talking.ended(run_id)
    whole = talking.get(f"/runs/{run_id}/output")
    assert whole["runId"] == run_id
    assert whole["ended"] is True
    assert whole["next"] == len(whole["output"]) > 1
    assert set(whole["output"][0]) == {"n", "attempt", "kind", "at", "text"}
    first = talking.get(f"/runs/{run_id}/output?limit=1")
    assert (first["output"], first["next"], first["ended"]) == (whole["output"][:1], 1, False)
    rest = talking.get(f"/runs/{run_id}/output?after=1")
    assert rest == {**whole, "output": whole["output"][1:]}
    assert talking.get(f"/runs/{run_id}/output?after=99999")["output"] == []


@pytest.mark.parametrize("query", ["after=x", "after=-1", "limit=x", "stream=maybe", "after=1&after=2"])
def test_a_bad_question_about_output_is_refused(talking: Server, query: str) -> None:
    talking.ask("GET", f"/runs/nope/output?{query}").error(422, "invalid")


def test_output_of_no_run_is_not_found(talking: Server) -> None:
    talking.ask("GET", "/runs/nope/output").error(404, "unknown")
    talking.ask("GET", "/runs/nope/output", accept="text/event-stream").error(404, "unknown")
    talking.ask("GET", "/runs/nope/output", accept="text/event-stream", **{"last-event-id": "x"}).error(422, "invalid")
