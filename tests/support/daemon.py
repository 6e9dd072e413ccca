"""Programs of others that run beside tests: a server of PostgreSQL, a pooler. They end with who started them."""

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

#: Ends the program when the pipe that this shell reads is closed: also when its owner is killed.
GUARD = '"$@" & program=$!; read -r _; kill -{} $program; wait $program'
START_S = 30.0


class Daemon:
    """One that has started and answers at `conninfo`. What it says goes to `log`; `signal` ends it at once."""

    def __init__(
        self,
        *command: str,
        conninfo: str,
        log: Path,
        signal: str,
        user: str | None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                ["sh", "-c", GUARD.format(signal), "sh", *command],
                stdin=subprocess.PIPE, stdout=out, stderr=out, user=user, env=env, cwd="/", start_new_session=True,
            )  # fmt: skip
        until_it_answers(conninfo, log)

    def end(self) -> None:
        """Ends it, and waits until it has; again is fine."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(START_S)


def until_it_answers(conninfo: str, log: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(conninfo).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > until:
                raise RuntimeError(f"it does not start: {log.read_text(errors='replace')}") from error
            time.sleep(0.02)  # it has no other sign of being ready
        else:
            return
