"""What codex-flow-systemd-local has done comes over whole, once, and can be gone on with."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell.engine.engine import Engine
from stepwell.flows.backend import FlowBackend
from stepwell.flows.events import parse_event
from stepwell.flows.original import open_original
from stepwell.flows.takeover import CUT, NAME, Summary, adopt_in, check_retention, needed_days, rehearse_in, take_over
from stepwell.flows.views import run_view
from stepwell.model import commands as c
from stepwell.model.errors import Invalid, Unavailable, Unknown
from stepwell.model.rows import Event, Output, Run
from stepwell.model.settings import Settings
from stepwell.store.port import Reader, scan_all
from tests.flows.originals import SECRET, OriginalFile, fill, iso, run_id
from tests.server.support import flow
from tests.support import assert_lawful, durable

DAY_MS = 86_400_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OriginalFile]:
    with closing(OriginalFile(tmp_path / "data", at_ms=now_ms() - DAY_MS)) as made:
        yield made


class Taken:
    """A new database in a folder, and imports into it."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.path, self.settings = folder / "new.sqlite", settings or Settings()

    async def over(self, file: OriginalFile, *, dry: bool = False, drop_old: bool = False) -> Summary:
        async with Engine(durable(self.path), settings=self.settings, roles=False) as engine:
            desk = rehearse_in(engine, self.settings, engine.clock_ms) if dry else adopt_in(engine)
            with open_original(file.folder, output_bytes=self.settings.output_bytes) as original:
                return await take_over(original, desk, settings=self.settings, now=now_ms(), drop_old=drop_old)

    def do(self, file: OriginalFile, **how: bool) -> Summary:
        summary = asyncio.run(self.over(file, **how))
        assert_lawful(durable(self.path), self.settings)
        return summary

    def run(self, number: str) -> Run:
        with closing(durable(self.path).reader()) as reader:
            run = reader.run("main", number)
        assert run is not None
        return run

    def event(self, event_id: str) -> Event:
        with closing(durable(self.path).reader()) as reader:
            event = reader.event("main", event_id)
        assert event is not None
        return event

    def said(self, number: str) -> list[Output]:
        with closing(durable(self.path).reader()) as reader:
            return reader.output(self.run(number).no)


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    return Taken(tmp_path)


