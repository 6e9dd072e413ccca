"""The demo is what a new user sees first: it ends well, and shows what it says."""

import subprocess
from pathlib import Path

from tests.cli.support import program
from tests.server.support import ROOT, environ


def test_the_demo_shows_a_retry_a_kill_and_the_recovery(tmp_path: Path) -> None:
    done = subprocess.run(
        [program(), "demo", "--dir", str(tmp_path)],
        cwd=ROOT,
        env=environ(),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    for text in (
        "customs/declare does not: $.destination is required",
        "parcel/charge-card ! card network: 503",
        "parcel/charge-card | charged 42.5",
        "receipt/write | receipt of 4711: 42.50",
        "kill -9 of the server",
        "told as duplicate",
        "parcel/check-address  completed (needs_intervention)",
    ):
        assert text in said, text
    assert said.count("parcel/pack | packed 10 %") == 2, "the step that was killed was tried again from its beginning"
    assert "broken" not in said.partition("5. What the doctor says")[2]
