"""A folder for each test, and one with runs in it for all tests that only look."""

from pathlib import Path

import pytest

from tests.cli.support import OK, Shop, flow
from tests.support import on_postgres

NASTY = "\x1b[31mred\x1b]0;title\x07 \x9b2J \x7f \u202e back\rover"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A folder with the flow `demo`, whose one step completes."""
    flow(tmp_path, steps={"go": f"echo working; echo badly >&2; {OK}"})
    return Shop(tmp_path)


@pytest.fixture(scope="session")
def seen_on() -> dict[bool, Shop]:
    """What was made for `seen`, on each store."""
    return {}


@pytest.fixture
def seen(seen_on: dict[bool, Shop], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A folder after three events: one completed, one failed, one that is blocked and says terrible things."""
    if on_postgres() not in seen_on:
        seen_on[on_postgres()] = three_events(tmp_path_factory.mktemp("seen"))
    return seen_on[on_postgres()]


def three_events(cwd: Path) -> Shop:
    flow(cwd, "good", {"go": f"echo working; {OK}"}, type_="good")
    flow(cwd, "bad", {"go": "echo broken >&2; exit 3"}, type_="bad")
    escaped = NASTY.encode("unicode_escape").decode().replace("\\x", "\\\\x").replace("\\\\x", "\\x")
    script = f"exec python3 - <<'END'\nprint('{escaped}')\nprint('FLOW_RESULT {{\"status\":\"blocked\"}}')\nEND"
    flow(cwd, "ugly", {"go": script}, type_="ugly")
    shop = Shop(cwd)
    shop.fire("good one", {"n": 1}, type_="good")
    shop.fire("bad one", code=1, type_="bad")
    shop.fire("ugly one", {"text": NASTY}, type_="ugly")
    return shop
