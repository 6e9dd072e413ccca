"""The fork flow: every outcome of spec codex-flows 6.5, on a fixture repository, for both of the twins."""

import re

import pytest

from tests.examples.fixtures import BRANCH, CONFLICTING_TAG, TAG, VERSION
from tests.examples.support import World, release_event

MESSAGE = f"peezy: codex fork patches for {TAG}"
CONFLICT = release_event(CONFLICTING_TAG)


def test_changed(fork: World) -> None:
    before = fork.git("rev-parse", BRANCH)
    ran = fork.one()
    assert (ran.name, ran.status) == ("peezy-codex-fork/rebase-patch-stack", "changed")
    after, upstream = fork.git("rev-parse", BRANCH), fork.git("rev-parse", TAG)
    assert {key: value for key, value in ran.facts.items() if key != "commands"} == {
        "tag": TAG,
        "version": VERSION,
        "repo": str(fork.repo),
        "branch": BRANCH,
        "beforeSha": before,
        "upstreamSha": upstream,
        "squashed": 2,
        "afterSha": after,
        "binary": str(fork.folder / "target/debug/codex"),
        "binaryVersion": "codex-cli fixture",
        "committed": True,
        "pushed": False,
        "published": False,
    }
    assert fork.git("log", "--format=%P %s", "-1", BRANCH) == f"{upstream} {MESSAGE}"
    assert fork.git("show", "--name-only", "--format=").splitlines() == ["codex-rs/core.rs", "hooks.txt", "more.txt"]
    assert fork.dirty() == ""
    assert fork.git("ls-remote", "origin") == fork.git("ls-remote", "../origin-fixture.git")
    assert fork.git("rev-parse", BRANCH, repo="origin-fixture.git") == before
    assert fork.git("rev-parse", f"refs/stepwell/before/{TAG}") == before


def test_both_twins_run_the_same_commands(fork: World) -> None:
    ran = fork.one()
    names = {"BEFORE": ran.facts["beforeSha"], "TAG": ran.facts["upstreamSha"], "AFTER": ran.facts["afterSha"]}
    text = "\n".join(ran.commands)
    for name, found in {"REPO": str(fork.repo), "HERE": str(fork.folder), **names}.items():
        text = text.replace(found, name)
    assert re.sub("[0-9a-f]{40}", "REBASED", text).splitlines() == COMMANDS


COMMANDS = [
    f"npm view @peezy.tech/codex@{VERSION} version --json",
    "git -C REPO rev-parse --is-inside-work-tree",
    "test -f REPO/codex-rs/Cargo.toml",
    "git rev-parse --git-path rebase-merge",
    "test -d .git/rebase-merge",
    "git rev-parse --git-path rebase-apply",
    "test -d .git/rebase-apply",
    "git symbolic-ref --quiet --short HEAD",
    "git status --porcelain=v1",
    "git remote get-url upstream",
    "git remote add upstream HERE/upstream-fixture",
    "git fetch upstream --tags --prune",
    f"git rev-parse --verify 'refs/tags/{TAG}^{{commit}}'",
    "git rev-parse HEAD",
    f"git rev-parse --verify --quiet refs/stepwell/before/{TAG}",
    "git merge-base --is-ancestor TAG HEAD",
    f"git update-ref refs/stepwell/before/{TAG} BEFORE",
    "git rebase TAG",
    "git rev-parse HEAD",
    "git rev-list --count TAG..HEAD",
    f"git commit-tree 'HEAD^{{tree}}' -p TAG -m '{MESSAGE}'",
    f"git update-ref -m '{MESSAGE}' HEAD AFTER REBASED",
    "test -f Cargo.toml",
    "HERE/target/debug/codex --version",
    "git diff --check",
]


@pytest.mark.parametrize("text", [f'"{VERSION}"\n', f'npm warn old\n[\n  "{VERSION}"\n]\n'])
def test_a_published_version_is_skipped(fork: World, text: str) -> None:
    fork.npm_says(text)
    ran = fork.one()
    assert (ran.status, len(ran.commands)) == ("skipped", 1)