def plain(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def test_everything_comes_over_with_ids_and_times(file: OriginalFile, taken: Taken) -> None:
    start = file.at_ms
    fill(file)
    summary = taken.do(file)
    assert (summary.events, summary.runs, summary.lost, summary.refused) == (11, 14, 2, [])
    event = taken.event("all/good")
    assert (event.created_at, event.received_at, event.matched, event.replays) == (
        start + 1_000,
        iso(start + 997),
        2,
        2,
    )
    assert (event.source, event.occurred_at, plain(event.extra)) == ("ci", "2026-01-01", {"extra": {"k": [1]}})
    run = taken.run(run_id("all/good", "demo", "go"))
    assert (run.name, run.status, run.result_status, run.replay) == ("demo/go", "completed", "changed", 0)
    assert plain(run.result) == {"status": "changed", "message": "done", "artifacts": {"a": 1}}
    assert (run.created_at, run.started_at, run.ended_at) == (start + 2_000, start + 2_010, start + 2_500)
    assert plain(run.tags) == {
        "importedFrom": NAME, "backend": "systemd-local", "executor": "systemd-run", "unit": f"codex-flow-{run.id}",
        "eventPath": f"/data/events/{run.id}.json",
    }  # fmt: skip
    assert taken.run(run_id("all/good", "other", "two")).needs_attention
    assert [(one.kind, json.loads(one.text)["flow"]) for one in taken.said(run.id)] == [("stdout", "demo")]
    first, second = (taken.run(run_id("all/good", "demo", "go", nonce)) for nonce in ("1:a", "2:b"))
    assert (first.replay, second.replay, first.event_no) == (1, 2, run.event_no)
    assert plain(second.error) == {
        "type": "failed", "message": "flow runner exited with 1", "exit_code": 1, "stderr": "no such file\n",
    }  # fmt: skip
    assert [one.text for one in taken.said(second.id)] == ["no such file\n"]
    assert taken.event("nothing").matched == 0
    view = run_view(run)
    assert (view["executor"], view["unit"]) == ("systemd-run", f"codex-flow-{run.id}")
    assert view["eventPath"] == f"/data/events/{run.id}.json"


def test_payloads_that_the_original_could_not_read_again_come_over(file: OriginalFile, taken: Taken) -> None:
    """Fault 4."""
    fill(file)
    taken.do(file)
    assert [plain(taken.event(one).payload) for one in ("null", "text", "nothing")] == [
        None, "just text", [1, 2.5, True],
    ]  # fmt: skip
    run = taken.run(run_id("text", "demo", "go"))
    assert (run.status, run.result_status, run.needs_attention) == ("completed", "failed", True)


def test_runs_whose_end_is_not_known_have_failed_and_can_be_run_again(file: OriginalFile, taken: Taken) -> None:
    """Fault 6."""
    fill(file)
    taken.do(file)
    running, queued = (taken.run(run_id("stuck", "demo", step)) for step in ("go", "later"))
    assert [run.status for run in (running, queued)] == ["failed", "failed"]
    assert plain(running.error)["type"] == plain(queued.error)["type"] == "lost"
    assert plain(running.error)["message"] == "was running when it was taken over; its end is not known"
    assert queued.started_at is None
    assert [one.text for one in taken.said(running.id)] == ["half a", "oh"]

    async def again() -> list[c.Leased]:
        async with Engine(durable(taken.path), roles=False) as engine:
            await engine.submit(c.Restart(running.id))
            return (await engine.submit(c.Claim("w", "secret", requires=("flow:demo",)))).tasks

    (leased,) = asyncio.run(again())
    assert leased.run.id == running.id
    assert leased.event is not None
    assert leased.event.id == "stuck"
    assert_lawful(durable(taken.path))


def test_no_secret_of_a_command_line_comes_over(file: OriginalFile, taken: Taken) -> None:
    """Fault 17."""
    fill(file)
    taken.do(file)
    assert SECRET.encode() in file.path.read_bytes()
    for path in taken.path.parent.glob("new.sqlite*"):
        assert SECRET.encode() not in path.read_bytes()


def test_twice_is_once_and_a_trial_changes_nothing(file: OriginalFile, taken: Taken) -> None:
    fill(file)
    trial = taken.do(file, dry=True)
    assert (trial.events, trial.runs, trial.lost, trial.present) == (11, 14, 2, 0)
    with closing(durable(taken.path).reader()) as reader:
        assert list(scan_all(reader)) == []
    once = taken.do(file)
    before = everything(taken)
    twice = taken.do(file)
    assert (once.events, once.present, twice.events, twice.runs, twice.present) == (11, 0, 0, 0, 11)
    assert everything(taken) == before
    assert taken.do(file, dry=True).present == 11
    file.event("new", {})
    assert taken.do(file).events == 1


def everything(taken: Taken) -> Any:
    def rows(reader: Reader) -> Any:
        runs = list(scan_all(reader))
        return runs, [reader.entries(run.no) for run in runs], reader.scan_events()

    with closing(durable(taken.path).reader()) as reader:
        return msgspec.to_builtins(rows(reader))


@pytest.mark.parametrize("dry", [False, True])
def test_another_body_under_the_same_id_is_told_and_left(file: OriginalFile, taken: Taken, dry: bool) -> None:
    """Fault 10."""
    event = file.event("same", {"n": 1})
    taken.do(file)
    file.db.execute("delete from flow_events")
    file.event("same", {"n": 2})
    file.event("more", {})
    summary = taken.do(file, dry=dry)
    ((refused),) = summary.refused
    assert (refused.id, refused.kind) == ("same", "event")
    assert "another body" in refused.reason
    assert summary.events == 1
    assert plain(taken.event("same").payload) == event["payload"]


def test_broken_rows_are_named_and_all_others_go_in(file: OriginalFile, taken: Taken) -> None:
    """Faults 3 and 4."""
    fill(file)
    good = file.db.execute("select count(*) from flow_events").fetchone()[0]
    for event_id, column, value in (
        ("raw", "raw_json", "{"),
        ("payload", "payload_json", "nope"),
        ("differs", "payload_json", '{"n": 2}'),
        ("other", "raw_json", '{"id": "x", "type": "t", "payload": null}'),
        ("list", "raw_json", "[]"),
        ("time", "created_at", "yesterday"),
        ("bytes", "payload_json", b"\xff"),
    ):
        file.event(event_id)
        file.run(event_id)
        file.db.execute(f"update flow_events set {column} = ? where id = ?", (value, event_id))
    file.event("no type", type_="")
    file.db.execute("update flow_events set id = null where id = 'no type'")
    file.event("runs")
    for step, columns in {
        "a": {"status": "odd"}, "b": {"result_json": "{"}, "c": {"created_at": "?"}, "d": {"completed_at": "never"},
    }.items():  # fmt: skip
        file.run("runs", **{"status": "completed", **columns}, step=step)
    well = file.run("runs", result={"status": "changed"})
    stray = file.run("gone")
    summary = taken.do(file)
    reasons = {one.id: (one.kind, one.reason) for one in summary.refused}
    assert summary.refusals == len(reasons) == 13
    assert summary.events == good + 1
    for event_id in ("raw", "payload", "differs", "other", "list", "time", "bytes"):
        assert reasons[event_id][0] == "event"
        assert "runs stay out" in reasons[event_id][1]
    assert "not UTF-8" in reasons["bytes"][1]
    assert "without an id" in " ".join(reasons)
    for step, word in {"a": "status", "b": "JSON", "c": "time", "d": "time"}.items():
        kind, reason = reasons[run_id("runs", "demo", step)]
        assert kind == "run"
        assert word in reason
    assert "event is not there" in reasons[stray][1]
    assert taken.run(well).result_status == "changed"


def test_a_time_of_null_is_named() -> None:
    """Fault 3."""
    from stepwell.flows.takeover import event_of

    row = {"id": b"e", "type": b"t", "received_at": None, "raw_json": b'{"id":"e","type":"t"}', "payload_json": b"{}"}
    with pytest.raises(Invalid, match="received_at is null"):
        event_of(row, max_bytes=1_000)
    assert event_of({**row, "received_at": b"2026"}, max_bytes=1_000).received_at == "2026"


def test_output_is_cut_with_a_mark(file: OriginalFile, tmp_path: Path) -> None:
    """Fault 16: the original keeps output without a bound."""
    taken = Taken(tmp_path, Settings(output_bytes=2_048))
    file.event("loud")
    long = file.run("loud", stdout="x" * 100_000, stderr="y" * 100)
    file.event("bytes")
    odd = file.run("bytes", stdout=b"caf\xe9\x00!")
    taken.do(file)
    said = taken.said(long)
    assert sum(len(one.text) for one in said) < 2_048 + len(CUT) + 200
    assert "cut here" in "".join(one.text for one in said)
    assert said[-1].kind == "system"
    assert taken.said(odd)[0].text == "caf\ufffd\x00!"


def test_what_retention_would_delete_is_refused_or_left_out(file: OriginalFile, taken: Taken) -> None:
    file.at_ms = now_ms() - 50 * DAY_MS
    file.event("old")
    file.run("old")
    file.event("old and nothing")
    file.event("old and lost")
    file.run("old and lost", "running")
    file.event("old and again")
    file.run("old and again")
    file.at_ms = now_ms() - DAY_MS
    again = file.run("old and again", replay="1:a")
    file.event("new")
    with open_original(file.folder, output_bytes=1_000) as original:
        assert needed_days(original, now_ms()) == 50
        with pytest.raises(Invalid, match="49 days old") as refused:
            check_retention(original, Settings(), now_ms())
        assert "STEPWELL_EVENT_RETENTION_DAYS to 50" in refused.value.hint
        check_retention(original, Settings(event_retention_days=50), now_ms())
    summary = taken.do(file, drop_old=True)
    assert (summary.events, summary.runs, summary.dropped_events, summary.dropped_runs) == (3, 2, 2, 2)
    assert taken.run(again).replay == 1

    async def pruned() -> None:
        async with Engine(durable(taken.path), roles=False) as engine:
            await engine.submit(c.Prune())

    before = everything(taken)
    asyncio.run(pruned())
    assert everything(taken) == before
    assert_lawful(durable(taken.path))


def test_what_is_sent_again_is_a_duplicate_and_can_be_replayed(
    file: OriginalFile, taken: Taken, tmp_path: Path
) -> None:
    """Fault 1: a redelivery finds its runs."""
    fill(file)
    taken.do(file)
    flow(tmp_path)
    body = {"id": "all/good", "type": "demo", "payload": {"n": 1}, "source": "ci", "occurredAt": "2026-01-01",
            "extra": {"k": [1]}, "receivedAt": "another time"}  # fmt: skip

    async def main() -> tuple[c.Accepted, c.Accepted]:
        async with Engine(durable(taken.path), roles=False) as engine:
            backend = FlowBackend(engine, tmp_path)
            sent = await backend.dispatch(parse_event(body, now_iso="-"))
            return sent, await backend.replay("all/good")

    sent, replayed = asyncio.run(main())
    assert (sent.status, sent.matched) == ("duplicate", 0)
    names = [("demo", "go", ""), ("other", "two", ""), ("demo", "go", "1:a"), ("demo", "go", "2:b")]
    assert sent.run_ids == [run_id("all/good", *name) for name in names]
    (new,) = replayed.run_ids
    assert taken.run(new).replay == 3
    assert_lawful(durable(taken.path))


def test_a_thousand_rows(file: OriginalFile, taken: Taken) -> None:
    file.db.execute("begin")
    for number in range(1_000):
        file.event(f"e{number}", {"text": "\u00fc" * 100})
        file.run(f"e{number}", result={"status": "completed"})
    file.db.execute("commit")
    summary = taken.do(file)
    assert (summary.events, summary.runs, summary.refusals) == (1_000, 1_000, 0)


def test_the_original_may_be_running_and_is_not_changed(file: OriginalFile, taken: Taken) -> None:
    """Fault 9: it has no busy timeout, so nobody may hold a lock on its file."""
    file.event("before")
    with open_original(file.folder, output_bytes=1_000) as original:
        file.event("meanwhile")
        assert original.counts().events == 1
    before = file.path.read_bytes()
    assert taken.do(file).events == 2
    assert file.path.read_bytes() == before
    assert {path.name for path in file.folder.iterdir()} == {"flow-backend.sqlite"}


def test_what_a_crash_of_the_original_left_half_done_is_undone_in_the_copy_only(
    file: OriginalFile, taken: Taken, tmp_path: Path
) -> None:
    import shutil

    for number in range(50):
        file.event(f"whole {number}", "x" * 3_000)
    file.db.execute("pragma cache_size = 5")
    file.db.execute("begin")
    file.db.execute("update flow_events set raw_json = 'half'")
    crashed = tmp_path / "crashed"
    shutil.copytree(file.folder, crashed)
    file.db.execute("rollback")
    before = (crashed / "flow-backend.sqlite").read_bytes()
    assert (crashed / "flow-backend.sqlite-journal").exists()
    with open_original(crashed, output_bytes=1_000) as original:
        rows = [row for page in original.events() for _, row in page]
        assert len(rows) == 50
        assert b"half" not in {row["raw_json"] for row in rows}
    assert (crashed / "flow-backend.sqlite").read_bytes() == before


def test_a_folder_that_is_none_of_the_original(tmp_path: Path) -> None:
    import sqlite3

    def open_(path: Path) -> None:
        with open_original(path, output_bytes=1_000):
            raise AssertionError(path)

    with pytest.raises(Unknown, match="no database"):
        open_(tmp_path)
    path = tmp_path / "flow-backend.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table flow_events (id text)")
    with pytest.raises(Invalid, match="flow_events has no type"):
        open_(tmp_path)
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(Unavailable, match="not a database"):
        open_(tmp_path)
