"""Real processes: every way in which one may end, or refuse to."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from stepwell.flows.executors.direct import MAX_CHUNK_CHARS, Exit, execute
from stepwell.flows.executors.guard import Guard

from .packages import Said

ENV = {"PATH": os.environ["PATH"]}


def run(code: str, said: Callable[[str, str], None] | None = None, **options: Any) -> Exit:
    """Run Python code as the process."""
    return start([sys.executable, "-u", "-c", code], said, **options)


def start(argv: list[str], said: Callable[[str, str], None] | None = None, **options: Any) -> Exit:
    async def main() -> Exit:
        cancel = asyncio.Event()
        after = options.pop("cancel_after", None)
        if after is not None:
            asyncio.get_running_loop().call_later(after, cancel.set)
        settings: dict[str, Any] = {
            "cwd": "/", "env": ENV, "stdin": b"", "timeout_ms": 20_000, "kill_grace_ms": 200,
            "on_output": said or Said(), "post": Guard().post(),
        }  # fmt: skip
        return await execute(argv, cancel=cancel, **{**settings, **options})

    return asyncio.run(main())


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_streams_input_and_exit_code() -> None:
    said = Said()
    code = "import sys; print(sys.stdin.read()); print('err', file=sys.stderr); sys.exit(3)"
    assert run(code, said, stdin="ü".encode()) == Exit(code=3)
    assert (said.text("stdout"), said.text("stderr")) == ("ü\n", "err\n")


def test_only_the_given_environment() -> None:
    said = Said()
    run("import os; print(sorted(set(os.environ) - {'LC_CTYPE', 'STEPWELL_GUARD'}))", said, env={"A": "b"})
    assert said.text("stdout") == "['A']\n"


def test_output_comes_while_the_process_runs() -> None:
    """Fault 16: output was kept back, and thrown away on success."""
    times: list[float] = []
    run("import time; print('a'); time.sleep(.5); print('b')", lambda *_: times.append(time.monotonic()))
    assert times[-1] - times[0] > 0.4


def test_split_and_broken_utf8() -> None:
    said = Said()
    parts = [b"\xf0\x9f", b"\x98\x80 \xff ", b"\xc3"]
    code = f"import os, time\nfor part in {parts!r}: os.write(1, part); time.sleep(.05)"
    run(code, said)
    assert said.text("stdout") == "\U0001f600 \ufffd \ufffd"


def test_a_flood_is_complete_in_order_and_in_small_pieces() -> None:
    said = Said()
    code = "import sys\nfor n in range(300_000): sys.stdout.write(f'{n}\\n'); n % 1000 or sys.stderr.write(f'{n}\\n')"
    assert run(code.replace("-u", ""), said).code == 0
    assert said.text("stdout") == "".join(f"{n}\n" for n in range(300_000))
    assert said.text("stderr") == "".join(f"{n}\n" for n in range(0, 300_000, 1_000))
    assert max(len(text) for _, text in said.chunks) <= MAX_CHUNK_CHARS


def test_memory_stays_flat_while_a_slow_reader_is_flooded() -> None:
    code = """
import asyncio, resource, sys, time
from stepwell.flows.executors.direct import execute
from stepwell.flows.executors.guard import Guard
seen = 0
def on_output(stream, text):
    global seen
    seen += len(text)
    time.sleep(0.0005)
async def main():
    await execute(["/bin/sh", "-c", "head -c 100000000 /dev/zero"], cwd="/", env={"PATH": "/usr/bin:/bin"}, stdin=b"",
                  timeout_ms=60000, kill_grace_ms=100, on_output=on_output, cancel=asyncio.Event(), post=Guard().post())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
asyncio.run(main())
print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_own_env())
    seen, kib = map(int, answer.stdout.split())
    assert seen == 100_000_000
    assert kib < 10_000


@pytest.mark.parametrize(
    "code", ["pass", "import os, time; os.close(0); time.sleep(.3)", "import sys; sys.stdin.read(1)"]
)
def test_input_that_nobody_reads_is_fine(code: str) -> None:
    assert run(code, stdin=b"x" * 3_000_000) == Exit(code=0)