@pytest.mark.parametrize("text", ["", "null\n", f'"{VERSION}0"\n', '{"error": {}}'])
def test_npm_that_names_no_version_has_not_published_it(fork: World, text: str) -> None:
    """Fault 38: exit 0 alone says nothing."""
    fork.npm_says(text)
    assert fork.one().status == "changed"


def test_force_goes_on_for_a_published_version(fork: World) -> None:
    fork.npm_says(f'"{VERSION}"')
    fork.env(CODEX_FLOW_FORCE=" Yes ")
    ran = fork.one()
    assert ran.status == "changed"
    assert not ran.ran("npm")


@pytest.mark.parametrize("tag", ["fixture", "fixture 1.2.3", "--fixture-1.2.3", "fixture-1.2.3'; exit 0 #"])
def test_a_tag_without_a_version_fails(fork: World, tag: str) -> None:
    ran = fork.one(release_event(tag))
    assert ran.status == "failed"
    assert "no version" in ran.result["message"]
    assert fork.calls() == []


@pytest.mark.parametrize("repo", ["", "  ", "codex-fixture"])
def test_no_repository_blocks(fork: World, repo: str) -> None:
    fork.env(PEEZY_CODEX_REPO=repo)
    ran = fork.one()
    assert (ran.status, ran.commands) == ("blocked", [])


def test_a_repository_below_home(fork: World) -> None:
    fork.env(PEEZY_CODEX_REPO="~/../codex-fixture")
    assert fork.one().status == "changed"


def test_what_is_no_repository_fails(fork: World) -> None:
    fork.env(PEEZY_CODEX_REPO=str(fork.folder / "target"))
    assert "is no git work tree" in fork.one().result["message"]


def test_a_repository_of_something_else_fails(fork: World) -> None:
    fork.git("rm", "-q", "codex-rs/Cargo.toml")
    fork.git("commit", "-qm", "fixture: no cargo")
    assert "has no codex-rs/Cargo.toml" in fork.one().result["message"]


def test_a_dirty_tree_blocks(fork: World) -> None:
    (fork.repo / "hooks.txt").write_text("of the user\n")
    ran = fork.one()
    assert (ran.status, ran.facts["dirtyStatus"]) == ("blocked", " M hooks.txt")
    assert (fork.repo / "hooks.txt").read_text() == "of the user\n"


def test_another_branch_is_left_for_the_right_one(fork: World) -> None:
    fork.git("switch", "-q", "main")
    ran = fork.one()
    assert ran.status == "changed"
    assert f"git switch {BRANCH}" in ran.commands
    assert fork.git("branch", "--show-current") == BRANCH


def test_another_branch_with_changes_blocks(fork: World) -> None:
    fork.git("switch", "-q", "main")
    (fork.repo / "notes.txt").write_text("of the user\n")
    ran = fork.one()
    assert (ran.status, ran.facts["dirtyStatus"]) == ("blocked", "?? notes.txt")
    assert fork.git("branch", "--show-current") == "main"


def test_the_target_branch_of_the_environment(fork: World) -> None:
    fork.git("branch", "fixture-branch")
    fork.env(PEEZY_CODEX_TARGET_BRANCH="fixture-branch")
    before = fork.git("rev-parse", BRANCH)
    assert fork.one().facts["branch"] == "fixture-branch"
    assert fork.git("rev-parse", BRANCH) == before
    assert fork.git("log", "-1", "--format=%s", "fixture-branch") == MESSAGE


def test_an_unknown_tag_fails_and_changes_nothing(fork: World) -> None:
    before = fork.git("rev-parse", BRANCH)
    ran = fork.one(release_event("rust-v0.0.0-fixture.99"))
    assert (ran.status, fork.git("rev-parse", BRANCH)) == ("failed", before)
    assert "git rev-parse --verify" in ran.result["message"]


