"""A full disk: everybody is told, nothing is half there, and nothing that was answered is gone.

Two ways to be full that need no rights: no file of the process may grow (RLIMIT_FSIZE: the commit's own write fails, as
with a broken disk), and the database may not (max_page_count: SQLite says SQLITE_FULL while the batch is written).
"""

from contextlib import closing
from pathlib import Path

import pytest

from stepwell.model import commands as c
from stepwell.model.errors import Unavailable
from stepwell.store.sqlite.store import SqliteStore
from tests.crash.support import Puppet, offences

pytestmark = pytest.mark.stores("sqlite")

MOST = 200


def starts(batch: int) -> tuple[c.StartRun, ...]:
    """Runs that commit together."""
    return tuple(c.StartRun(f"b{batch}-{n}", "wf", '"' + "x" * 3_000 + '"') for n in range(3))


def present(path: Path) -> set[str]:
    """The ids of all runs."""
    with closing(SqliteStore(path).reader()) as reader:
        return {run.id for run in reader.scan_runs(limit=100_000)}


@pytest.mark.parametrize("how", ["file size", "pages"])
def test_a_full_disk_is_told_and_loses_nothing(how: str, tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with Puppet(path, roles=True) as puppet:
        acknowledged, refused = fill(puppet, how)
        why = puppet.trouble()
        assert why is not None
        assert ("I/O" if how == "file size" else "full") in why
        others: tuple[c.Command, ...] = (c.Claim("w", "q"), c.Signal("b0-0", "s"), *starts(MOST + 1))
        for command in others:
            reply = puppet.submit(command)[0]
            assert isinstance(reply, Unavailable)
            assert "disk" in reply.hint
        puppet.close()
    assert present(path) == {command.id for batch in acknowledged for command in starts(batch)}
    assert not offences(path)
    goes_on(path, acknowledged, refused)


def fill(puppet: Puppet, how: str) -> tuple[list[int], int]:
    """Sends batches until the disk is full: those that were acknowledged, and the first that was refused."""
    acknowledged = [0]
    assert all(not isinstance(reply, Exception) for reply in puppet.submit(*starts(0)))
    puppet.tell("fill", how)
    for batch in range(1, MOST):
        replies = puppet.submit(*starts(batch))
        told = {type(reply) for reply in replies}
        assert told in ({c.Started}, {Unavailable}), "a batch was answered in part"
        if told == {Unavailable}:
            return acknowledged, batch
        acknowledged.append(batch)
    raise AssertionError("the disk never got full")


def goes_on(path: Path, acknowledged: list[int], refused: int) -> None:
    """There is space again, and a new process."""
    with Puppet(path, roles=True) as puppet:
        assert puppet.trouble() is None
        for batch in acknowledged:
            assert [reply.created for reply in puppet.submit(*starts(batch))] == [False] * 3
        assert [reply.created for reply in puppet.submit(*starts(refused))] == [True] * 3
        assert len(puppet.one(c.Claim("w", "q", limit=1_000)).tasks) == 3 * (len(acknowledged) + 1)
        puppet.close()
    assert not offences(path)