def test_last_words_are_read_when_we_were_busy() -> None:
    """The process is gone before we come to read; what it had written is in the pipe."""
    said = Said()

    def slow(stream: str, text: str) -> None:
        said(stream, text)
        time.sleep(0.3 if text == "a" else 0)

    assert run("import os, time; os.write(1, b'a'); time.sleep(.1); os.write(1, b'b' * 60_000)", slow) == Exit(code=0)
    assert said.text("stdout") == "a" + "b" * 60_000


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_both_event_loops_leave_nothing_open(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> list[Exit]:
        def one(script: str) -> Any:
            return execute(
                ["sh", "-c", script], cwd="/", env=ENV, stdin=b"x" * 3_000_000, timeout_ms=500, kill_grace_ms=100,
                on_output=Said(), cancel=asyncio.Event(), post=Guard().post(),
            )  # fmt: skip

        return [await one("cat | wc -c; exit 3"), await one("exit 4"), await one("trap '' TERM; sleep 9; sleep 9")]

    with asyncio.Runner(loop_factory=loop) as runner:
        ends = runner.run(main())
    assert ends == [Exit(code=3), Exit(code=4), Exit(code=-9, timed_out=True)]


def test_a_timeout_ends_a_process_that_ignores_term() -> None:
    """Fault 14."""
    said = Said()
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(30)"
    begun = time.monotonic()
    ended = run(code, said, timeout_ms=500, kill_grace_ms=200)
    assert (ended.timed_out, ended.code) == (True, -signal.SIGKILL)
    assert said.text("stdout") == "on\n"
    assert 0.65 < time.monotonic() - begun < 3


def test_a_process_that_heeds_term_may_say_a_last_word_and_is_still_a_timeout() -> None:
    said = Said()
    code = """
import signal, sys, time
def bye(*_):
    time.sleep(.1); print("bye", flush=True); sys.exit(0)
signal.signal(15, bye); print("on", flush=True); time.sleep(30)
"""
    begun = time.monotonic()
    assert run(code, said, timeout_ms=500, kill_grace_ms=10_000) == Exit(code=0, timed_out=True)
    assert said.text("stdout") == "on\nbye\n"
    assert time.monotonic() - begun < 3


GRANDCHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {inner!r}], start_new_session={escapes})
sys.stdout.write(f"{{child.pid}}\\n"); sys.stdout.flush()
{then}
"""
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(30)"


def grandchild(then: str, *, escapes: bool = False) -> str:
    return GRANDCHILD.format(inner=STUBBORN, escapes=escapes, then=then)


@pytest.mark.parametrize("then", ["time.sleep(30)", "time.sleep(.3)"], ids=["waits", "ends"])
def test_grandchildren_that_hold_the_pipes_die_with_the_step(then: str) -> None:
    """Fault 14: at a timeout, and also when the step itself ended well before."""
    said = Said()
    begun = time.monotonic()
    ended = run(grandchild(then), said, timeout_ms=1_000)
    assert time.monotonic() - begun < 4
    assert ended.timed_out == (then == "time.sleep(30)")
    pid = int(said.text("stdout"))
    assert wait_for(lambda: not is_alive(pid))


def test_an_escaped_grandchild_is_not_waited_for_and_goes_soon_after() -> None:
    said = Said()
    begun = time.monotonic()
    assert run(grandchild("print('done')", escapes=True), said) == Exit(code=0)
    assert time.monotonic() - begun < 3
    pid, done = said.text("stdout").split()
    assert done == "done"
    assert wait_for(lambda: not is_alive(int(pid)))


def test_an_escaped_flood_is_cut_off() -> None:
    code = "import subprocess; subprocess.Popen(['sh', '-c', 'sleep 5 & exec timeout 5 yes'], start_new_session=True)"
    begun = time.monotonic()
    assert run(code) == Exit(code=0)
    assert time.monotonic() - begun < 3


def test_cancel_ends_the_group() -> None:
    said = Said()
    begun = time.monotonic()
    ended = run(grandchild("time.sleep(30)"), said, cancel_after=0.5)
    assert (ended.canceled, ended.timed_out, ended.code) == (True, False, -signal.SIGTERM)
    assert time.monotonic() - begun < 3
    assert wait_for(lambda: not is_alive(int(said.text("stdout"))))


def test_a_cancel_that_came_before_ends_it_at_once() -> None:
    assert run("import time; time.sleep(30)", cancel_after=0).canceled


def test_when_our_task_is_canceled_the_process_goes_too() -> None:
    said = Said()

    async def main() -> None:
        begun = asyncio.Event()

        def on_output(stream: str, text: str) -> None:
            said(stream, text)
            begun.set()

        argv = [sys.executable, "-u", "-c", "import os, time; print(os.getpid()); time.sleep(30)"]
        task = asyncio.ensure_future(
            execute(
                argv, cwd="/", env=ENV, stdin=b"", timeout_ms=20_000, kill_grace_ms=1, on_output=on_output,
                cancel=asyncio.Event(), post=Guard().post(),
            )
        )  # fmt: skip
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_alive(int(said.text("stdout")))

    asyncio.run(main())


def test_what_on_output_raises_ends_the_process_and_is_raised() -> None:
    def refuse(stream: str, text: str) -> None:
        raise RuntimeError("no more")

    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="no more"):
        run("import time; print(1); time.sleep(30)", refuse)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("argv", "options", "reason"),
    [
        (["/no/such/program"], {}, "cannot start /no/such/program: No such file or directory"),
        (["/dev/null"], {}, "cannot start /dev/null: Permission denied"),
        (["true"], {"cwd": "/no/such/dir"}, "the working directory /no/such/dir does not exist"),
        (["true", "a\x00b"], {}, "embedded null byte"),
        (["true"], {"env": {"A": "\x00"}}, "embedded null byte"),
        (["true", "x" * 5_000_000], {}, "Argument list too long"),
    ],
)
def test_what_cannot_start_says_why(argv: list[str], options: dict[str, Any], reason: str) -> None:
    ended = start(argv, **options)
    assert ended.code is None
    assert reason in (ended.spawn_error or "")


def _own_env() -> dict[str, str]:
    return {**ENV, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_when_we_are_killed_the_whole_group_dies() -> None:
    """Fault 6: a killed server left its children running. SIGKILL leaves us no time to do anything."""
    code = f"""
