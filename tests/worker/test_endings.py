"""How a step's end becomes a run's end: exit codes, results, retries, and flows that went away."""

import asyncio
import logging
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell.flows.backend import FRESH_S
from stepwell.model.rows import Run
from stepwell.worker.alive import Presence
from stepwell.worker.held import Held
from stepwell.worker.worker import BROKEN_HANDLER_MS, Worker

from .support import OK, QUICK, House, Time, house

#: Fails until the file has as many lines as asked for.
FLAKY = 'echo try >> "{0}/tries"\n[ $(wc -l < "{0}/tries") -ge {1} ] || exit 7\n' + OK.replace("{", "{{").replace(
    "}", "}}"
)


def error(run: Run) -> dict[str, Any]:
    assert run.error is not None
    found: dict[str, Any] = msgspec.json.decode(run.error)
    return found


def python(code: str) -> str:
    """A script's last line: this Python code."""
    return f"exec python3 - <<'END'\n{code}\nEND\n"


def test_a_step_that_fails_is_tried_again_until_it_completes(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(FLAKY.format(tmp_path, 3) + OK, "[steps.retry]\nmax_attempts = 3\ninitial_ms = 100")
            it.work()
            run_id = await it.one()
            assert (await it.end(run_id)).status == "completed"
            attempts = (await it.view(run_id))["attempts"]
            assert [one["attempt"] for one in attempts] == [1, 2, 3]
            assert [one["ended"] for one in attempts] == ["failed", "failed", "completed"]
            assert [one["failure"]["exitCode"] for one in attempts[:2]] == [7, 7]
            assert all(one["nextAt"] <= after["startedAt"] for one, after in pairwise(attempts))

    asyncio.run(main())


def test_the_last_attempt_fails_the_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add("echo 'no luck' >&2\nexit 7\n", "[steps.retry]\nmax_attempts = 2\ninitial_ms = 10")
            it.work()
            run_id = await it.one()
            run = await it.end(run_id)
            assert (run.status, run.result_status) == ("failed", None)
            assert error(run) == {
                "type": "exit", "message": "the step exited with 7", "exitCode": 7, "stderr": "no luck\n",
                "hint": "See what it printed to stderr.",
            }  # fmt: skip
            assert len((await it.view(run_id))["attempts"]) == 2

    asyncio.run(main())


def test_a_result_that_says_failed_fails_the_run(tmp_path: Path) -> None:
    """Fault 19: exit code 0 made it completed."""

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add("""echo 'FLOW_RESULT {"status":"failed","message":"no build"}'\n""")
            it.work()
            run_id = await it.one()
            run = await it.end(run_id)
            assert (run.status, run.result_status, run.needs_attention) == ("failed", "failed", True)
            assert error(run) == {"type": "result_failed", "message": "no build"}
            assert run.result is not None
            assert msgspec.json.decode(run.result) == {"status": "failed", "message": "no build"}

    asyncio.run(main())


@pytest.mark.parametrize("status", ["skipped", "completed", "changed", "needs_intervention", "blocked"])
def test_every_other_result_completes_the_run_and_can_be_found(tmp_path: Path, status: str) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(f"""echo 'FLOW_RESULT {{"status":"{status}","artifacts":{{"n":[1]}}}}'\n""")
            it.work()
            run_id = await it.one()
            run = await it.end(run_id)
            assert (run.status, run.result_status) == ("completed", status)
            assert run.needs_attention == (status in ("needs_intervention", "blocked"))
            assert (await it.view(run_id))["result"] == {"status": status, "artifacts": {"n": [1]}}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("echo nothing\n", "no_result"),
        ("echo 'FLOW_RESULT {\"status\":'\n", "bad_result"),
        ("""echo 'FLOW_RESULT {"status":"fine"}'\n""", "bad_result"),
        (python("""print('FLOW_RESULT {"status":"completed","x":"' + "y" * 2_000_000 + '"}')"""), "too_large"),
        ("kill -9 $$\n", "exit"),
        ("exec sleep 60\n", "timeout"),
    ],
)
def test_what_is_no_result_fails_with_a_reason(tmp_path: Path, script: str, kind: str) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(script, "timeout_ms = 500" if kind == "timeout" else "")
            it.work()
            run = await it.end(await it.one())
            assert (run.status, error(run)["type"], bool(error(run)["hint"])) == ("failed", kind, True)

    asyncio.run(main())


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_result_that_grows_over_the_bound_when_it_is_stored_fails_once(tmp_path: Path, status: str) -> None:
    """1E9 is 1000000000.0 when it is written again: more than a payload may have. It must not go on for ever."""
    code = f"""print('FLOW_RESULT {{"status":"{status}","x":[' + ",".join(["1E9"] * 200_000) + ']}}')"""

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(python(code))
            it.work()
            run_id = await it.one()
            run = await it.end(run_id, 5)
            assert (run.status, error(run)["type"]) == ("failed", "too_large")
            assert len((await it.view(run_id))["attempts"]) == 1

    asyncio.run(main())


