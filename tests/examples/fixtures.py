"""Throw-away repositories and stand-ins for the release flows.

An upstream release is never faked: the repositories are made here and named `fixture`, so are tags and events; nothing
reaches a network. `npm`, `npx` and `gh` are small scripts, first on the PATH, that note how they were called.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

TAG, CONFLICTING_TAG = "rust-v0.0.0-fixture.1", "rust-v0.0.0-fixture.2"
VERSION = "0.0.0-fixture.1"
BRANCH = "code-mode-exec-hooks"
STAND_INS = ("npm", "npx", "gh")
HERE = Path(__file__).parent
PACKAGE = "packages/codex-client"
GENERATED = f"{PACKAGE}/src/app-server/generated"
EXAMPLES = HERE.parents[1] / "examples" / "flows"

# Each notes its call. npm answers from the file npm.stdout and fails unless there is one; npx writes bindings.
_NOTE = 'echo "$(basename "$0") $*" >> "$(dirname "$0")/calls.log"\n'
_TRIP = 'here="$(dirname "$0")"\n'
_SCRIPTS = {
    "npm": 'cat "$here/npm.stdout" 2>/dev/null && exit 0\necho "npm error code E404" >&2\nexit 1\n',
    "npx": """while [ "$1" != --out ]; do shift; done
mkdir -p "$2"
printf 'export const protocol = "fixture";\\n' > "$2/protocol.ts"
printf 'export {};\\n' > "$2/made-new.ts"
[ ! -e "$here/npx.sh" ] || . "$here/npx.sh"
""",
    "gh": "exit 0\n",
}


def make_stand_ins(folder: Path) -> Path:
    """The folder with the programs."""
    folder.mkdir()
    for name in STAND_INS:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{_NOTE}{_TRIP}{_SCRIPTS[name]}")
        path.chmod(0o755)
    return folder


def git(repo: Path, *args: str) -> str:
    """What git says, which succeeds. A quiet git of nobody's configuration."""
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_EDITOR": "true"}
    done = subprocess.run(["git", *args], cwd=repo, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (args, done)
    return done.stdout.strip()


def new_repo(path: Path, branch: str = "main") -> Path:
    """An empty repository with an author of its own."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "-b", branch)
    name_author(path)
    return path


def name_author(repo: Path) -> None:
    """Whose commits are made there."""
    for key, value in (("user.name", "Fixture"), ("user.email", "fixture@example.invalid"), ("gc.auto", "0")):
        git(repo, "config", key, value)


def commit(repo: Path, message: str, files: Mapping[str, str]) -> str:
    """A commit of these files; its sha."""
    write(repo, files)
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "-m", message)
    return git(repo, "rev-parse", "HEAD")


def write(repo: Path, files: Mapping[str, str]) -> None:
    """Files by their paths in the repository."""
    for name, text in files.items():
        path = repo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def bare(source: Path, path: Path) -> Path:
    """A bare repository with what `source` has."""
    git(source, "clone", "--quiet", "--bare", str(source), str(path))
    return path


def make_bindings(folder: Path) -> None:
    """`bindings-fixture`, a work tree as that of the bindings, with two remotes beside it."""
    repo = new_repo(folder / "bindings-fixture")
    package = {"name": "@peezy.tech/codex-flows", "version": "0.0.0", "scripts": {"release:check": "true"}}
    scripts = {"check:types": "true", "test": "test ! -e broken"}
    root = {"name": "fixture", "private": True, "workspaces": ["packages/*"], "scripts": scripts}
    files = {
        f"{PACKAGE}/package.json": json.dumps(package, indent="\t") + "\n",
        f"{GENERATED}/protocol.ts": 'export const protocol = "old";\n',
        "package.json": json.dumps(root),
        ".gitignore": "node_modules\n.stepwell\n",
    }
    write(repo, files)
    shutil.copytree(EXAMPLES / "openai-codex-bindings", repo / ".codex/flows/openai-codex-bindings")
    (folder / "home").mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(folder / "home")}
    subprocess.run(["bun", "install", "--silent"], cwd=repo, env=env, check=True, capture_output=True)
    commit(repo, "fixture: bindings", {})
    for name in ("origin", "github"):
        bare(repo, folder / f"{name}-fixture.git")
        git(repo, "remote", "add", name, f"../{name}-fixture.git")


def make_fork(folder: Path) -> None:
    """`codex-fixture`, a fork with two patches; beside it upstream, whose second tag conflicts, and origin."""
    upstream, fork = new_repo(folder / "upstream-fixture"), folder / "codex-fixture"
    lines = "".join(f"line {number}\n" for number in range(9))
    commit(upstream, "fixture: base", {"codex-rs/Cargo.toml": "[workspace]\n", "codex-rs/core.rs": lines})
    bare(upstream, folder / "origin-fixture.git")
    git(folder, "clone", "--quiet", "origin-fixture.git", str(fork))
    git(fork, "remote", "set-url", "origin", "../origin-fixture.git")
    name_author(fork)
    git(fork, "switch", "--quiet", "-c", BRANCH)
    patched = {"codex-rs/core.rs": lines.replace("line 4", "the fork's line 4"), "hooks.txt": "hooks\n"}
    commit(fork, "fixture patch: hooks", patched)
    commit(fork, "fixture patch: more hooks", {"more.txt": "more\n"})
    git(fork, "push", "--quiet", "origin", BRANCH)
    commit(upstream, "fixture: release", {"new.txt": "of upstream\n"})
    git(upstream, "tag", TAG)
    commit(upstream, "fixture: conflict", {"codex-rs/core.rs": lines.replace("line 4", "upstream's line 4")})
    git(upstream, "tag", CONFLICTING_TAG)
    (folder / "home").mkdir()
    write(folder, {"target/debug/codex": "#!/bin/sh\necho codex-cli fixture\n"})
    (folder / "target/debug/codex").chmod(0o755)
