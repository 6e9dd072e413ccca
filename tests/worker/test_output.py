"""What a step says: seen while it runs, in order, kept by attempt, bounded, and whatever bytes it may be."""

import asyncio
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell.model import commands as c
from stepwell.model.errors import Internal, Invalid, OutOfStep, StepwellError, TooLarge
from stepwell.model.settings import MIB

from .support import OK, QUICK, House, house

PAGE = os.sysconf("SC_PAGESIZE")


async def streams(it: House, run_id: str) -> list[tuple[str, str]]:
    """The output with chunks of one stream after another put together."""
    found: list[tuple[str, str]] = []
    for one in await it.output(run_id):
        if found and found[-1][0] == one.kind:
            found[-1] = (one.kind, found[-1][1] + one.text)
        else:
            found.append((one.kind, one.text))
    return found


def test_output_is_there_while_the_step_runs_in_order(tmp_path: Path) -> None:
    """Fault 16. The step goes on only when what it said before has been seen in the store."""
    turns = "".join(
        f'echo {n} {">&2" if n % 2 else ""}\nwhile [ ! -e "{tmp_path}/{n}" ]; do sleep 0.01; done\n' for n in range(6)
    )

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(turns + OK)
            it.work()
            run_id = await it.one()
            for n in range(6):
                await it.said_until(run_id, f"{n}\n")
                assert (await it.run(run_id)).status == "running"
                (tmp_path / str(n)).touch()
            await it.end(run_id)
            expected = [("stderr" if n % 2 else "stdout", f"{n}\n") for n in range(6)]
            assert await streams(it, run_id) == [*expected, ("stdout", OK[len("echo '") : -2] + "\n")]
            output = await it.output(run_id)
            assert [one.n for one in output] == list(range(1, len(output) + 1))

    asyncio.run(main())


def test_each_attempt_keeps_what_it_said(tmp_path: Path) -> None:
    script = f'cd "{tmp_path}"; echo x >> n; n=$(wc -l < n); echo "attempt $n"; [ $n -ge 3 ] || exit 1\n'

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(script + OK, "[steps.retry]\nmax_attempts = 3\ninitial_ms = 50")
            it.work()
            run_id = await it.one()
            await it.end(run_id)
            said = {n: [one.text for one in await it.output(run_id) if one.attempt == n] for n in (1, 2, 3)}
            assert {n: "".join(texts).splitlines()[:1] for n, texts in said.items()} == {
                n: [f"attempt {n}"] for n in (1, 2, 3)
            }

    asyncio.run(main())


def test_any_bytes(tmp_path: Path) -> None:
    script = (
        "printf 'nul \\000 bad \\377 esc \\033[31m \\303'; printf '\\244 \\360\\237\\220\\252 \\342\\200\\256\\n'\n"
    )

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(script + OK)
            it.work()
            run_id = await it.one()
            assert (await it.end(run_id)).status == "completed"
            assert (await it.said(run_id)).splitlines()[0] == "nul \0 bad \ufffd esc \x1b[31m ä 🐪 \u202e"

    asyncio.run(main())


def test_output_over_the_bound_is_cut_with_a_mark(tmp_path: Path) -> None:
    """A thousand lines of 100 bytes against a bound of 4 KiB; the result is found all the same."""
    script = f'i=0\nwhile [ $i -lt 1000 ]; do printf "%099d\\n" $i; i=$((i+1)); done\necho late >&2\n{OK}'

    async def main() -> None:
        async with house(tmp_path, settings=msgspec.structs.replace(QUICK, output_bytes=4_096)) as it:
            it.add(script)
            it.work()
            run_id = await it.one()
            assert (await it.end(run_id)).status == "completed"
            output = await it.output(run_id)
            assert [one.kind for one in output].count("system") == 1
            assert (output[-1].kind, output[-1].text) == (
                "system", "[output cut here: the run said more than 4,096 bytes]\n",
            )  # fmt: skip
            kept = "".join(one.text for one in output[:-1])
            assert len(kept) <= 4_096
            assert kept == "".join(f"{n:099}\n" for n in range(1_000))[: len(kept)]

    asyncio.run(main())