import asyncio, sys
from stepwell.flows.executors.direct import execute
from stepwell.flows.executors.guard import Guard
argv = [sys.executable, "-c", {grandchild("time.sleep(30)")!r}]
async def main():
    await execute(argv, cwd="/", env={ENV!r}, stdin=b"", timeout_ms=60000, kill_grace_ms=100,
                  on_output=lambda stream, text: print(text, end="", flush=True), cancel=asyncio.Event(),
                  post=Guard().post())
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=_own_env()) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        group = os.getpgid(pid)
        assert is_alive(group)
        owner.kill()
    assert wait_for(lambda: not is_alive(pid) and not is_alive(group))


def test_we_may_be_killed_before_the_guard_knows_the_group() -> None:
    """Between the start of a step and the line that names its group; and then a process that left the group, too."""
    code = """
import os, subprocess, sys
from stepwell.flows.executors.guard import Guard
guard = Guard()
for script in ("sleep 30", "setsid sleep 30"):
    print(subprocess.Popen(["sh", "-c", "exec " + script], env={**os.environ, **guard.post().environ}).pid, flush=True)
os.kill(os.getpid(), 9)
"""
    owner = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=_own_env(), check=False)
    pids = [int(line) for line in owner.stdout.split()]
    assert len(pids) == 2
    assert wait_for(lambda: not any(map(is_alive, pids)))


def test_a_guard_that_is_dismissed_leaves_the_group_alone() -> None:
    with subprocess.Popen(["sleep", "5"], start_new_session=True) as other:
        guard = Guard()
        post = guard.post()
        post.watch(other.pid)
        post.close()
        post.close()
        guard.close()
        time.sleep(0.1)
        assert other.poll() is None
        other.kill()


def test_nothing_is_left_open() -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    run("pass")
    before = files()
    for _ in range(5):
        run("pass")
        start(["/no/such/program"])
        run(grandchild("print()"), timeout_ms=20_000)
    assert files() == before


def test_many_at_once() -> None:
    async def main() -> list[Exit]:
        def one(code: int) -> Any:
            return execute(
                ["sh", "-c", f"cat >/dev/null; exit {code}"], cwd="/", env=ENV, stdin=b"x" * 100_000, timeout_ms=20_000,
                kill_grace_ms=100, on_output=Said(), cancel=asyncio.Event(), post=Guard().post(),
            )  # fmt: skip

        return [*await asyncio.gather(*map(one, range(40)))]

    assert [ended.code for ended in asyncio.run(main())] == list(range(40))
