"""Steps that end badly, through a real worker: each has a clear, bounded end and leaves nobody behind (fault 14)."""

import asyncio
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from stepwell.flows.runners.base import Tools
from stepwell.model.rows import Run
from stepwell.model.settings import MIB
from stepwell.worker.steps import StepHandler
from stepwell.worker.worker import Worker

from .site import true
from .support import OK, QUICK, House, alive, house
from .test_endings import error, python
from .test_output import rss_mib

MARK = "ENDS_MARK"


class Marked:
    """A house whose steps, and whatever they start, carry a mark by which they are found."""

    def __init__(self, it: House) -> None:
        self.it, self.mark = it, os.urandom(8).hex()
        handler = StepHandler(it.flows, tools=Tools(search_path=os.defpath), environ={**os.environ, MARK: self.mark})
        worker = Worker(it.engine, {"step": handler}, slots=4, requires=handler.requires)
        worker.start()
        it.workers.append(worker)

    def living(self) -> list[int]:
        """The processes that carry the mark."""
        needle, found = f"{MARK}={self.mark}".encode(), []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if needle in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
        return [pid for pid in found if alive(pid)]

    async def end(self, script: str, keys: str = "") -> tuple[Run, float]:
        """A run of a step, when it has ended and nobody is left; and how many seconds it took."""
        self.it.add(script, f'env = ["{MARK}"]\n{keys}')
        began = time.monotonic()
        run = await self.it.end(await self.it.one())
        took_s = time.monotonic() - began
        await true(lambda: not self.living(), patience_s=2)
        return run, took_s


def ends(tmp_path: Path, script: str, keys: str = "") -> tuple[Run, float]:
    """`Marked.end` in a house of its own."""

    async def main() -> tuple[Run, float]:
        async with house(tmp_path) as it:
            return await Marked(it).end(script, keys)

    return asyncio.run(main())


def failure(run: Run) -> tuple[str, str, str]:
    """Status, type and message."""
    return run.status, error(run)["type"], error(run)["message"]


TIMED_OUT = ("failed", "timeout", "the step ran into its timeout of 500 ms")
TIMEOUT = "timeout_ms = 500"


def test_200_mb_are_cut_with_an_honest_mark_in_flat_memory(tmp_path: Path) -> None:
    """A tenth of a megabyte may be said: the rest is dropped, readable until then, and the result is found."""
    limit = 100_000
    script = f"echo first\nwhile [ ! -e '{tmp_path}/go' ]; do sleep 0.01; done\nyes | head -c 200000000\n{OK}"

    async def main() -> None:
        async with house(tmp_path, settings=msgspec.structs.replace(QUICK, output_bytes=limit)) as it:
            it.add(script)
            it.work()
            run_id = await it.one()
            await it.said_until(run_id, "first\n")
            assert (await it.run(run_id)).status == "running"
            before = most = rss_mib()
            (tmp_path / "go").touch()
            while not (await it.run(run_id)).terminal:
                most = max(most, rss_mib())
                await asyncio.sleep(0.02)
            run = await it.run(run_id)
            assert run.status == "completed", run.error
            *said, mark = await it.output(run_id)
            assert (mark.kind, mark.text) == ("system", "[output cut here: the run said more than 100,000 bytes]\n")
            assert limit // 2 <= sum(len(one.text) for one in said) <= limit
            assert most - before < 20, f"{most - before:.0f} MiB more for a bound of {limit / MIB:.1f} MiB"

    asyncio.run(main())


def test_one_that_ignores_term_dies_with_its_grandchildren(tmp_path: Path) -> None:
    script = "trap '' TERM\n(trap '' TERM; sleep 60 & sleep 60 & wait) &\nwhile :; do sleep 0.05; done\n"
    run, took_s = ends(tmp_path, script, TIMEOUT)
    assert failure(run) == TIMED_OUT
    assert (500 + QUICK.kill_grace_ms) / 1_000 <= took_s < 4


def test_one_that_closes_stdout_and_goes_on_is_waited_for(tmp_path: Path) -> None:
    """The end of its output is not its end: what it does after counts, and so does its exit code."""
    script = f"{OK}exec >&- 2>&-\nsleep 0.6\ntouch '{tmp_path}/after'\nexit 3\n"
    run, took_s = ends(tmp_path, script)
    assert failure(run) == ("failed", "exit", "the step exited with 3")
    assert (tmp_path / "after").exists()
    assert took_s >= 0.6


def test_one_that_closes_stdout_and_never_ends_runs_into_its_timeout(tmp_path: Path) -> None:
    run, took_s = ends(tmp_path, f"{OK}exec >&- 2>&-\nsleep 60\n", TIMEOUT)
    assert failure(run) == TIMED_OUT
    assert took_s < 4


