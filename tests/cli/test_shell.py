"""What a shell wants: quick help, completion, pipes that end early, outputs that are closed or full."""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.support import OK, PATIENCE_S, Shop, flow, on_terminal, program, shell_environ, write_event
from tests.server.support import environ, store_of

#: What `stepwell --help` may take, on a machine that starts Python in 20 ms as those of the budget do (DESIGN 10).
BUDGET_S, USUAL_PYTHON_S = 0.2, 0.02
#: What makes a start slow, and is not needed before a command is known.
HEAVY = ["msgspec", "asyncio", "uvicorn", "starlette", "uvloop", "sqlite3", "jsonschema_rs", "h11", "httptools", "ssl"]
COMMANDS = ["serve", "worker", "start", "signal", "flow", "events", "runs", "pools", "doctor", "db", "import", "smoke",
            "demo", "completion"]  # fmt: skip


def seconds(*command: str) -> float:
    """How long a command takes: the median of 7."""

    def once() -> float:
        started = time.perf_counter()
        subprocess.run(command, env=environ(), stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - started

    once()
    return statistics.median(once() for _ in range(7))


def test_help_is_there_at_once() -> None:
    """A machine that is slow or busy starts a bare Python as much later, and is granted the same factor."""
    bare = seconds(sys.executable, "-c", "pass")
    helped = seconds(program(), "--help")
    assert helped <= BUDGET_S * max(1.0, bare / USUAL_PYTHON_S), f"{helped * 1e3:.0f} ms, python: {bare * 1e3:.0f} ms"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from stepwell.cli.main import cli; import json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=environ(), capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)


@pytest.mark.parametrize(
    "args", [[], *([name] for name in COMMANDS), ["flow", "fire"], ["flow", "check"], ["pools", "set"]]
)
def test_every_command_has_help(seen: Shop, args: list[str]) -> None:
    text = seen.ok(*args, "-h")
    assert text.startswith("Usage: ")
    if not args:
        assert text == seen.ok("--help")
        lines = [line.split() for line in text.partition("Commands:")[2].splitlines() if line]
        assert [line[0] for line in lines] == COMMANDS
        assert all(len(line) > 3 for line in lines)


def test_version(seen: Shop) -> None:
    assert seen.ok("--version").startswith("stepwell ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(seen: Shop, shell: str) -> None:
    text = seen.ok("completion", shell)
    assert "_STEPWELL_COMPLETE" in text
    assert f"{shell}_complete" in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("stepwell ru", {"runs"}),
        ("stepwell ", set(COMMANDS)),
        ("stepwell runs re", {"result", "retry"}),
        ("stepwell flow n", {"new"}),
        ("stepwell events di", {"dispatch"}),
        ("stepwell runs list --sta", {"--status"}),
        ("stepwell runs list --status fa", {"failed"}),
        ("stepwell completion z", {"zsh"}),
    ],
)
def test_bash_completes(tmp_path: Path, line: str, words: set[str]) -> None:
    assert completed(tmp_path, line) == words


def completed(cwd: Path, line: str) -> set[str]:
    """As bash does it: the script is evaluated, and its function is called with the words of a line."""
    script = f"""
        eval "$(stepwell completion bash)"
        complete -p stepwell > /dev/null || exit 9
        COMP_LINE={line!r}
        read -ra COMP_WORDS <<< "$COMP_LINE"
        [[ "$COMP_LINE" == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _stepwell_completion stepwell "${{COMP_WORDS[COMP_CWORD]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=shell_environ(**store_of(cwd)),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return set(done.stdout.split())


def test_bash_completes_what_has_colons_spaces_and_quotes(tmp_path: Path) -> None:
    """In a bash that a person types into: ids of senders are like this, and a colon begins a word there."""
    shop = Shop(tmp_path)
    for event_id in ("patchbay:source:one", "has 'both' of"):
        shop.json("events", "dispatch", "--event", write_event(tmp_path, event_id))
    master, slave = os.openpty()
    process = subprocess.Popen(
        ["bash", "--norc", "-i"], cwd=tmp_path, env=shell_environ(**store_of(tmp_path), TERM="dumb", PS1="$ "),
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    typed = (
        b'eval "$(stepwell completion bash)"\n',
        b"stepwell events show patchbay:s\t\n",
        b"stepwell events show has\t\n",
    )
    said = b""
    for line in typed:
        os.write(master, line)
    os.write(master, b"exit\n")
    with contextlib.suppress(OSError):  # that is how the end of a terminal reads
        while piece := os.read(master, 65_536):
            said += piece
    os.close(master)
    process.wait(PATIENCE_S)
    for event_id in ("patchbay:source:one", "has 'both' of"):
        assert f"{event_id}  demo".encode() in said


def test_bash_completes_ids_and_names(tmp_path: Path) -> None:
    """From the database and the folder that the line names; where there is none, nothing and no complaint."""
    flow(tmp_path, "greet", steps={"one": OK, "two": OK}, type_="greeting.asked")
    shop = Shop(tmp_path)
    first, second = (one["runId"] for one in shop.fire("ev-1", type_="greeting.asked"))
    shop.ok("pools", "set", "slow", "--limit", "1")
    for line, words in (
        ("stepwell runs show run", {first, second}),
        ("stepwell runs watch " + first + " " + second[:-1], {second}),
        ("stepwell events show ev", {"ev-1"}),
        ("stepwell events list --type gr", {"greeting.asked"}),
        ("stepwell runs list --name greet/o", {"greet/one"}),
        ("stepwell events replay ev-1 --flow g", {"greet"}),
        ("stepwell events replay ev-1 --step greet/", {"greet/one", "greet/two"}),
        ("stepwell flow run g", {"greet"}),
        ("stepwell flow run greet t", {"two"}),
        ("stepwell pools pause s", {"slow"}),
        ("stepwell runs show --db nowhere/x.sqlite run", set()),
    ):
        assert completed(tmp_path, line) == words, line
    assert not (tmp_path / "nowhere").exists()


def shell(cwd: Path, line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, which ends as its first command does."""
    command, env = ["bash", "--norc", "-c", f"set -o pipefail; {line}"], shell_environ(**store_of(cwd))
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)


