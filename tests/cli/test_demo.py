"""The demo is what a new user sees first: it ends well, and shows what it says."""

import subprocess
from pathlib import Path

import click
import pytest

from stepwell.cli.common import Place, find_place, run_async
from stepwell.cli.demo_approval import RUN, show_approval, unpack_app
from stepwell.model import commands as c
from tests.cli.support import Shop, program
from tests.server.support import ROOT, environ


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return find_place(tmp_path, None, None)


def test_the_demo_shows_a_retry_two_kills_and_what_comes_back(tmp_path: Path) -> None:
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
        "decision = await ctx.wait_for_signal(approval",
        "kill -9 of that worker",
        f"$ stepwell signal {RUN} approval",
        '"Thank you, Grace: Ada has approved order 4712"',
        "its own table: reserved; paid: 4250.00 from Grace.",
        "checked 6 runs",
    ):
        assert text in said, text
    assert said.count("parcel/pack | packed 10 %") == 2, "the step that was killed was tried again from its beginning"
    assert said.count("turn, by worker ") == 2, "the body of the workflow was run by two workers"
    assert "broken" not in said.partition("8. What the doctor says")[2]


@pytest.mark.parametrize("name", ["shop.py", "migrations/0001_booking.sql"])
def test_the_demo_writes_over_nothing(name: str, tmp_path: Path) -> None:
    unpack_app(tmp_path)
    unpack_app(tmp_path)
    (tmp_path / name).write_text("mine")
    said = Shop(tmp_path).refused("demo", "--dir", str(tmp_path))
    assert f"{name} is not, or no longer, the demo's" in said
    assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / "flows").exists()


def test_the_demo_says_so_when_something_was_done_twice(place: Place) -> None:
    source = unpack_app(place.cwd)
    sql = place.cwd / "migrations" / "0001_booking.sql"
    sql.write_text(sql.read_text() + "insert into booking values ('4712', 'reserved');\n")
    (wrong,) = show_approval(place, source, click.echo)
    assert wrong.startswith("its rows are not ")


def test_the_demo_says_so_when_another_answer_comes(place: Place) -> None:
    source = unpack_app(place.cwd)
    source.write_text(source.read_text().replace("Thank you", "Sorry"))
    (wrong,) = show_approval(place, source, click.echo)
    assert wrong.startswith("the run did not end with ")


def test_the_demo_ends_where_a_command_of_it_fails(place: Place) -> None:
    """There is a run of that name already, which is another's."""

    async def start() -> None:
        async with place.open(create=True) as local:
            await local.engine.submit(c.StartRun(id=RUN, name="other", input="{}"))

    run_async(start())
    with pytest.raises(click.ClickException, match="stepwell start ended with 1"):
        show_approval(place, unpack_app(place.cwd), click.echo)