def test_a_conflict_needs_intervention_and_is_left_paused(fork: World) -> None:
    ran = fork.one(CONFLICT)
    assert (ran.status, ran.run_status) == ("needs_intervention", "completed")
    conflict = ran.facts["conflict"]
    assert conflict["unmergedFiles"] == ["codex-rs/core.rs"]
    assert "UU codex-rs/core.rs" in conflict["status"]
    assert "the fork's line 4" in conflict["diff"]
    assert "fixture patch: hooks" in conflict["currentPatch"]
    assert str(fork.repo) in conflict["prompt"]
    assert "fixture-release" in conflict["prompt"]
    assert (fork.repo / ".git/rebase-merge").is_dir()

    again = fork.one(CONFLICT)
    assert (again.status, again.facts["conflict"]) == ("blocked", conflict)


def resolve(fork: World) -> None:
    core = fork.repo / "codex-rs/core.rs"
    core.write_text("resolved\n")
    fork.git("add", "codex-rs/core.rs")
    fork.git("rebase", "--continue")


def test_after_the_conflict_was_resolved_the_flow_goes_on(fork: World) -> None:
    before = fork.git("rev-parse", BRANCH)
    assert fork.one(CONFLICT).status == "needs_intervention"
    resolve(fork)
    ran = fork.one(CONFLICT)
    assert (ran.status, ran.facts["beforeSha"], ran.facts["squashed"]) == ("changed", before, 2)


def test_without_squash_each_patch_stays_a_commit(fork: World) -> None:
    fork.env(CODEX_FLOW_SQUASH_PATCH_STACK="false")
    ran = fork.one()
    assert "squashed" not in ran.facts
    subjects = fork.git("log", "--format=%s", f"{TAG}..{BRANCH}").splitlines()
    assert subjects == ["fixture patch: more hooks", "fixture patch: hooks"]


def test_a_failed_check_fails_with_both_commits_and_the_next_run_goes_on(fork: World) -> None:
    before = fork.git("rev-parse", BRANCH)
    fork.configure(fork.cwd / ".codex/flows/peezy-codex-fork", checks=[["test", "-e", "../../fixed"]])
    ran = fork.one()
    assert (ran.status, ran.run_status, ran.facts["beforeSha"]) == ("failed", "failed", before)
    assert ran.facts["afterSha"] == fork.git("rev-parse", BRANCH)
    assert "test -e ../../fixed ended with 1" in ran.result["message"]
    (fork.folder / "fixed").touch()
    again = fork.one()
    assert (again.status, again.facts["beforeSha"]) == ("changed", before)
    assert again.facts["afterSha"] == ran.facts["afterSha"]


def test_what_a_check_says_is_kept_to_its_end_without_secrets(fork: World) -> None:
    script = "import sys; print('x' * 9000 + ' ghp_0123456789abcdef https://me:pw@fixture.invalid/'); sys.exit(3)"
    fork.configure(fork.cwd / ".codex/flows/peezy-codex-fork", checks=[["python3", "-c", script]])
    ran = fork.one()
    said = ran.facts["commands"][-1]["stdout"]
    assert len(said) == 4_000
    assert said.startswith("…xxx")
    assert said.endswith("x *** https://***@fixture.invalid/\n")


def test_a_check_that_is_not_there_fails(fork: World) -> None:
    fork.configure(fork.cwd / ".codex/flows/peezy-codex-fork", checks=[["fixture-program"]])
    assert fork.one().result["message"] == "fixture-program ended with 127"


def test_checks_of_a_wrong_shape_fail_before_anything_is_done(fork: World) -> None:
    fork.configure(fork.cwd / ".codex/flows/peezy-codex-fork", checks=["cargo build"])
    ran = fork.one()
    assert (ran.status, ran.commands) == ("failed", [])


def test_push_replaces_the_branch(fork: World) -> None:
    fork.env(CODEX_FLOW_PUSH="1")
    ran = fork.one()
    assert (ran.facts["pushed"], ran.facts["published"]) == (True, False)
    assert fork.git("rev-parse", BRANCH, repo="origin-fixture.git") == ran.facts["afterSha"]
    assert fork.git("tag", repo="origin-fixture.git") == ""


