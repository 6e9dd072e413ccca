"""The bindings flow: every outcome of spec codex-flows 6.5, on a fixture repository."""

import pytest

from tests.examples.fixtures import CONFLICTING_TAG, GENERATED, PACKAGE, TAG, VERSION
from tests.examples.support import World, release_event

SUBJECT = f"flow: update codex-flows for openai codex {VERSION}"
MAIN = ("rev-parse", "main")


def test_changed_and_committed(bindings: World) -> None:
    ran = bindings.one()
    assert (ran.status, ran.run_status) == ("changed", "completed")
    facts = {key: ran.facts[key] for key in ("tag", "version", "committed", "pushed", "published")}
    assert facts == {"tag": TAG, "version": VERSION, "committed": True, "pushed": False, "published": False}
    assert bindings.dirty() == ""
    assert bindings.git("log", "-1", "--format=%s") == SUBJECT
    changed = bindings.git("show", "--name-only", "--format=").splitlines()
    made = [f"{PACKAGE}/package.json", f"{GENERATED}/made-new.ts", f"{GENERATED}/protocol.ts"]
    assert [name for name in changed if name != "bun.lock"] == made
    assert f'\n\t"version": "{VERSION}",\n' in (bindings.repo / PACKAGE / "package.json").read_text()


def test_order_of_the_work(bindings: World) -> None:
    ran = bindings.one()
    wanted = [
        f"npm view @peezy.tech/codex-flows@{VERSION} version --json",
        "git status --porcelain=v1",
        f"npx -y @openai/codex@{VERSION} app-server generate-ts --experimental --out {GENERATED}",
        "bun install",
        "bun run --filter @peezy.tech/codex-flows release:check",
        "bun run check:types",
        "bun run test",
        "git diff --check",
    ]
    assert list(dict.fromkeys(command for command in ran.commands if command in wanted)) == wanted
    assert bindings.calls() == [wanted[0], wanted[2]]
    for name in ("origin", "github"):
        assert bindings.git(*MAIN, repo=f"{name}-fixture.git") != bindings.git(*MAIN)


@pytest.mark.parametrize("text", [f'"{VERSION}"\n', f"{VERSION}\n", f'npm warn old\n[\n  "{VERSION}"\n]\n'])
def test_a_published_version_is_skipped(bindings: World, text: str) -> None:
    bindings.npm_says(text)
    ran = bindings.one()
    assert ran.status == "skipped"
    assert ran.commands == [f"npm view @peezy.tech/codex-flows@{VERSION} version --json"]


@pytest.mark.parametrize("text", ["", "null\n", f'"{VERSION}0"\n', '{"error": {}}'])
def test_npm_that_names_no_version_has_not_published_it(bindings: World, text: str) -> None:
    """Fault 38: the text counts as well as the exit code."""
    bindings.npm_says(text)
    assert bindings.one().status == "changed"


def test_force_goes_on_for_a_published_version(bindings: World) -> None:
    bindings.npm_says(f'"{VERSION}"')
    bindings.env(CODEX_FLOW_FORCE=" Yes ")
    ran = bindings.one()
    assert ran.status == "changed"
    assert not ran.ran("npm")


def test_a_dirty_tree_blocks_and_stays_as_it_is(bindings: World) -> None:
    (bindings.repo / PACKAGE / "package.json").write_text("of the user\n")
    ran = bindings.one()
    assert (ran.status, ran.run_status) == ("blocked", "completed")
    assert "package.json" in ran.facts["dirtyStatus"]
    assert (bindings.repo / PACKAGE / "package.json").read_text() == "of the user\n"
    assert len(bindings.calls()) == 1


def test_a_failed_check_leaves_a_clean_tree_and_the_next_run_is_not_blocked(bindings: World) -> None:
    """Fault 38. What was made is kept as a commit aside."""
    bindings.configure(bindings.repo / ".codex/flows/openai-codex-bindings", checks=[["test", "-e", "../fixed"]])
    head = bindings.git("commit", "-qam", "fixture: another check") or bindings.git(*MAIN)
    ran = bindings.one()
    assert (ran.status, ran.run_status) == ("failed", "failed")
    assert "test -e ../fixed ended with 1" in ran.result["message"]
    assert (bindings.dirty(), bindings.git(*MAIN)) == ("", head)
    saved = bindings.git("show", f"{ran.facts['unfinished']}:{GENERATED}/made-new.ts")
    assert saved == "export {};"
    (bindings.folder / "fixed").touch()
    assert bindings.one().status == "changed"


def test_a_failed_generator_is_a_failure(bindings: World) -> None:
    (bindings.stand_ins / "npx.sh").write_text("echo npm_0123456789abcdef https://me:pw@fixture.invalid >&2; exit 3\n")
    ran = bindings.one()
    assert ran.status == "failed"
    last = next(one for one in ran.facts["commands"] if one["command"].startswith("npx"))
    assert (last["exitCode"], last["stderr"]) == (3, "*** https://***@fixture.invalid\n")
    assert bindings.dirty() == ""


def test_only_what_the_run_made_is_set_back(bindings: World) -> None:
    """A file of the user that appears meanwhile stays, and blocks the next run, which says so."""
    (bindings.stand_ins / "npx.sh").write_text("echo mine > notes.txt; exit 1\n")
    assert bindings.one().status == "failed"
    assert bindings.dirty() == "?? notes.txt"
    assert "notes.txt" in bindings.one().facts["dirtyStatus"]
    assert (bindings.repo / "notes.txt").read_text() == "mine\n"


