"""kill -9 at every commit boundary: all of a batch or nothing of it, and no answer without its bytes.

The workload is deterministic, clock and secrets included. So the file after a kill must be, row by row, what an
undisturbed engine left before the batch or after it; and after another process has sent the interrupted batch again,
as a worker does that lost an answer, and finished the workload, every row must be what the undisturbed engine left.
"""

import asyncio
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct, structs

from stepwell.engine.engine import Engine
from stepwell.model import commands as c
from stepwell.model.entries import KINDS, PatchMarked, StepFailed
from stepwell.model.errors import StepwellError
from tests.crash.puppet import pack, unpack
from tests.crash.support import SETTINGS, T0, Died, Puppet, dump, journal, offences
from tests.crash.tally import Tally
from tests.crash.workload import Batch, entries_used, kinds_used, workload
from tests.support import durable

pytestmark = pytest.mark.stores("sqlite")

#: Points before the commit, and after it. `answered`: when the first answer of the batch is out.
BEFORE, AFTER = ("begun", "decided", "flushed"), ("committed", "answering", "answered")
#: What a batch that is sent again adds: a row for its commit. All else is the same for ever.
AGAIN = frozenset({"change", "sqlite_sequence"})
#: Commands that get their first answer again.
NUMBERED = (c.Record, c.Mutate, c.Park, c.Finish, c.Fail, c.Release, c.Say, c.Signal, c.Sync, c.Invoke)

Rows = dict[str, list[Any]]


class Undisturbed(Struct):
    """What the workload does when nobody is killed: its batches, their replies, and the file before and after each."""

    batches: list[Batch]
    replies: list[list[Any]]
    files: list[Rows]


def open_engine(path: Path, clock_ms: Callable[[], int]) -> Engine:
    return Engine(
        durable(path), settings=SETTINGS, clock_ms=clock_ms, mutations=Tally(), roles=False, prepare=Tally.prepare
    )


async def play(path: Path, told: list[list[Any]], after: Callable[[Batch, list[Any]], None]) -> None:
    """Runs the workload in this process; its first batches are answered by `told`, the others are sent."""
    clock, script = [0], workload()
    batch, number = next(script), 0
    async with open_engine(path, lambda: clock[0]) as engine:
        while True:
            if number < len(told):
                replies = told[number]
            else:
                clock[0] = batch.now
                commands = unpack(pack(batch.commands))  # as they come to a puppet, to the identity of each string
                replies = await asyncio.gather(*map(engine.submit, commands), return_exceptions=True)
                after(batch, replies)
            try:
                batch = script.send(replies)
            except StopIteration:
                return
            number += 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    path = tmp_path_factory.mktemp("kill") / "calm.sqlite"
    calm, usual = Undisturbed([], [], []), sys.getswitchinterval()
    sys.setswitchinterval(1.0)  # as in a puppet: what is sent together is one batch
    try:
        asyncio.run(_calm(path, calm))
    finally:
        sys.setswitchinterval(usual)
    assert not offences(path)
    return calm


async def _calm(path: Path, calm: Undisturbed) -> None:
    async with open_engine(path, lambda: T0):
        calm.files.append(dump(path))

    def note(batch: Batch, replies: list[Any]) -> None:
        calm.batches.append(batch)
        calm.replies.append(replies)
        calm.files.append(dump(path))

    await play(path, [], note)


def same(one: Any, other: Any) -> bool:
    """Whether two replies say the same."""
    if isinstance(one, StepwellError):
        return type(one) is type(other) and one.as_json() == other.as_json()
    return bool(one == other)


def test_the_workload_uses_every_command(undisturbed: Undisturbed) -> None:
    assert kinds_used(undisturbed.batches) == set(c.Command.__subclasses__()) - {c.ReplayEvent}  # not repeatable
    recordable = {body for body in KINDS.values() if body.recordable}
    assert entries_used(undisturbed.batches) == recordable - {StepFailed, PatchMarked}  # as StepCompleted to the kernel
    refused = [reply for replies in undisturbed.replies for reply in replies if isinstance(reply, Exception)]
    assert [type(reply).__name__ for reply in refused] == ["Unseen", "Stale", "Stale", "MutationFailed"]
    called = [(function, by) for function, by, _ in undisturbed.files[-1]["tally"]]
    assert called == [("m:count", ""), ("m:count", ""), ("m:count", "sender"), ("m:count", "told")]
    assert {row[2] for row in undisturbed.files[-1]["run"]} >= {"parent", "kid", "onward-2", "sleeper"}


@pytest.mark.parametrize("point", [*BEFORE, *AFTER])
def test_a_kill_leaves_all_of_a_batch_or_nothing(point: str, undisturbed: Undisturbed, tmp_path: Path) -> None:
    numbers = range(len(undisturbed.batches))
    with ThreadPoolExecutor(2) as threads:
        for _ in threads.map(lambda k: killed_at(tmp_path / f"{k}.sqlite", point, k, undisturbed), numbers):
            pass


def killed_at(path: Path, point: str, k: int, calm: Undisturbed) -> None:
    """Kills a process at a point of batch `k`, looks at the file, and lets another process finish."""
    answered = until_killed(path, point, k, calm)
    happened = point in AFTER
    assert dump(path) == calm.files[k + happened], f"batch {k} is there in part"
    assert not offences(path)
    assert happened or not answered[k], "an answer without its bytes"
    for number, replies in answered.items():
        assert all(same(reply, calm.replies[number][index]) for index, reply in replies.items())
    assert [len(answered.get(number, ())) for number in range(k)] == [len(calm.replies[n]) for n in range(k)]
    finish_elsewhere(path, k, calm, happened)


def until_killed(path: Path, point: str, k: int, calm: Undisturbed) -> dict[int, dict[int, Any]]:
    """What the process answered before it died, by batch and by command."""
    answered: dict[int, dict[int, Any]] = {}
    with Puppet(path) as puppet:
        puppet.fault(point, k + 1)
        try:
            for number, batch in enumerate(calm.batches):
                puppet.clock(batch.now)
                answered[number] = dict(enumerate(puppet.submit(*batch.commands)))
        except Died as died:
            # A batch of one command may be read in full before its process is seen to be dead.
            assert number == k + (point == "answered" and k in answered), "a batch must be one of the lane"
            answered.setdefault(k, died.answered)
        assert puppet.ended() == -signal.SIGKILL
    return answered


def finish_elsewhere(path: Path, k: int, calm: Undisturbed, happened: bool) -> None:
    """This process goes on with the workload, from the batch that was interrupted."""

    def compare(batch: Batch, replies: list[Any]) -> None:
        number = calm.batches.index(batch)
        for command, reply, first in zip(batch.commands, replies, calm.replies[number], strict=True):
            if isinstance(command, NUMBERED):
                expected = told_again(path, command, first) if happened and number == k else first
                assert same(reply, expected), f"{command} got {reply}, and not {expected}"

    asyncio.run(play(path, calm.replies[:k], compare))
    assert dump(path, without=AGAIN) == {name: rows for name, rows in calm.files[-1].items() if name not in AGAIN}
    assert not offences(path)


def told_again(path: Path, command: Any, first: Any) -> Any:
    """What a repeat is answered: the first answer, and of a write of entries those entries as they stand."""
    if not isinstance(first, c.Recorded):
        return first
    entries = journal(path, command.lease.run_no)
    return structs.replace(first, own=[entry for entry in entries if first.first <= entry.seq <= first.head])
