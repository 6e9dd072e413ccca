"""`stepwell smoke`: checks a server from outside, with an event of a type of its own.

It sends no other type, so it cannot be taken for a release or for anything else that a flow acts upon.
"""

import hmac
import http.client
import json
import os
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import click
from msgspec import Struct

from stepwell.cli.common import clean, json_option, print_json, seconds
from stepwell.cli.options import holder
from stepwell.model.errors import Invalid

TYPE = "stepwell.smoke"
ENDED = ("completed", "failed", "canceled")
MAX_ANSWER_BYTES = 16 * 1024 * 1024
LOOK_S = 0.1
HINTS = {
    301: "It redirects: give the address that it redirects to.",
    401: "Set STEPWELL_SECRET, and STEPWELL_TOKEN if reads have one, to what the server has; look at both clocks.",
    403: "The server does not know this host name: see STEPWELL_ALLOWED_HOSTS, or whether a proxy refuses.",
    404: "Is this a Stepwell server, and is the path in --url right?",
    429: "The server has all the work it can take: try again later.",
    502: "The proxy before it does not reach the server.",
    503: "The server cannot work now: its answer and its log say why.",
}


class Failed(Exception):
    """A check that did not come out; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class Target(Struct, frozen=True):
    """A server, and what it asks of its callers. Shown without the secrets."""

    url: SplitResult
    secret: str | None
    token: str | None
    timeout_s: float

    def __repr__(self) -> str:
        return f"Target({self.url.geturl()!r})"

    def get(self, path: str) -> dict[str, Any]:
        """The body of a GET that answers 200."""
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        return self._ask("GET", path, None, headers, 200)

    def post(self, path: str, body: bytes) -> dict[str, Any]:
        """The body of a signed POST that answers 202."""
        headers = {"content-type": "application/json"}
        if self.secret is not None:
            at = str(int(time.time()))
            text = f"{at}.POST.{self.url.path}{path}.".encode() + body
            headers["x-flow-timestamp"] = at
            headers["x-flow-signature-256"] = "sha256=" + hmac.new(self.secret.encode(), text, sha256).hexdigest()
        return self._ask("POST", path, body, headers, 202)

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], expected: int
    ) -> dict[str, Any]:
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        try:
            with closing(kind(self.url.hostname or "", self.url.port, timeout=self.timeout_s)) as connection:
                connection.request(method, f"{self.url.path}{path}", body, headers)
                answer = connection.getresponse()
                status, content = answer.status, answer.read(MAX_ANSWER_BYTES)
        except ConnectionRefusedError:
            raise Failed("connection refused", "Is the server running, and is the port in --url right?") from None
        except socket.gaierror as error:
            raise Failed(f"no such host: {error.strerror}", "Correct the name in --url.") from None
        except TimeoutError:
            hint = "The server is stuck or unreachable; see its log, or raise --timeout."
            raise Failed(f"no answer within {self.timeout_s:g} s", hint) from None
        except ssl.SSLError as error:
            raise Failed(f"TLS: {error.reason}", "Check the certificate, and http or https in --url.") from None
        except (OSError, http.client.HTTPException) as error:
            hint = "Is this an HTTP server, and https where it has to be?"
            raise Failed(f"no HTTP answer: {str(error) or type(error).__name__}", hint) from None
        return _body(status, content, expected)


def _body(status: int, content: bytes, expected: int) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if status != expected:
        said = body if isinstance(body, dict) else {}
        hint = HINTS.get(status, str(said.get("hint") or "See the server's log."))
        raise Failed(f"status {status}, not {expected}: {str(said.get('error', ''))[:500]}", hint)
    if not isinstance(body, dict):
        raise Failed("the answer is no JSON object", "Is this a Stepwell server?")
    return body


class Smoke:
    """The checks, in order; each raises `Failed`."""

    def __init__(self, target: Target, event_id: str, now: datetime) -> None:
        self._target, self.event_id = target, event_id
        self._event = json.dumps(
            {"id": event_id, "type": TYPE, "source": "stepwell smoke", "occurredAt": now.isoformat(), "payload": {}}
        ).encode()
        self.run_ids: list[str] = []

    def checks(self) -> tuple[tuple[str, Callable[[], str]], ...]:
        """(name, check) of each."""
        return (
            ("alive", self._alive),
            ("ready", self._ready),
            ("accepted", self._accepted),
            ("duplicate", self._duplicate),
            ("stored", self._stored),
            ("listed", self._listed),
            ("replayed", self._replayed),
            ("runs ended", self._ended),
        )

    def _alive(self) -> str:
        self._target.get("/healthz")
        return "it answers"

    def _ready(self) -> str:
        self._target.get("/readyz")
        return "it takes events"

    def _accepted(self) -> str:
        answer = self._target.post("/events", self._event)
        _need(answer.get("status") == "accepted", f"it was not accepted: {answer}")
        self.run_ids = list(answer.get("runIds", []))
        return f"event {self.event_id}, {len(self.run_ids)} runs"

    def _duplicate(self) -> str:
        answer = self._target.post("/events", self._event)
        _need(answer.get("status") == "duplicate", f"the same event again was not a duplicate: {answer}")
        _need(answer.get("runIds") == self.run_ids, f"the same event again has other runs: {answer}")
        return "the same event again has the same runs"

    def _stored(self) -> str:
        answer = self._target.get(f"/events/{quote(self.event_id, safe='')}")
        event, runs = answer.get("event", {}), answer.get("runs", [])
        _need((event.get("id"), event.get("type")) == (self.event_id, TYPE), f"another event was found: {event}")
        _need({run.get("id") for run in runs} == set(self.run_ids), f"other runs were found: {runs}")
        return "it can be read"

    def _listed(self) -> str:
        events = self._target.get(f"/events?type={TYPE}&limit=50").get("events", [])
        _need(self.event_id in [event.get("id") for event in events], "the event is not in the list of its type")
        return "it is in the list"

    def _replayed(self) -> str:
        answer = self._target.post(f"/events/{quote(self.event_id, safe='')}/replay", b"{}")
        new = list(answer.get("runIds", []))
        _need(not set(new) & set(self.run_ids), f"the replay made no new runs: {answer}")
        self.run_ids += new
        return f"{len(new)} more runs"

    def _ended(self) -> str:
        if not self.run_ids:
            return f"no flow here listens to {TYPE}"
        ends = time.monotonic() + self._target.timeout_s
        while True:
            runs = self._target.get(f"/events/{quote(self.event_id, safe='')}")["runs"]
            open_ = [run for run in runs if run.get("status") not in ENDED]
            if not open_:
                break
            if time.monotonic() > ends:
                hint = "Is a worker running that has this flow? `stepwell runs show RUN` says why a run does not move."
                raise Failed(f"run {open_[0].get('id')} is still {open_[0].get('status')}", hint)
            time.sleep(LOOK_S)
        bad = [run for run in runs if run["status"] != "completed"]
        _need(not bad, f"run {bad[0].get('id') if bad else ''} has {bad[0]['status'] if bad else ''}")
        return f"{len(runs)} runs completed"


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise Failed(message[:500], "See the server's log, and `stepwell doctor` on its database.")


@click.command()
@click.option("--url", default="http://127.0.0.1:7345", show_default=True, help="The server.")
@click.option(
    "--secret-env",
    metavar="NAME",
    help="The variable with the secret [STEPWELL_SECRET].",
)
@click.option("--timeout", default=30.0, callback=seconds, show_default=True, help="Seconds for each answer.")
@json_option
def smoke(url: str, secret_env: str | None, timeout: float, as_json: bool) -> None:
    """Check a server from outside: it takes an event, once, keeps it, and runs what listens to it.

    The event has the type `stepwell.smoke`, which no flow listens to unless it was written for that. Reads show
    STEPWELL_TOKEN, or else the secret.
    """
    target = _target(url, secret_env, timeout)
    now = datetime.now(UTC)
    smoke_ = Smoke(target, f"smoke-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(6)}", now)
    done: list[dict[str, Any]] = []
    for name, check in smoke_.checks():
        started = time.perf_counter()
        failure = None
        try:
            told = check()
        except Failed as failed:
            failure, told = failed, failed.message
        ms = round((time.perf_counter() - started) * 1_000, 1)
        done.append({"check": name, "ok": failure is None, "ms": ms, "message": told})
        if not as_json:
            mark = click.style("ok    ", fg="green") if failure is None else click.style("FAILED", fg="red")
            click.echo(f"{mark}  {name:<11}{ms:>8.1f} ms  {clean(told)}")
        if failure is not None:
            break
    if as_json:
        view = {"ok": failure is None, "url": url, "eventId": smoke_.event_id, "checks": done}
        print_json(view if failure is None else {**view, "hint": failure.hint})
    elif failure is not None:
        click.echo(f"hint:  {clean(failure.hint)}", err=True)
    if failure is not None:
        raise click.exceptions.Exit(1)


def _target(url: str, secret_env: str | None, timeout_s: float) -> Target:
    try:
        parts = urlsplit(url.rstrip("/"))
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise Invalid(f"{url!r:.200} is no address of a server", hint="Give one like http://127.0.0.1:7345.")
    if parts.username or parts.password:
        raise Invalid("--url holds a password", hint="Secrets come from STEPWELL_SECRET and STEPWELL_TOKEN only.")
    if not timeout_s:
        raise Invalid("--timeout is 0", hint="Give a number of seconds over 0.")
    name = secret_env or holder("STEPWELL_SECRET", os.environ)
    secret = os.environ.get(name, "").strip() if name else ""
    if secret_env and not secret:
        raise Invalid(f"the variable {secret_env} is not set", hint="Set it to the secret, or name another.")
    token = os.environ.get("STEPWELL_TOKEN", "").strip() or secret
    if not token.isascii() or not token.isprintable():
        raise Invalid("the token has characters that no header can hold", hint="Set STEPWELL_TOKEN to plain text.")
    return Target(parts, secret or None, token or None, timeout_s)
