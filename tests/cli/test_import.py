"""`stepwell import codex-flow-systemd-local DIR`, as a command."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.support import Shop
from tests.flows.originals import OriginalFile, fill, run_id
from tests.server.support import database, lawful, serving

DAY_MS = 86_400_000
TAKE = ("import", "codex-flow-systemd-local", "data")


@pytest.fixture
def file(shop: Shop) -> Iterator[OriginalFile]:
    with closing(OriginalFile(shop.cwd / "data", at_ms=time.time_ns() // 1_000_000 - DAY_MS)) as made:
        fill(made)
        yield made


@pytest.mark.stores("sqlite")
def test_a_trial_and_then_the_import(shop: Shop, file: OriginalFile) -> None:
    expected = {
        "dryRun": True, "events": 11, "runs": 14, "lost": 2, "present": 0, "dropped": {"events": 0, "runs": 0},
        "refusals": 0, "refused": [],
    }  # fmt: skip
    assert shop.json(*TAKE, "--dry-run") == expected
    assert not database(shop.cwd).exists()
    assert shop.json(*TAKE) == {**expected, "dryRun": False}
    again = {**expected, "events": 0, "runs": 0, "lost": 0, "present": 11}
    assert shop.json(*TAKE, "--dry-run") == again
    assert shop.json(*TAKE) == {**again, "dryRun": False}
    assert shop.json("doctor")["ok"]
    text = shop.ok(*TAKE, "--no-json", "--data-dir", "other")
    assert text == "took over 11 events with 14 runs, 2 of them lost\n"


def test_what_is_refused_is_named_and_ends_with_1(shop: Shop, file: OriginalFile) -> None:
    file.event("bad \x1b[2J")
    file.db.execute("update flow_events set raw_json = '{' where id like 'bad%'")
    found = shop.json(*TAKE, code=1)
    assert (found["events"], found["refusals"]) == (11, 1)
    assert found["refused"][0]["id"] == "bad \x1b[2J"
    text = shop.ok(*TAKE, "--no-json", code=1)
    assert "refused event bad" in text
    assert "\x1b" not in text


def test_old_ones_need_a_longer_retention(shop: Shop, file: OriginalFile) -> None:
    file.at_ms -= 50 * DAY_MS
    file.event("old")
    refusal = shop.refused(*TAKE)
    assert "STEPWELL_EVENT_RETENTION_DAYS to 51" in refusal
    assert not database(shop.cwd).exists()
    assert shop.json(*TAKE, "--drop-old")["dropped"] == {"events": 1, "runs": 0}
    assert shop.json(*TAKE, STEPWELL_EVENT_RETENTION_DAYS="51")["events"] == 1


def test_a_server_goes_on_with_what_was_taken_over(shop: Shop, file: OriginalFile) -> None:
    """Also while it runs: a redelivery gets the old runs, a replay and a retry run again."""
    with serving(shop.cwd) as server:
        assert shop.json(*TAKE)["events"] == 11
        sent = server.send("50%#x", {"id": "50%#x"})
        assert (sent["status"], sent["runIds"]) == ("duplicate", [run_id("50%#x", "demo", "go")])
        old = server.get(f"/runs/{sent['runIds'][0]}")["run"]
        assert (old["status"], old["resultJson"]) == (
            "completed", '{"flow":"demo","step":"go","result":{"status":"completed"}}',
        )  # fmt: skip
        answer = server.ask("POST", "/events/50%25%23x/replay", b"{}")
        assert answer.status == 202
        assert server.ended(answer.json()["runIds"][0])["status"] == "completed"
        lost = run_id("stuck", "demo", "go")
        assert server.get(f"/runs/{lost}")["run"]["failure"]["type"] == "lost"
        shop.ok("runs", "retry", lost)
        assert server.ended(lost)["status"] == "completed"
    lawful(shop.cwd)


def test_a_folder_that_is_none(shop: Shop, tmp_path: Path) -> None:
    assert "--data-dir" in shop.refused(*TAKE)
    assert "DIR" in shop.misused("import", "codex-flow-systemd-local")
