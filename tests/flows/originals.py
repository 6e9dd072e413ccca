"""Databases as codex-flow-systemd-local makes them (spec 4.2), with rows as it writes them."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

SCHEMA = """
create table flow_events (
    id TEXT PRIMARY KEY, type TEXT NOT NULL, source TEXT, occurred_at TEXT, received_at TEXT NOT NULL,
    payload_json TEXT NOT NULL, raw_json TEXT NOT NULL, created_at TEXT NOT NULL
);
create table flow_runs (
    id TEXT PRIMARY KEY, event_id TEXT NOT NULL, flow_name TEXT NOT NULL, step_name TEXT NOT NULL,
    status TEXT NOT NULL, backend TEXT NOT NULL, executor TEXT NOT NULL, unit TEXT, event_path TEXT NOT NULL,
    command_json TEXT, result_json TEXT, stdout TEXT, stderr TEXT, error TEXT, created_at TEXT NOT NULL,
    started_at TEXT, completed_at TEXT
);
create index flow_runs_event on flow_runs(event_id);
create index flow_runs_status on flow_runs(status);
create index flow_events_type on flow_events(type);
"""
SECRET = "hunter2-in-the-command-line"


def iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run_id(event_id: str, flow: str, step: str, replay: str = "") -> str:
    """Spec 4.4."""
    text = f"{event_id}\0{flow}\0{step}" + (f"\0{replay}" if replay else "")
    return f"run_{sha256(text.encode()).hexdigest()[:12]}" + ("_replay" if replay else "")


class OriginalFile:
    """A database in a data folder, and how to put rows into it. Each row is a second younger than the one before."""

    def __init__(self, folder: Path, *, at_ms: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path, self.at_ms = folder, folder / "flow-backend.sqlite", at_ms
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.executescript(SCHEMA)

    def close(self) -> None:
        self.db.close()

    def event(self, event_id: str, payload: Any = None, type_: str = "demo", **more: Any) -> dict[str, Any]:
        """The event as it was sent."""
        self.at_ms += 1_000
        event = {"receivedAt": iso(self.at_ms - 3), "id": event_id, "type": type_, "payload": payload, **more}
        given = (event_id, type_, event.get("source"), event.get("occurredAt"), event["receivedAt"])
        texts = (json.dumps(payload), json.dumps(event), iso(self.at_ms))
        self.db.execute("insert or ignore into flow_events values (?, ?, ?, ?, ?, ?, ?, ?)", (*given, *texts))
        return event

    def run(
        self, event_id: str, status: str = "completed", *, flow: str = "demo", step: str = "go", replay: str = "",
        result: Any = None, **columns: Any,
    ) -> str:  # fmt: skip
        """The id of a new run."""
        self.at_ms += 1_000
        number = run_id(event_id, flow, step, replay)
        ended = status in ("completed", "failed")
        report = None if result is None else json.dumps({"flow": flow, "step": step, "result": result})
        row: dict[str, Any] = {
            "id": number, "event_id": event_id, "flow_name": flow, "step_name": step, "status": status,
            "backend": "systemd-local", "executor": "systemd-run", "unit": f"codex-flow-{number}",
            "event_path": f"/data/events/{number}.json", "result_json": report, "stdout": report, "stderr": None,
            "command_json": json.dumps({"command": "systemd-run", "args": [f"--setenv=TOKEN={SECRET}"]}),
            "error": None if status != "failed" else "flow runner exited with 1",
            "created_at": iso(self.at_ms), "started_at": None if status == "queued" else iso(self.at_ms + 10),
            "completed_at": iso(self.at_ms + 500) if ended else None,
        } | columns  # fmt: skip
        marks = ", ".join(f":{name}" for name in row)
        self.db.execute(f"insert into flow_runs ({', '.join(row)}) values ({marks})", row)
        return number


def fill(file: OriginalFile) -> None:
    """Every status, replays, odd ids, payloads of every kind, events that matched nothing."""
    file.event("all/good", {"n": 1}, source="ci", occurredAt="2026-01-01", extra={"k": [1]})
    file.run("all/good", result={"status": "changed", "message": "done", "artifacts": {"a": 1}})
    file.run("all/good", flow="other", step="two", result={"status": "blocked"})
    file.run("all/good", replay="1:a", result={"status": "completed"})
    file.run("all/good", "failed", replay="2:b", stderr="no such file\n")
    for event_id in ("a:b", "50%#x", "\u00c4pfel \u2603", "a/b", "A-b", "x" * 200):
        file.event(event_id, {"id": event_id})
        file.run(event_id, result={"status": "completed"})
    file.event("null", None)
    file.run("null", "failed")
    file.event("text", "just text")
    file.run("text", result={"status": "failed", "message": "it says"})
    file.event("nothing", [1, 2.5, True])
    file.event("stuck", {})
    file.run("stuck", "running", stdout="half a", stderr="oh")
    file.run("stuck", "queued", step="later")


def dump(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return [db.execute(f"select * from {table} order by id").fetchall() for table in ("flow_events", "flow_runs")]