def test_invalid_utf8_in_the_output_and_in_the_result(tmp_path: Path) -> None:
    """Replaced, and never a broken run: the same text is in the output, the result and the error's stderr."""
    bad = "printf 'a\\377b\\n'\nprintf 'err \\300\\n' >&2\n"
    good, worse = """printf 'FLOW_RESULT {"status":"completed","message":"x\\377y"}\\n'\n""", "exit 3\n"
    (tmp_path / "good").mkdir()
    run, _ = ends(tmp_path / "good", bad + good)
    assert (run.status, msgspec.json.decode(run.result or "")["message"]) == ("completed", "x\ufffdy")
    (tmp_path / "worse").mkdir()
    run, _ = ends(tmp_path / "worse", bad + worse)
    assert failure(run) == ("failed", "exit", "the step exited with 3")
    assert error(run)["stderr"] == "err \ufffd\n"


def test_of_two_answers_the_last_one_counts(tmp_path: Path) -> None:
    """Also when the first one was good and the last is not."""
    for name, last, expected in (
        ("good", """{"status":"changed"}""", ("completed", "changed", None)),
        ("failed", """{"status":"failed","message":"on second thoughts"}""", ("failed", "failed", "result_failed")),
        ("broken", """{"status":""", ("failed", None, "bad_result")),
    ):
        (tmp_path / name).mkdir()
        run, _ = ends(tmp_path / name, f"{OK}echo 'FLOW_RESULT {last}'\n")
        kind = None if run.error is None else error(run)["type"]
        assert (run.status, run.result_status, kind) == expected, name


def test_one_whose_script_is_gone_when_it_starts_says_which(tmp_path: Path) -> None:
    """The package was good when the event came; the look at the folders is older than the removal."""

    async def main() -> None:
        async with house(tmp_path) as it:
            root = it.add(OK)
            run_id = await it.one()
            it.flows.discover()
            (root / "exec/go.sh").unlink()
            it.work()
            run = await it.end(run_id, 5)
            status, kind, message = failure(run)
            assert (status, kind) == ("failed", "spawn")
            assert str(root / "exec/go.sh") in message
            assert error(run)["hint"]
            assert len((await it.view(run_id))["attempts"]) == 1

    asyncio.run(main())


def test_one_that_is_stopped_at_its_timeout_is_killed_all_the_same(tmp_path: Path) -> None:
    """A stopped process hears no TERM; KILL ends it."""
    run, took_s = ends(tmp_path, "sleep 60 &\nkill -STOP $$\n", TIMEOUT)
    assert failure(run) == TIMED_OUT
    assert took_s < 4


#: Outside the step's group; its pid is in the file `pid`. The first holds the pipes.
SETSID = """setsid sh -c 'echo $$ > "{0}/pid"; exec sleep 60' {1}&
while [ ! -s "{0}/pid" ]; do sleep 0.01; done
"""
DOUBLE_FORK = """(setsid sh -c '(sh -c "echo \\$\\$ > {0}/pid; exec sleep 60" &)' {1}&)
while [ ! -s "{0}/pid" ]; do sleep 0.01; done
"""
SILENT = "</dev/null >/dev/null 2>&1"


@pytest.mark.parametrize("start", [SETSID, DOUBLE_FORK], ids=["setsid", "double fork"])
@pytest.mark.parametrize("pipes", ["", SILENT], ids=["holds the pipes", "silent"])
@pytest.mark.parametrize(("then", "keys"), [(OK, ""), ("exit 3\n", ""), ("sleep 60\n", TIMEOUT)])
def test_a_daemon_that_left_the_group_is_not_waited_for_and_not_left_behind(
    tmp_path: Path, start: str, pipes: str, then: str, keys: str
) -> None:
    """The run ends when the step does, though nobody can say that the pipes are read out; then the daemon goes."""

    async def main() -> Run:
        async with house(tmp_path) as it:
            run, took_s = await Marked(it).end(start.format(tmp_path, pipes) + then, keys)
            assert took_s < 4
            assert not alive(await it.pid())
            return run

    run = asyncio.run(main())
    if then == OK:
        assert (run.status, run.result_status) == ("completed", "completed")
    else:
        assert failure(run) == (TIMED_OUT if keys else ("failed", "exit", "the step exited with 3"))


def test_one_that_fills_stderr_keeps_its_end_and_its_result(tmp_path: Path) -> None:
    """Nobody reads stdout first and lets stderr fill up; of a failure's stderr the last 4 KiB are in the error."""
    flood = "import sys\nfor n in range(300_000): sys.stderr.write(f'{n}\\n')\n"
    (tmp_path / "good").mkdir()
    run, _ = ends(tmp_path / "good", python(flood + """print('FLOW_RESULT {"status":"completed"}')"""))
    assert run.status == "completed"
    (tmp_path / "bad").mkdir()
    run, _ = ends(tmp_path / "bad", python(flood + "sys.exit(5)"))
    assert failure(run) == ("failed", "exit", "the step exited with 5")
    stderr = error(run)["stderr"]
    assert 4_000 <= len(stderr) <= 4_096
    assert re.fullmatch(r"\d*\n(\d{6}\n)*299999\n", stderr)