def test_an_error_that_is_over_the_bound_is_cut(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path, settings=msgspec.structs.replace(QUICK, payload_bytes=1_024)) as it:
            it.add(python("""import sys; sys.stderr.write("\\0" * 4_096); sys.exit(3)"""))
            it.work()
            run = await it.end(await it.one(), 5)
            assert (run.status, error(run)["exitCode"]) == ("failed", 3)

    asyncio.run(main())


def test_a_flow_that_went_away_waits_for_its_return(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            root = it.add(OK)
            run_id = await it.one()
            away = shutil.move(root, tmp_path / "away")
            await asyncio.sleep(2 * FRESH_S)
            it.work()
            await asyncio.sleep(0.3)
            with Presence(tmp_path / "house.sqlite", "it"):  # as whoever starts a worker says
                view = await it.view(run_id)
            assert (view["status"], view["attempts"]) == ("queued", [])
            assert "waits for a worker" in view["why"]
            assert "flow:demo" in view["why"]
            shutil.move(away, root)
            assert (await it.end(run_id)).status == "completed"

    asyncio.run(main())


def test_a_step_that_went_away_fails_and_says_what_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            root = it.add(OK, "[steps.retry]\nmax_attempts = 9")
            run_id = await it.one()
            manifest = root / "flow.toml"
            manifest.write_text(manifest.read_text().replace('name = "go"', 'name = "went"'))
            await asyncio.sleep(2 * FRESH_S)
            it.work()
            run = await it.end(run_id)
            assert (run.status, error(run)["type"]) == ("failed", "unknown_step")
            assert error(run)["hint"] == "Its steps: went."

    asyncio.run(main())


def test_a_handler_that_raises_gives_its_task_back_for_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    clock = Time()

    async def main() -> None:
        async with house(tmp_path, clock_ms=clock) as it:
            run_id = await _handled(it, _broken)
            task = await it.task(run_id)
            assert (task.state, task.failures) == ("due", 0)
            assert task.due_at is not None
            assert task.due_at > it.engine.clock_ms() + BROKEN_HANDLER_MS - 2_000
            assert (await it.kinds(run_id))[-1] == "attempt.ended:released"
            it.work()
            clock.ahead_ms += BROKEN_HANDLER_MS
            assert (await it.end(run_id)).status == "completed"

    asyncio.run(main())


def test_a_kind_that_nobody_handles_is_given_back_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    async def main() -> None:
        async with house(tmp_path) as it:
            run_id = await _handled(it, None)
            assert (await it.kinds(run_id))[-1] == "attempt.ended:released"

    asyncio.run(main())


async def _broken(held: Held) -> None:
    raise RuntimeError("a bug")


async def _handled(it: House, handler: Any) -> str:
    """A run that a worker with this handler had once."""
    it.add(OK)
    worker = Worker(it.engine, {} if handler is None else {"step": handler})
    worker.start()
    run_id = await it.one()
    number = (await it.run(run_id)).no
    await it.engine.wait_run(number, lambda run: run.epoch > 0 and run.status == "queued", timeout_s=5)
    await worker.stop()
    return run_id
