"""Is it alive, can it work, and what does it do: `/healthz`, `/readyz`, `/metrics`."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.errors import StepwellError, Unavailable
from stepwell.model.words import STATUSES, TASK_STATES, TERMINAL
from stepwell.server.http import answer, refusal
from stepwell.server.waits import Waits
from stepwell.worker.local import Local
from stepwell.worker.worker import Worker

#: How long readiness waits for the lane to answer; seconds.
PROBE_S = 2.0
#: How long a scrape waits for what is counted in the store: less than Prometheus waits for it.
COUNT_S = 8.0
METHODS = frozenset(("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"))


class Requests:
    """How many requests were answered, by route, method and status. A route is its pattern, so there are few."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, int]] = Counter()

    def count(self, template: str, method: str, status: int) -> None:
        """One more; `template` is empty for what is no route."""
        self.counts[template or "none", method if method in METHODS else "other", status] += 1


class Health:
    """The three routes that a machine asks."""

    def __init__(self, local: Local, requests: Requests, waits: Waits) -> None:
        self._engine, self._worker = local.engine, local.worker
        self._requests, self._waits = requests, waits

    async def healthz(self, request: Request) -> Response:
        """200 while the process is alive and its store has not given up; 503 with the reason."""
        if self._engine.stopped is not None:
            raise Unavailable(f"the store cannot write: {self._engine.stopped}")
        return answer({"ok": True})

    async def readyz(self, request: Request) -> Response:
        """200 when events are accepted and, if there is a worker here, steps are claimed; 503 with `reasons`."""
        reasons = [one for one in (await _store_trouble(self._engine), _worker_trouble(self._worker)) if one]
        if self._waits.closing.is_set():
            reasons.append("the server is being stopped")
        if reasons:
            return refusal(Unavailable("not ready: " + "; ".join(reasons), reasons=reasons))
        worker = None if self._worker is None else {"slots": self._worker.slots, "busy": self._worker.busy}
        return answer({"ok": True, "worker": worker})

    async def metrics(self, request: Request) -> Response:
        """What Prometheus reads. Without what is counted in the store, while that cannot be read."""
        counts = await _counts(self._engine)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Snapshot(counts, self._engine, self._worker, self._requests, self._waits))
        headers = {"cache-control": "no-store", "content-type": CONTENT_TYPE_PLAIN_0_0_4}
        return Response(generate_latest(registry), headers=headers)


async def _counts(engine: Engine) -> Mapping[str, int] | None:
    with suppress(TimeoutError, Unavailable):
        async with asyncio.timeout(COUNT_S):
            return await engine.read(lambda reader: reader.counts())
    return None


async def _store_trouble(engine: Engine) -> str | None:
    if engine.trouble is not None:
        return f"the store cannot write: {engine.trouble}"
    try:
        async with asyncio.timeout(PROBE_S):
            await engine.submit(c.Deliver(limit=1))  # what the housekeeping does anyway
            await engine.read(lambda reader: reader.list_events("main", of_type=None, limit=1, before=None))
    except TimeoutError:
        return f"the store has not answered within {PROBE_S:g} s"
    except StepwellError as error:
        return f"the store refuses: {error.message}"
    return None


def _worker_trouble(worker: Worker | None) -> str | None:
    return None if worker is None or worker.trouble is None else f"the worker claims nothing: {worker.trouble}"


class Snapshot(Collector):
    """The numbers of one scrape. Each scrape has a registry of its own, so nothing is global."""

    def __init__(
        self, counts: Mapping[str, int] | None, engine: Engine, worker: Worker | None, requests: Requests, waits: Waits
    ) -> None:
        self._counts, self._engine, self._worker = counts, engine, worker
        self._requests, self._waits = requests, waits

    def collect(self) -> Iterator[Metric]:
        """All families."""
        if self._counts is not None:
            yield from self._kernel(self._counts)
        yield from self._lane()
        yield from self._server()

    def _kernel(self, counts: Mapping[str, int]) -> Iterator[Metric]:
        runs = GaugeMetricFamily("stepwell_runs", "Runs that have not ended.", labels=["status"])
        for status in STATUSES:
            if status not in TERMINAL:
                runs.add_metric([status], counts.get(f"run.{status}", 0))
        tasks = GaugeMetricFamily("stepwell_tasks", "Tasks that are not done.", labels=["state"])
        for state in TASK_STATES:
            if state != "done":
                tasks.add_metric([state], counts.get(f"task.{state}", 0))
        yield runs
        yield tasks

    def _lane(self) -> Iterator[Metric]:
        lanes, timings = self._engine.lanes, self._engine.lanes.timings
        yield GaugeMetricFamily("stepwell_lane_up", "1 while commits are possible.", float(lanes.trouble is None))
        yield GaugeMetricFamily("stepwell_lane_queue", "Commands that wait.", lanes.depth)
        yield CounterMetricFamily("stepwell_lane_batches", "Batches.", timings.batches)
        yield CounterMetricFamily("stepwell_lane_commands", "Commands decided.", timings.commands)
        yield CounterMetricFamily("stepwell_lane_commits", "Commits.", lanes.commits)
        phases = CounterMetricFamily("stepwell_lane_seconds", "Time by phase of a batch.", labels=["phase"])
        for phase in ("begin", "load", "decide", "flush", "commit"):
            phases.add_metric([phase], getattr(timings, phase))
        yield phases

    def _server(self) -> Iterator[Metric]:
        slots, busy = (0, 0) if self._worker is None else (self._worker.slots, self._worker.busy)
        yield GaugeMetricFamily("stepwell_worker_slots", "Steps that can run at once here.", slots)
        yield GaugeMetricFamily("stepwell_worker_busy", "Steps that run here.", busy)
        yield GaugeMetricFamily("stepwell_http_waits", "Open waits and streams.", self._waits.open)
        answered = CounterMetricFamily(
            "stepwell_http_requests", "Requests answered; 499: the client went.", labels=["route", "method", "status"]
        )
        for (route, method, status), count in sorted(self._requests.counts.items()):
            answered.add_metric([route, method, str(status)], count)
        yield answered