def test_small_pieces_fill_the_bound_before_it_is_cut(tmp_path: Path) -> None:
    """Said in pieces that are stored one by one, at least half of the bound is kept."""
    script = 'i=0\nwhile [ $i -lt 12 ]; do printf "%0499d\\n" $i; sleep 0.07; i=$((i+1)); done\n' + OK

    async def main() -> None:
        async with house(tmp_path, settings=msgspec.structs.replace(QUICK, output_bytes=4_096)) as it:
            it.add(script)
            it.work()
            run_id = await it.one()
            await it.end(run_id)
            output = await it.output(run_id)
            assert output[-1].kind == "system"
            assert 2_048 <= sum(len(one.text) for one in output[:-1]) <= 4_096

    asyncio.run(main())


@pytest.mark.parametrize("away", [(), (c.Say,)], ids=["stored", "not stored for now"])
def test_200_mb_of_output_take_flat_memory(tmp_path: Path, away: tuple[type[c.Command], ...]) -> None:
    script = f"yes {'x' * 1_000} | head -c 200000000\necho\ntouch {tmp_path}/done\n{OK}"

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(script)
            it.work()
            it.away = away
            before = most = rss_mib()
            run_id = await it.one()
            while not (tmp_path / "done").exists():
                most = max(most, rss_mib())
                await asyncio.sleep(0.01)
            it.away = ()
            assert (await it.end(run_id, 60)).status == "completed"
            output = await it.output(run_id)
            assert output[-1].kind == "system"
            assert QUICK.output_bytes - 64 * 1024 <= sum(len(one.text) for one in output[:-1]) <= QUICK.output_bytes
            assert most - before < 80, f"{most - before:.0f} MiB more for a bound of {QUICK.output_bytes // MIB} MiB"

    asyncio.run(main())


def rss_mib() -> float:
    """The memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / MIB


def test_streams_are_not_mixed_up_however_fast(tmp_path: Path) -> None:
    """Nobody waits here, so that many pieces of both streams are on their way at once."""
    script = 'i=0\nwhile [ $i -lt 3000 ]; do echo "out $i"; echo "err $i" >&2; i=$((i+1)); done\n'

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(script + OK)
            it.work()
            it.away = (c.Say,)
            run_id = await it.one()
            await asyncio.sleep(0.3)
            it.away = ()
            await it.end(run_id)
            output = await it.output(run_id)
            for kind, name in (("stdout", "out"), ("stderr", "err")):
                text = "".join(one.text for one in output if one.kind == kind)
                assert text.partition("FLOW")[0] == "".join(f"{name} {n}\n" for n in range(3_000))
            assert len(output) > 2

    asyncio.run(main())


def test_what_is_said_while_the_engine_is_away_is_told_later(tmp_path: Path) -> None:
    """The engine refuses all that a worker writes for a second: nothing is lost, nothing twice, nobody starts again."""

    async def main() -> None:
        async with house(tmp_path) as it:
            it.add(f'echo one\nwhile [ ! -e "{tmp_path}/go" ]; do sleep 0.01; done\necho two\n{OK}')
            it.work()
            run_id = await it.one()
            await it.said_until(run_id, "one")
            it.away = (c.Say, c.Finish, c.Fail, c.Sync, c.Claim)
            (tmp_path / "go").touch()
            other = await it.one("other")
            await asyncio.sleep(1)
            assert (await it.run(run_id)).status == "running"
            it.away = ()
            assert (await it.end(run_id)).status == "completed"
            assert (await it.end(other)).status == "completed"
            assert (await it.said(run_id)).startswith("one\ntwo\nFLOW_RESULT")
            assert await it.kinds(run_id) == ["run.created", "attempt.started", "run.completed"]

    asyncio.run(main())


@pytest.mark.parametrize("error", [OutOfStep("lost count"), Invalid("bad text"), TooLarge("too much"), Internal("bug")])
def test_a_result_is_written_though_what_the_step_said_was_refused(
    tmp_path: Path, error: StepwellError, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with house(tmp_path) as it:
            it.add("echo hello\n" + OK)
            submit = it.engine.submit

            def refusing(command: c.Command) -> Awaitable[Any]:
                return refusal() if isinstance(command, c.Say) else submit(command)

            async def refusal() -> None:
                raise error

            monkeypatch.setattr(it.engine, "submit", refusing)
            it.work()
            run_id = await it.one()
            assert (await it.end(run_id)).status == "completed"
            assert await it.kinds(run_id) == ["run.created", "attempt.started", "run.completed"]

    asyncio.run(main())
    assert "what it says is not kept" in caplog.text