def test_push_does_not_overwrite_what_it_has_not_seen(fork: World) -> None:
    """The lease of `--force-with-lease`: somebody else's work on the remote branch is safe."""
    fork.git("branch", "-f", BRANCH, "main", repo="origin-fixture.git")
    theirs = fork.git("rev-parse", BRANCH, repo="origin-fixture.git")
    fork.env(CODEX_FLOW_PUSH="1")
    assert fork.one().status == "failed"
    assert fork.git("rev-parse", BRANCH, repo="origin-fixture.git") == theirs


def test_publish_puts_the_tag_on_the_remote_once(fork: World) -> None:
    """Upstream's tag may have the same name: it stays as it is here."""
    fork.env(CODEX_FLOW_PUSH="1", CODEX_FLOW_PUBLISH="1")
    upstream = fork.git("rev-parse", TAG, repo="upstream-fixture")
    ran = fork.one()
    assert ran.facts["published"] is True
    origin = "origin-fixture.git"
    assert fork.git("cat-file", "-t", f"refs/tags/rust-v{VERSION}", repo=origin) == "tag"
    assert fork.git("rev-parse", f"refs/tags/rust-v{VERSION}^{{commit}}", repo=origin) == ran.facts["afterSha"]
    assert fork.git("rev-parse", TAG) == upstream
    again = fork.one()
    assert (again.status, again.ran("git mktag")) == ("changed", False)


def test_a_published_tag_is_never_moved(fork: World) -> None:
    fork.git("tag", f"rust-v{VERSION}", "main", repo="origin-fixture.git")
    fork.env(CODEX_FLOW_PUBLISH="1")
    ran = fork.one()
    assert ran.status == "failed"
    assert "already, for another commit" in ran.result["message"]


@pytest.mark.parametrize(("value", "pushed"), [("", True), (" ", True), ("off", False), ("1", True)])
def test_a_variable_beats_the_config_unless_it_is_empty(fork: World, value: str, pushed: bool) -> None:
    """Fault 38 of both flows: an empty value is unset."""
    fork.configure(fork.cwd / ".codex/flows/peezy-codex-fork", push=True)
    fork.env(CODEX_FLOW_PUSH=value)
    assert fork.one().facts["pushed"] is pushed


def test_commit_off_tries_on_a_branch_of_its_own(fork: World) -> None:
    """Fault 38: without CODEX_FLOW_COMMIT the fork's branch is not rewritten, and nothing leaves the machine."""
    before = fork.git("rev-parse", BRANCH)
    fork.env(CODEX_FLOW_COMMIT="0", CODEX_FLOW_PUSH="1", CODEX_FLOW_PUBLISH="1")
    for _ in range(2):
        ran = fork.one()
        assert ran.status == "changed"
        assert [ran.facts[key] for key in ("committed", "pushed", "published")] == [False] * 3
        assert fork.git("rev-parse", BRANCH) == before
        assert fork.git("branch", "--show-current") == BRANCH
        assert fork.git("rev-parse", f"stepwell/{TAG}") == ran.facts["afterSha"]
    assert fork.git("rev-parse", BRANCH, repo="origin-fixture.git") == before


def test_commit_off_takes_a_resolved_conflict_up_again(fork: World) -> None:
    before = fork.git("rev-parse", BRANCH)
    fork.env(CODEX_FLOW_COMMIT="0")
    assert fork.one(CONFLICT).status == "needs_intervention"
    resolve(fork)
    assert fork.one(CONFLICT).status == "changed"
    assert fork.git("rev-parse", BRANCH) == before
    assert fork.git("show", f"stepwell/{CONFLICTING_TAG}:codex-rs/core.rs") == "resolved"


def test_nothing_leaves_the_machine_by_default(fork: World) -> None:
    ran = fork.one()
    assert not [command for command in ran.commands if command.startswith(("git push", "gh "))]
    assert fork.calls() == [f"npm view @peezy.tech/codex@{VERSION} version --json"]
