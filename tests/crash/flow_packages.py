"""The flows of the flow storm: steps that write down when they began, lived and ended, a file for each attempt.

A line of such a file is `WHAT NANOSECONDS PID MARK`; WHAT is start, tick, fail or end. Each line is one write of one
process, which a SIGKILL cannot cut. Whoever a step has started writes into the same file, so it shows who lived longer
than the attempt.
"""

from pathlib import Path

#: Bash, since all of this has to be its own doing: a storm may kill `date` alone, and a line would have no time.
SHELL = """#!/usr/bin/env bash
LC_ALL=C
say() {
  printf '%s %s000 %s %s\\n' "$1" "${EPOCHREALTIME/./}" "$$" "$STEPWELL_GUARD" >> "$STORM_LOG/$CODEX_FLOW_ATTEMPT_ID"
}
sum=0
for ((at = 0; at < ${#CODEX_FLOW_ATTEMPT_ID}; at++)); do
  printf -v code %d "'${CODEX_FLOW_ATTEMPT_ID:at:1}"
  sum=$(((sum * 31 + code) % 1000003))
done
fate=$((sum * 48271 % 65537 % 100))
end() { say end; echo "FLOW_RESULT {\\"status\\":\\"completed\\",\\"message\\":\\"$CODEX_FLOW_ATTEMPT_ID\\"}"; exit 0; }
fail() { say fail; exit "$1"; }
say start
"""
PYTHON = """import json, os, sys, time, zlib
me = os.environ["CODEX_FLOW_ATTEMPT_ID"]
def say(what):
    line = f"{what} {time.time_ns()} {os.getpid()} {os.environ['STEPWELL_GUARD']}\\n"
    fd = os.open(os.path.join(os.environ["STORM_LOG"], me), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, line.encode())
    os.close(fd)
fate = zlib.crc32(me.encode()) % 100
def end(**more):
    say("end")
    print("FLOW_RESULT " + json.dumps({"status": "completed", "message": me, **more}), flush=True)
say("start")
"""
RETRY = "[steps.retry]\nmax_attempts = {}\ninitial_ms = 20\nmax_ms = 200\n"
SLEEPY = """
for _ in range(5 + fate // 4):
    time.sleep(0.02)
    say("tick")
end()
"""
CHAIN = """
end(next=[{"type": "storm.quick", "payload": {"from": me}}])
"""
FAMILY = """
for one in 1 2 3; do (while :; do say tick; sleep 0.03; done) & done
sleep 0.2
[ $fate -ge 20 ] || fail 4
end
"""
STUBBORN = """
trap '' TERM
(trap '' TERM; while :; do say tick; sleep 0.03; done) &
while :; do sleep 0.05; done
"""
#: How many attempts of these may fail before the run does; all others go on until they complete.
DOOMED = {"doomed": 3, "stubborn": 2}
#: name: (runner, script, further keys of the step)
STEPS = {
    "quick": ("command", SHELL + "end\n", RETRY.format(100)),
    "flaky": ("command", SHELL + "sleep 0.05\n[ $fate -ge 40 ] || fail 3\nend\n", RETRY.format(100)),
    "family": ("command", SHELL + FAMILY, RETRY.format(100)),
    "sleepy": ("python", PYTHON + SLEEPY, RETRY.format(100)),
    "chain": ("python", PYTHON + CHAIN, RETRY.format(100)),
    "doomed": ("command", SHELL + "fail 9\n", RETRY.format(DOOMED["doomed"])),
    "stubborn": ("command", SHELL + STUBBORN, "timeout_ms = 400\n" + RETRY.format(DOOMED["stubborn"])),
}


def write_packages(cwd: Path) -> None:
    """One flow for each kind of step, for events of type `storm.KIND`."""
    for name, (runner, script, keys) in STEPS.items():
        root = cwd / "flows" / name
        root.mkdir(parents=True)
        (root / "go").write_text(script)
        (root / "go").chmod(0o755)
        step = f'[[steps]]\nname = "go"\nrunner = "{runner}"\nscript = "go"\nenv = ["STORM_LOG", "STORM_MARK"]\n'
        trigger = f'[steps.trigger]\ntype = "storm.{name}"\n'
        (root / "flow.toml").write_text(f'name = "{name}"\nversion = 1\n{step}{keys}{trigger}')
