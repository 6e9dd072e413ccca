"""Servers as processes, and a client that can say anything."""

import contextlib
import hmac
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from msgspec import Struct

from stepwell.model.settings import Settings
from tests.support import assert_lawful, durable, durable_url, on_postgres
from tests.support.nursery import Fork
from tests.support.postgres import SERVER
from tests.support.stores import CHOICE

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0
OK = """echo 'FLOW_RESULT {"status":"completed"}'"""
Json = dict[str, Any]


def stepwell(*args: str) -> list[str]:
    """The command line of `stepwell ARGS`, on this tree's code."""
    return [sys.executable, "-c", "from stepwell.cli.main import main; main()", *args]


def environ(**more: str) -> dict[str, str]:
    """The environment of a child: ours without settings of Stepwell and Python, and this tree."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key in (CHOICE, SERVER) or not key.startswith(("STEPWELL_", "PYTHON"))
    }
    return {**kept, "PYTHONPATH": str(ROOT / "src"), **more}


def store_of(cwd: Path) -> dict[str, str]:
    """What a program in a folder has to be told of its database: on PostgreSQL, where it is."""
    return {"STEPWELL_DB": durable_url(database(cwd))} if on_postgres() else {}


def at_home(cwd: Path, **more: str) -> dict[str, str]:
    """The environment of a program in a folder."""
    return environ(**(store_of(cwd) | more))


def flow(cwd: Path, name: str = "demo", steps: Mapping[str, str] | None = None, type_: str = "demo") -> Path:
    """A package of shell steps, each a name and a script."""
    root = cwd / "flows" / name
    (root / "exec").mkdir(parents=True, exist_ok=True)
    manifest = f'name = "{name}"\nversion = 1\n'
    for step, script in (steps or {"go": OK}).items():
        path = root / "exec" / step
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        manifest += f'[[steps]]\nname = "{step}"\nrunner = "command"\nscript = "exec/{step}"\n'
        manifest += f'[steps.trigger]\ntype = "{type_}"\n'
    (root / "flow.toml").write_text(manifest)
    return root


class Answer(Struct):
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Json:
        """The body, which is a JSON object whatever the status."""
        assert self.headers["content-type"] == "application/json", self
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    def error(self, status: int, code: str) -> Json:
        """The body of an error, with its three parts in order."""
        value = self.json()
        assert (self.status, value["code"]) == (status, code), value
        assert value["error"], value
        assert value["hint"], value
        assert b"Traceback" not in self.body
        return value


class Server:
    """A `stepwell serve` process. As a context it is killed at the end, unless it was ended before."""

    def __init__(
        self,
        cwd: Path,
        *args: str,
        port: int | None = 0,
        preexec: Callable[[], None] | None = None,
        options: Json | None = None,
        slots: int = 2,
        **env: str,
    ) -> None:
        """With `options` those of the server itself, else what `stepwell serve` takes; no port: all by variables."""
        self.cwd = cwd
        where = () if port is None else ("--cwd", str(cwd), "--port", str(port))
        command = stepwell("serve", *where, *args)
        if options is not None:
            command = [sys.executable, "-m", "tests.server.child", str(cwd), str(slots), json.dumps(options)]
            env = {"PYTHONPATH": f"{ROOT}/src:{ROOT}", **env}
        self.log = cwd / "server.log"
        self.process: subprocess.Popen[bytes]
        with self.log.open("ab") as log:
            if preexec is None:
                self.process = Fork(command, env=at_home(cwd, **env), stdout=subprocess.PIPE, stderr=log)
            else:
                self.process = subprocess.Popen(
                    command, env=at_home(cwd, **env), stdout=subprocess.PIPE, stderr=log, preexec_fn=preexec,
                )  # fmt: skip
        try:
            self.url, self.host, self.port = self._listening()
        except BaseException:
            self.kill()
            raise

    def _listening(self) -> tuple[str, str, int]:
        """URL, host and port, once it says them."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("listening on http://"), line + self.log.read_text()
        parts = urlsplit(url := line.split()[2])
        assert parts.hostname is not None
        assert parts.port is not None
        return url, parts.hostname, parts.port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.kill()

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, method: str, target: str, body: bytes | None = None, /, **headers: str) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request(method, target, body, headers)
            got = connection.getresponse()
            found = {key.lower(): value for key, value in got.getheaders()}
            return Answer(got.status, found, got.read())

    def raw(self, data: bytes, *, patience_s: float = 0.5) -> bytes:
        """All that comes back for these bytes, until the server closes or says nothing more for a while."""
        with socket.create_connection((self.host, self.port), timeout=patience_s) as sock:
            got = b""
            # A server that closes before it has read all resets the line, and its answer may be lost with that.
            with contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
                sock.sendall(data)
                while piece := sock.recv(65_536):
                    got += piece
            return got

    def get(self, target: str) -> Json:
        """The body of a GET that succeeds."""
        answer = self.ask("GET", target)
        assert answer.status == 200, answer
        return answer.json()

    def send(self, event_id: str, payload: Any = None, type_: str = "demo", **more: Any) -> Json:
        """The answer to an event that is accepted."""
        answer = self.ask("POST", "/events", as_bytes({"id": event_id, "type": type_, "payload": payload, **more}))
        assert answer.status == 202, answer
        return answer.json()

    def ended(self, run_id: str) -> Json:
        """The run, when it has ended."""
        return self.until(run_id, lambda run: run["status"] in ("completed", "failed", "canceled"))

    def until(self, run_id: str, fits: Callable[[Json], bool]) -> Json:
        """The run, as soon as it fits."""
        ends = time.monotonic() + PATIENCE_S
        while not fits(run := self.get(f"/runs/{quote(run_id, safe='')}")["run"]):
            assert time.monotonic() < ends, run
            time.sleep(0.02)
        found: Json = run
        return found

    def until_waits(self, count: int) -> None:
        """Until so many requests wait, as the metrics say."""
        ends = time.monotonic() + PATIENCE_S
        while f"stepwell_http_waits {float(count)}".encode() not in self.ask("GET", "/metrics").body:
            assert time.monotonic() < ends
            time.sleep(0.02)

    def signed(self, target: str, body: bytes, secret: str, at: int | None = None, /, **headers: str) -> Answer:
        """A POST as a sender with the secret makes it; `at` is its timestamp."""
        text = body if at is None else f"{at}.POST.{target}.".encode() + body
        found = {"x-flow-signature-256": "sha256=" + hmac.new(secret.encode(), text, "sha256").hexdigest()}
        stamp = {} if at is None else {"x-flow-timestamp": str(at)}
        return self.ask("POST", target, body, **(found | stamp | headers))

    # ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def kill(self) -> None:
        """SIGKILL, and its death."""
        self.stop(signal.SIGKILL)


@contextmanager
def serving(cwd: Path, *args: str, **more: Any) -> Iterator[Server]:
    """A server that ends with the block: well, and without a complaint in its log."""
    with Server(cwd, *args, **more) as server:
        yield server
        assert server.stop() == 0, server.log.read_text()
    log = server.log.read_text()
    assert "Traceback" not in log, log
    assert "ERROR" not in log, log


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def database(cwd: Path) -> Path:
    return cwd / ".stepwell/stepwell.sqlite"


def lawful(cwd: Path) -> None:
    """The doctor finds nothing in the database of a folder."""
    assert_lawful(durable(database(cwd)), Settings())
