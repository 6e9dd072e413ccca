"""The guard of a worker, by itself: what it kills, what it leaves alone, and what happens when it is killed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from stepwell.engine.clock import steady_s
from stepwell.flows.executors.guard import Guard, Post


def wait_for(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


@contextmanager
def guarded(guard: Guard, command: str = "exec sleep 30") -> Iterator[tuple[Post, "subprocess.Popen[bytes]"]]:
    """A process in a group of its own under guard."""
    with guard.post() as post:
        environ = {**os.environ, **post.environ}
        with subprocess.Popen(["sh", "-c", command], env=environ, start_new_session=True) as process:
            try:
                post.watch(process.pid)
                yield post, process
            finally:
                process.kill()


def guards(before: Collection[int] = ()) -> list[int]:
    """The guards that are our children, without those of other tests."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = f"\nPPid:\t{os.getpid()}\n" in (path / "status").read_text()
            if is_ours and b"guard_process.py" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [pid for pid in found if pid not in before]


def the_guard(others: Collection[int]) -> int:
    """The one guard besides those; a process that has just begun has no command line for a moment."""
    assert wait_for(lambda: len(guards(others)) == 1)
    return guards(others)[0]


def test_a_lease_that_is_over_ends_this_step_and_no_other() -> None:
    guard = Guard()
    with guarded(guard) as (late, one), guarded(guard) as (early, other):
        early.until(steady_s() + 60)
        late.until(steady_s() + 60)
        late.until(steady_s() + 0.3)
        assert one.wait(5) == -signal.SIGKILL
        time.sleep(0.1)
        assert other.poll() is None
    guard.close()


def test_who_left_the_group_is_found_by_the_mark(tmp_path: Path) -> None:
    guard, pid = Guard(), tmp_path / "pid"
    with guarded(guard, f"setsid sh -c 'echo $$ > {pid}; exec sleep 30' & wait") as (post, _):
        assert wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
        post.until(steady_s())
        assert wait_for(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())
    guard.close()


def test_a_guard_that_was_killed_is_replaced_and_its_successor_knows_all() -> None:
    others = guards()
    guard = Guard()
    with guarded(guard) as (post, process):
        first = the_guard(others)
        os.kill(first, signal.SIGKILL)
        assert wait_for(lambda: Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        with guarded(guard) as (_, other):
            the_guard({*others, first})
            post.until(steady_s())
            assert process.wait(5) == -signal.SIGKILL
            assert other.poll() is None
    guard.close()
    assert guards(others) == []


def test_a_guard_that_reads_no_more_holds_nobody_up() -> None:
    others = guards()
    guard = Guard()
    with guarded(guard) as (post, process):
        first = the_guard(others)
        os.kill(first, signal.SIGSTOP)
        begun = time.monotonic()
        for _ in range(5_000):
            post.until(steady_s() + 60)
        assert time.monotonic() - begun < 3
        the_guard({*others, first})
        assert process.poll() is None
        post.until(steady_s())
        assert process.wait(5) == -signal.SIGKILL
    guard.close()


def test_one_process_guards_a_whole_worker_and_goes_with_it() -> None:
    others = guards()
    guard = Guard()
    assert guards(others) == [], "a worker without steps needs none"
    with guarded(guard), guarded(guard):
        the_guard(others)
    del guard
    assert guards(others) == []