def test_no_difference_is_skipped(bindings: World) -> None:
    assert bindings.one().status == "changed"
    head = bindings.git(*MAIN)
    ran = bindings.one(release_event(event_id="fixture-release-2"))
    assert (ran.status, bindings.git(*MAIN), bindings.dirty()) == ("skipped", head, "")


@pytest.mark.parametrize("flag", ["0", "no", "maybe"])
def test_commit_off_leaves_the_files_to_the_user(bindings: World, flag: str) -> None:
    head = bindings.git(*MAIN)
    bindings.env(CODEX_FLOW_COMMIT=flag, CODEX_FLOW_PUSH="1", CODEX_FLOW_PUBLISH="1")
    ran = bindings.one()
    assert ran.status == "changed"
    assert [ran.facts[key] for key in ("committed", "pushed", "published")] == [False] * 3
    assert bindings.git(*MAIN) == head
    assert "made-new.ts" in bindings.dirty()
    assert bindings.one(release_event(event_id="fixture-release-2")).status == "blocked"
    assert "made-new.ts" in bindings.dirty()


def test_push_and_publish(bindings: World) -> None:
    bindings.env(CODEX_FLOW_PUSH="true", CODEX_FLOW_PUBLISH="ON")
    ran = bindings.one()
    assert [ran.facts[key] for key in ("committed", "pushed", "published")] == [True] * 3
    head = bindings.git(*MAIN)
    assert [bindings.git(*MAIN, repo=f"{name}-fixture.git") for name in ("origin", "github")] == [head, head]
    workflow = "gh workflow run publish.yml --repo peezy-tech/codex-flows -f confirm_package=@peezy.tech/codex-flows"
    assert bindings.calls()[-1] == workflow


def test_push_alone_publishes_nothing(bindings: World) -> None:
    bindings.env(CODEX_FLOW_PUSH="1")
    ran = bindings.one()
    assert (ran.facts["pushed"], ran.facts["published"]) == (True, False)
    assert bindings.git(*MAIN, repo="github-fixture.git") != bindings.git(*MAIN)
    assert not ran.ran("gh")


@pytest.mark.parametrize(("value", "pushed"), [("", True), (" ", True), ("off", False), ("1", True)])
def test_a_variable_beats_the_config_unless_it_is_empty(bindings: World, value: str, pushed: bool) -> None:
    """Fault 38 of both flows: an empty value is unset."""
    bindings.configure(bindings.repo / ".codex/flows/openai-codex-bindings", push=True, checks=[])
    bindings.git("commit", "-qam", "fixture: push by config")
    bindings.env(CODEX_FLOW_PUSH=value)
    assert bindings.one().facts["pushed"] is pushed


def test_a_commit_that_was_not_pushed_is_pushed_later(bindings: World) -> None:
    assert bindings.one().facts["pushed"] is False
    head = bindings.git(*MAIN)
    bindings.env(CODEX_FLOW_PUSH="1")
    ran = bindings.one()
    assert (ran.status, ran.facts["pushed"], bindings.git(*MAIN)) == ("changed", True, head)
    assert bindings.git(*MAIN, repo="origin-fixture.git") == head


def test_a_run_that_is_tried_again_after_its_commit_says_the_same(bindings: World) -> None:
    first, again = bindings.one(), bindings.one()  # one event id in two stores: one run id
    assert (again.status, again.facts["commit"]) == ("changed", first.facts["commit"])


def test_a_refused_push_fails_and_keeps_the_commit(bindings: World) -> None:
    bindings.env(CODEX_FLOW_PUSH="1")
    bindings.git("remote", "set-url", "origin", "https://user:s3cret@localhost:1/fixture.git")
    ran = bindings.one()
    assert (ran.status, bindings.dirty()) == ("failed", "")
    assert bindings.git("log", "-1", "--format=%s") == SUBJECT
    assert "s3cret" not in str(ran.result)


@pytest.mark.parametrize("tag", ["fixture", "fixture 1.2.3", "--fixture-1.2.3"])
def test_a_tag_without_a_version_fails(bindings: World, tag: str) -> None:
    ran = bindings.one(release_event(tag))
    assert ran.status == "failed"
    assert "no version" in ran.result["message"]
    assert bindings.calls() == []


@pytest.mark.parametrize("value", [".", "..", "/tmp/fixture", ".git/hooks", "a/../..", ""])
def test_a_generated_folder_that_is_no_folder_below_the_root_is_refused(bindings: World, value: str) -> None:
    """It is cleaned after a failure: the root would take the user's files with it."""
    bindings.configure(bindings.repo / ".codex/flows/openai-codex-bindings", generated_dir=value)
    assert "config.generated_dir" in bindings.one().result["message"]


def test_another_conflicting_release_follows(bindings: World) -> None:
    """Two releases, one after the other: each is a commit."""
    assert bindings.one().status == "changed"
    assert bindings.one(release_event(CONFLICTING_TAG, "fixture-release-2")).status == "changed"
    assert bindings.git("rev-list", "--count", "HEAD") == "3"
