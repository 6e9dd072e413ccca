"""The guard of a worker, by itself: what it kills, what it leaves alone, and what happens when it is killed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stepwell.engine.clock import steady_s
from stepwell.flows.executors import guard_process
from stepwell.flows.executors.guard import Guard, Post


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


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
        assert wait_for(lambda: not alive(first))
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


SETSID = "setsid sh -c 'echo $$ > {0}; exec sleep 30' </dev/null >/dev/null 2>&1 &"
DOUBLE_FORK = "(setsid sh -c '(sh -c \"echo \\$\\$ > {0}; exec sleep 30\" &)' </dev/null >/dev/null 2>&1 &)"


@contextmanager
def daemon(guard: Guard, path: Path, start: str = SETSID) -> Iterator[tuple[Post, int]]:
    """A daemon that a process under guard has started, which is over then itself; killed in the end in any case."""
    with guarded(guard, f"{start.format(path)}\nwhile [ ! -s {path} ]; do sleep 0.01; done") as (post, process):
        assert process.wait(5) == 0
        pid = int(path.read_text())
        try:
            yield post, pid
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("start", [SETSID, DOUBLE_FORK], ids=["setsid", "double fork"])
def test_a_daemon_does_not_outlive_its_attempt(tmp_path: Path, start: str) -> None:
    guard = Guard()
    with daemon(guard, tmp_path / "pid", start) as (post, pid), daemon(guard, tmp_path / "other", start) as (_, other):
        assert alive(pid), "the attempt goes on"
        post.close()
        assert wait_for(lambda: not alive(pid))
        assert alive(other), "of an attempt that goes on"
    guard.close()


def test_a_daemon_goes_also_when_the_guard_is_dismissed_or_was_killed_meanwhile(tmp_path: Path) -> None:
    others = guards()
    guard = Guard()
    with daemon(guard, tmp_path / "pid") as (post, pid):
        post.close()
        guard.close()
        assert not alive(pid)
    with daemon(guard, tmp_path / "other") as (post, pid):
        first = the_guard(others)
        os.kill(first, signal.SIGKILL)
        assert wait_for(lambda: not alive(first))
        post.close()
        assert wait_for(lambda: not alive(pid))
    guard.close()


def test_one_look_is_for_all_attempts_that_end_about_then(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(guard_process, "kill_marked", lambda marks, first: looks.append(len(marks)))
    now_s = 100.0
    attempts = guard_process.Attempts(b"NOBODY_HAS_THIS", b"/nowhere/", lambda: now_s)
    for step in range(20):
        for number in range(5):
            attempts.take(f"{step}.{number} {os.getpid()} over over".encode())
        attempts.look()
        now_s += guard_process.GAP_S / 21
    assert looks == [5]
    while (rest_s := attempts.rest_s()) is not None:
        now_s += rest_s + 0.001
        attempts.look()
    assert looks[1] == 95
    assert sum(looks) == 100 * len(guard_process.LOOKS_S), "bounded for each attempt"
    assert len(looks) <= 1 + guard_process.LOOKS_S[-1] / guard_process.GAP_S + len(guard_process.LOOKS_S)


def test_only_pids_that_can_be_of_an_attempt_are_looked_at_and_all_when_pids_began_again(tmp_path: Path) -> None:
    source = tmp_path / "loadavg"

    def given(pid: int) -> None:
        source.write_text(f"0.50 0.40 0.30 1/99 {pid}\n")

    given(1_000)
    pids = guard_process.Pids(str(source))
    begun = pids.begun(900)
    given(2_000)
    pids.look()
    assert pids.lowest(begun) == 900
    assert pids.lowest(pids.begun(2_500)) == 0, "they began again before it was told"
    given(300)
    pids.look()
    given(3_000)
    pids.look()
    assert pids.lowest(begun) == 0
    assert pids.lowest(pids.begun(2_999)) == 2_999
    nobody = guard_process.Pids(str(tmp_path / "missing"))
    begun = nobody.begun(900)
    nobody.look()
    assert nobody.lowest(begun) == 0, "nobody tells"


def test_what_has_not_begun_can_do_so_until_shortly_before_its_lease_ends(tmp_path: Path) -> None:
    guard = Guard()
    with guard.post(steady_s() + 60, 59.5) as post, guard.post(steady_s() + 60) as other:
        way, another = post.way(tmp_path), other.way(tmp_path)
        assert way.samefile(tmp_path)
        assert not post.late
        assert wait_for(lambda: not way.is_symlink())
        assert post.late
        post.until(steady_s() + 90)
        assert post.late, "who may have begun elsewhere does not begin here"
        assert another.samefile(tmp_path)
    assert not another.is_symlink(), "nothing is left"
    guard.close()


def test_what_is_late_before_it_has_a_way_gets_none(tmp_path: Path) -> None:
    guard = Guard()
    with guard.post(steady_s() - 1) as post:
        way = post.way(tmp_path)
        assert wait_for(lambda: not way.is_symlink())
    guard.close()


def test_a_worker_that_dies_leaves_no_ways(tmp_path: Path) -> None:
    guard = Guard()
    ways = [guard.post().way(tmp_path), guard.post(steady_s() + 60).way(tmp_path)]
    guard.close()  # its end of the pipe, as by a death
    assert wait_for(lambda: not any(way.is_symlink() for way in ways))


def test_where_no_link_can_be_made_the_folder_itself_is_the_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(tmp_path / "missing")
    for _ in range(2):
        with guard.post(steady_s() + 60) as post:
            assert post.way(tmp_path) == tmp_path
            assert not post.late
            post.until(steady_s() - 1)
            assert post.late
    assert [record.name for record in caplog.records] == ["stepwell.flows"], "said once"
    guard.close()


def test_where_links_are_not_followed_the_folder_itself_is_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where /tmp is mounted so."""
    guard = Guard(tmp_path)
    symlink_to = Path.symlink_to
    monkeypatch.setattr(Path, "symlink_to", lambda link, _: symlink_to(link, "nowhere"))
    with guard.post() as post:
        assert post.way(tmp_path) == tmp_path
    assert [*tmp_path.iterdir()] == []
    guard.close()


def test_a_way_that_was_shut_stays_so_when_the_attempt_is_over(tmp_path: Path) -> None:
    guard = Guard()
    with guard.post(steady_s() + 60, 60) as post:
        way = post.way(tmp_path)
        assert wait_for(lambda: not way.is_symlink())
        post.until(steady_s() + 120)
    assert post.late
    guard.close()


def test_what_has_begun_goes_on_until_its_lease_ends(tmp_path: Path) -> None:
    guard = Guard()
    with guarded(guard) as (post, process):
        way = post.way(tmp_path)
        post.until(steady_s() + 60)
        short = guard.post(steady_s() + 60, 60)
        other = short.way(tmp_path)
        short.watch(process.pid)
        assert wait_for(lambda: not other.is_symlink())
        time.sleep(0.1)
        assert process.poll() is None
        assert way.is_symlink()
        short.close()
    guard.close()


def test_one_process_guards_a_whole_worker_and_goes_with_it() -> None:
    others = guards()
    guard = Guard()
    assert guards(others) == [], "a worker without steps needs none"
    with guarded(guard), guarded(guard):
        the_guard(others)
    del guard
    assert guards(others) == []
