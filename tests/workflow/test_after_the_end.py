"""What comes after the end of a body moves nothing: tasks that it left behind do the same on every replay."""

from tests.soak.test_replay import checked

#: An action of a task that nobody awaits ends between the body's end and the commit of it.
SEED = 1_040_130_734_988


def test_an_entry_between_the_end_of_a_body_and_its_commit_wakes_nobody() -> None:
    assert checked(SEED, None, [])["crash"] >= 0