def typed(cwd: Path, *args: str, stdin: str = "", **env: str) -> tuple[int, str]:
    """A command on a terminal, in a folder with its database."""
    return on_terminal([program(), *args], cwd, stdin=stdin, **store_of(cwd), **env)


@pytest.mark.parametrize("command", ["runs list --no-json", "events list --json", "--help"])
def test_a_pipe_that_ends_early_is_no_trouble(seen: Shop, command: str) -> None:
    assert shell(seen.cwd, f"stepwell {command} | head -c 1").stderr == ""
    assert shell(seen.cwd, f"stepwell {command} | true").stderr == ""


def test_a_pipe_that_ends_early_under_a_lot_of_text(tmp_path: Path) -> None:
    flow(tmp_path, steps={"go": f"head -c 300000 /dev/zero | tr '\\0' 'x' | fold -w 100; {OK}"})
    shop = Shop(tmp_path)
    (result,) = shop.fire()
    for command in (
        f"runs show {result['runId']}",
        f"runs show {result['runId']} --json",
        f"runs watch {result['runId']} --no-json",
        f"runs watch {result['runId']}",
    ):
        done = shell(tmp_path, f"stepwell {command} | head -n 2")
        assert (len(done.stdout.splitlines()), done.stderr) == (2, "")


def test_an_output_that_is_full_is_told(seen: Shop) -> None:
    done = shell(seen.cwd, "stepwell runs list --json > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error: [Errno 28] No space left on device")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_not_taken_for_a_file(seen: Shop, closed: str) -> None:
    """Else the database would be opened as the standard output, and be written over by what is printed."""
    done = shell(seen.cwd, f"stepwell runs list {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert seen.json("doctor")["ok"]


def test_colours_are_for_terminals(seen: Shop) -> None:
    assert "\x1b[" not in seen.text("runs", "list")
    code, text = typed(seen.cwd, "runs", "list")
    assert code == 0
    assert "\x1b[1mRUN" in text
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in typed(seen.cwd, "runs", "list", **plain)[1]


def test_a_terminal_gets_text_and_a_pipe_gets_json(seen: Shop) -> None:
    for command, key in (("runs", "runs"), ("events", "events"), ("flow", "flows"), ("pools", "pools")):
        assert key in json.loads(seen.ok(command, "list"))
        assert not typed(seen.cwd, command, "list")[1].startswith("{")
        assert key in json.loads(typed(seen.cwd, command, "list", "--json")[1])


def test_a_terminal_is_shown_how_things_stand_while_it_waits(tmp_path: Path) -> None:
    """One line that is written over, never left behind; and lines that stay."""
    flow(tmp_path, steps={"go": f"echo started; sleep 1.6; {OK}"})
    code, text = typed(tmp_path, "flow", "fire", "--event", "-", stdin='{"type":"demo"}', NO_COLOR="1")
    assert code == 0, text
    *lines, last, end = text.split("\n")
    stands, wiped, told = last.split("\r")
    assert stands.startswith("demo/go: attempt 1 runs at ")
    assert (wiped, told, end) == (" " * len(stands), "demo/go completed", "")
    *waited, running, started = lines[1:]
    assert waited in ([], ["demo/go queued"]), "it may run before it is looked at"
    assert (running, started) == ("demo/go running", "demo/go | started")
    assert "\r" not in Shop(tmp_path).text("flow", "fire", "--event", "-", stdin='{"type":"demo"}')


def test_ctrl_c_on_a_terminal_begins_a_line(tmp_path: Path) -> None:
    """The cursor stands behind the status line and the terminal's own ^C."""
    flow(tmp_path, steps={"go": "sleep 60"})
    master, slave = os.openpty()
    command = [program(), "flow", "fire", "--event", write_event(tmp_path)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=shell_environ(**store_of(tmp_path), TERM="xterm", NO_COLOR="1"), stdout=slave,
        stderr=slave, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    os.close(slave)
    said = b""
    with contextlib.suppress(OSError):  # that is how the end of a terminal reads
        while piece := os.read(master, 65_536):
            said += piece
            if b"attempt 1 runs at" in piece:
                process.send_signal(signal.SIGINT)
    os.close(master)
    assert process.wait(PATIENCE_S) == 130
    *_, stands, told, end = said.decode().split("\r\n")
    assert stands.startswith("demo/go: attempt 1 runs at")
    assert (told, end) == ("interrupted", "")
