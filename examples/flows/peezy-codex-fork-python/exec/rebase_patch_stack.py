"""Rebases the fork's patch stack onto an upstream release (source: spec codex-flows 6.4, 6.5, fault 38).

The twin of `peezy-codex-fork/exec/rebase-patch-stack.js`: the same rules in the same order. Commands run without a
shell. Any attempt may be killed anywhere: the next one goes on from what git says, never from a memory of its own.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, NoReturn

KEPT_CHARS = 4_000  # of stdout and of stderr, for each command in the artifacts
CONTEXT_CHARS = 20_000  # of the diff and of the patch that conflict
READ_BYTES = 1_000_000  # of what a command says, the last ones
MAX_CHECKS = 30
TRUTHY = {"1", "true", "yes", "on"}
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,199}\Z")
VERSION = re.compile(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?")
SECRETS = (
    (re.compile(r"://[^/\s@]+@"), "://***@"),
    (re.compile(r"\b(?:gh[a-z]_|github_pat_|npm_|sk-)[A-Za-z0-9_-]{10,}"), "***"),
    (re.compile(r"(?i)(authorization:|bearer|_authtoken=)\s*\S+"), r"\1 ***"),
)
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|API_KEY")
QUIET_GIT = {"GIT_EDITOR": "true", "GIT_TERMINAL_PROMPT": "0"}


class Done:
    """How a command ended."""

    def __init__(self, argv: list[str], code: int, stdout: str, stderr: str) -> None:
        self.argv, self.code, self.stdout, self.stderr = argv, code, stdout, stderr

    @property
    def text(self) -> str:
        """Its stdout without the last line's end."""
        return self.stdout.rstrip()


class CommandFailed(Exception):
    """A command that had to succeed."""

    def __init__(self, done: Done) -> None:
        super().__init__(f"{shlex.join(done.argv)} ended with {done.code}")
        self.done = done


class Shell:
    """Runs commands in one folder, and remembers them for the artifacts."""

    def __init__(self, cwd: Path | None = None) -> None:
        self.cwd, self.env = cwd, {**os.environ, **QUIET_GIT}
        self.commands: list[dict[str, Any]] = []

    def look(self, *argv: str, stdin: str = "", cwd: Path | None = None) -> Done:
        """A command that may fail. One that cannot be started ends with 127, as in a shell."""
        say(f"$ {shlex.join(argv)}")
        done = self._execute(list(argv), stdin, cwd or self.cwd)
        kept = {"command": hidden(shlex.join(argv)), "exitCode": done.code}
        kept |= {"stdout": tail(done.stdout, KEPT_CHARS), "stderr": tail(done.stderr, KEPT_CHARS)}
        self.commands.append(kept)
        return done

    def run(self, *argv: str, stdin: str = "", cwd: Path | None = None) -> Done:
        """A command that must succeed. Raises `CommandFailed`."""
        done = self.look(*argv, stdin=stdin, cwd=cwd)
        if done.code != 0:
            raise CommandFailed(done)
        return done

    def _execute(self, argv: list[str], stdin: str, cwd: Path | None) -> Done:
        pipe = subprocess.PIPE
        try:
            given = pipe if stdin else subprocess.DEVNULL
            child = subprocess.Popen(argv, cwd=cwd, env=self.env, stdin=given, stdout=pipe, stderr=pipe)  # noqa: S603
        except (OSError, ValueError) as error:
            return Done(argv, 127, "", str(error))
        with child:
            readers = [Reader(one) for one in (child.stdout, child.stderr) if one is not None]
            if child.stdin is not None:
                child.stdin.write(stdin.encode())
                child.stdin.close()
            stdout, stderr = (reader.text() for reader in readers)
        return Done(argv, child.returncode, stdout, stderr)


class Reader:
    """Reads a pipe to its end, and keeps the last `READ_BYTES`."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._kept = pipe, bytearray()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while chunk := self._pipe.read(65_536):
            self._kept += chunk
            del self._kept[:-READ_BYTES]

    def text(self) -> str:
        """What was said, once the other side is closed."""
        self._thread.join()
        return self._kept.decode(errors="replace")


class Settings:
    """Config and environment as one: a variable that is not empty beats the config."""

    def __init__(self, config: dict[str, Any], environ: dict[str, str]) -> None:
        self._config, self._environ = config, environ
        self.commit, self.force = self.flag("commit", True), self.flag("force", False)
        self.push, self.publish = self.flag("push", False), self.flag("publish", False)
        self.squash = self.flag("squash_patch_stack", True)
        self.package = self.text("package_name")
        self.branch, self.upstream = self.text("target_branch"), self.text("upstream_remote", "upstream")
        self.upstream_url, self.remote = self.text("upstream_repo_url"), self.text("push_remote", "origin")

    def text(self, name: str, default: str = "") -> str:
        """`name`, or what the variable says that `name_env` names."""
        variable = self._config.get(f"{name}_env")
        from_env = self._environ.get(variable, "").strip() if isinstance(variable, str) else ""
        value = from_env or self._config.get(name, default)
        return value.strip() if isinstance(value, str) else default

    def flag(self, name: str, default: bool) -> bool:
        """`CODEX_FLOW_<NAME>`, or the config's `name`."""
        value = self._environ.get(f"CODEX_FLOW_{name.upper()}", "").strip()
        return value.lower() in TRUTHY if value else self._config.get(name, default) is True

    def path(self, name: str) -> str:
        """A path, with `~/` filled in."""
        value = self.text(name)
        return f"{self._environ.get('HOME', '')}{value[1:]}" if value.startswith("~/") else value

    def checks(self) -> list[list[str]]:
        """The commands that verify. Raises `ValueError` for another shape."""
        checks: Any = self._config.get("checks", [])
        if not isinstance(checks, list) or len(checks) > MAX_CHECKS or not all(map(is_command, checks)):
            raise ValueError(f"config.checks must be a list of at most {MAX_CHECKS} commands, each a list of texts")
        return list(checks)


class Release:
    """What the event says: a tag, and the version in it."""

    def __init__(self, payload: Any) -> None:
        tag = payload.get("tag") if isinstance(payload, dict) else None
        found = VERSION.search(tag) if isinstance(tag, str) and TAG.match(tag) else None
        if found is None:
            raise ValueError(f"the event's payload.tag has no version: {tag!r:.100}")
        self.tag, self.version = str(tag), found.group()


class Fork:
    """One attempt. Its methods are the steps of the work, in order; `facts` becomes the artifacts."""

    def __init__(self, flow: dict[str, Any], settings: Settings, shell: Shell) -> None:
        self.event, self.settings, self.shell = flow["event"], settings, shell
        self.facts: dict[str, Any] = {}

    def answer(self) -> NoReturn:
        """All the work, in the order of the spec."""
        try:
            self._prepare()
            self._fetch()
            self._rebase()
            self._squash()
            self._verify()
            self._deliver()
        except (ValueError, CommandFailed) as error:
            self._end("failed", str(error))

    def _end(self, status: str, message: str) -> NoReturn:
        artifacts = {**self.facts, "commands": self.shell.commands}
        print("FLOW_RESULT " + json.dumps({"status": status, "message": hidden(message), "artifacts": artifacts}))
        sys.stdout.flush()
        raise SystemExit(0)

    # ── before anything is changed ───────────────────────────────────────────────────────────────────────────────

    def _prepare(self) -> None:
        settings = self.settings
        self.release = Release(self.event.get("payload"))
        self.checks = settings.checks()
        self.facts |= {"tag": self.release.tag, "version": self.release.version}
        repo = settings.path("codex_repo")
        if not repo.startswith("/"):
            self._end("blocked", "no repository: set PEEZY_CODEX_REPO or config.codex_repo to an absolute path")
        self.facts |= {"repo": repo, "branch": settings.branch}
        if not settings.force and self._published():
            self._end("skipped", f"{settings.package}@{self.release.version} is published")
        self._enter(Path(repo))
        if self._rebasing():
            self.facts["conflict"] = self._conflict()
            self._end("blocked", f"a rebase is under way in {repo}")
        self._switch()

    def _published(self) -> bool:
        """Whether npm knows the version: it must end well, and it must name the version."""
        named = f"{self.settings.package}@{self.release.version}"
        done = self.shell.look("npm", "view", named, "version", "--json")
        if done.code == 127:
            raise CommandFailed(done)
        lines = (re.sub(r"[\s\"',\[\]]", "", line) for line in done.stdout.splitlines())
        return done.code == 0 and self.release.version in lines

    def _enter(self, repo: Path) -> None:
        if self.shell.look("git", "-C", str(repo), "rev-parse", "--is-inside-work-tree").text != "true":
            raise ValueError(f"{repo} is no git work tree")
        required = self.settings.text("required_file", "codex-rs/Cargo.toml")
        if required and self.shell.look("test", "-f", f"{repo}/{required}").code != 0:
            raise ValueError(f"{repo} has no {required}")
        self.repo, self.shell.cwd = repo, repo

    def _rebasing(self) -> bool:
        for name in ("rebase-merge", "rebase-apply"):
            folder = self.shell.run("git", "rev-parse", "--git-path", name).text
            if self.shell.look("test", "-d", folder).code == 0:
                return True
        return False

    def _conflict(self) -> dict[str, Any]:
        """What somebody needs who goes on by hand."""
        status = self.shell.look("git", "status", "--short", "--branch")
        unmerged = self.shell.look("git", "diff", "--name-only", "--diff-filter=U")
        diff, patch = self.shell.look("git", "diff"), self.shell.look("git", "rebase", "--show-current-patch")
        return {
            "status": tail(status.stdout, KEPT_CHARS),
            "unmergedFiles": unmerged.text.splitlines()[:1_000],
            "diff": tail(diff.stdout, CONTEXT_CHARS),
            "currentPatch": tail(patch.stdout, CONTEXT_CHARS),
            "prompt": self._prompt(),
        }

    def _prompt(self) -> str:
        return (
            f"The rebase of {self.settings.branch} onto {self.release.tag} is paused in {self.repo}. "
            "Resolve the unmerged files so that the fork's patch keeps its purpose on the new upstream code, "
            "`git add` them, and run `git rebase --continue` until it ends (`git rebase --abort` gives up). "
            f"Then replay the event {self.event['id']}: the flow goes on with its checks."
        )

    def _switch(self) -> None:
        branch = self.settings.branch
        current = self.shell.look("git", "symbolic-ref", "--quiet", "--short", "HEAD").text
        dirty = self.shell.run("git", "status", "--porcelain=v1").text
        if dirty:
            self.facts["dirtyStatus"] = tail(dirty, KEPT_CHARS)
            self._end("blocked", f"the work tree {self.repo} has changes (on {current or 'no branch'})")
        if current != branch:
            self.shell.run("git", "switch", branch)

    # ── the branch ───────────────────────────────────────────────────────────────────────────────────────────────

    def _fetch(self) -> None:
        settings, tag = self.settings, self.release.tag
        if settings.upstream_url:
            known = self.shell.look("git", "remote", "get-url", settings.upstream).code == 0
            self.shell.run("git", "remote", "set-url" if known else "add", settings.upstream, settings.upstream_url)
        self.shell.run("git", "fetch", settings.upstream, "--tags", "--prune")
        self.base = self.shell.run("git", "rev-parse", "--verify", f"refs/tags/{tag}^{{commit}}").text

    def _rebase(self) -> None:
        before = self._keep_before()
        self.facts |= {"beforeSha": before, "upstreamSha": self.base}
        done = self.shell.look("git", "rebase", self.base)
        if done.code != 0:
            if not self._rebasing():
                raise CommandFailed(done)
            self.facts["conflict"] = self._conflict()
            self._end("needs_intervention", f"the rebase onto {self.release.tag} has conflicts; it is paused")
        self.facts["afterSha"] = self._head()

    def _keep_before(self) -> str:
        """The branch as it was before any attempt, under a ref of its own. Without `commit` its place is taken by a
        branch to try on; one that an attempt has rebased already, perhaps with help, is taken again.
        """
        shell, ref = self.shell, f"refs/stepwell/before/{self.release.tag}"
        head, kept = self._head(), shell.look("git", "rev-parse", "--verify", "--quiet", ref).text
        self.candidate = f"stepwell/{self.release.tag}"
        if self.settings.commit and self._is_rebased("HEAD"):
            return kept or head
        if not self.settings.commit and kept == head and self._is_rebased(self.candidate):
            shell.run("git", "switch", self.candidate)
            return head
        shell.run("git", "update-ref", ref, head)
        if not self.settings.commit:
            shell.run("git", "switch", "-C", self.candidate)
        return head

    def _is_rebased(self, commit: str) -> bool:
        return self.shell.look("git", "merge-base", "--is-ancestor", self.base, commit).code == 0

    def _squash(self) -> None:
        """One commit with the tree of the last, made in one act: no kill can leave half of it."""
        count = int(self.shell.run("git", "rev-list", "--count", f"{self.base}..HEAD").text)
        if self.settings.squash and count > 1:
            message = f"peezy: codex fork patches for {self.release.tag}"
            made = self.shell.run("git", "commit-tree", "HEAD^{tree}", "-p", self.base, "-m", message).text
            self.shell.run("git", "update-ref", "-m", message, "HEAD", made, self.facts["afterSha"])
            self.facts |= {"squashed": count, "afterSha": made}

    def _head(self) -> str:
        return self.shell.run("git", "rev-parse", "HEAD").text

    # ── the checks, and what leaves the machine ──────────────────────────────────────────────────────────────────

    def _verify(self) -> None:
        settings = self.settings
        folder = self.repo / settings.text("checks_dir", "codex-rs")
        target = settings.path("cargo_target_dir") or f"{folder}/target"
        self.shell.env["CARGO_TARGET_DIR"] = target
        words = {"target": target, "package": settings.package, **vars(self.release)}
        binary = filled(settings.text("binary"), words)
        for check in self.checks:
            done = self.shell.run(*(filled(word, words) for word in check), cwd=folder)
            if binary and done.argv[0] == binary:
                self.facts |= {"binary": binary, "binaryVersion": tail(done.text, 200)}

    def _deliver(self) -> NoReturn:
        settings, head = self.settings, self.facts["afterSha"]
        if not settings.commit:
            self.shell.run("git", "switch", settings.branch)
            self.facts |= {"committed": False, "candidate": self.candidate, "pushed": False, "published": False}
            self._end("changed", f"{self.candidate} holds the rebased patches; {settings.branch} was left as it is")
        if settings.push:
            self.shell.run("git", "push", settings.remote, f"HEAD:{settings.branch}", "--force-with-lease")
        if settings.publish:
            self._publish(head)
        self.facts |= {"committed": True, "pushed": settings.push, "published": settings.publish}
        self._end("changed", f"{settings.branch} is rebased onto {self.release.tag}")

    def _publish(self, head: str) -> None:
        """The annotated tag `rust-v<version>`, on the remote only: upstream's tag has the same name here."""
        name, remote = f"rust-v{self.release.version}", self.settings.remote
        there = self.shell.run("git", "ls-remote", remote, f"refs/tags/{name}", f"refs/tags/{name}^{{}}")
        known = re.findall(r"^([0-9a-f]{40,64})\t", there.stdout, re.MULTILINE)
        if known:
            if head not in known:
                raise ValueError(f"the tag {name} is on {remote} already, for another commit")
            return
        tagger = self.shell.run("git", "var", "GIT_COMMITTER_IDENT").text
        message = f"{self.settings.package} {self.release.version}"
        text = f"object {head}\ntype commit\ntag {name}\ntagger {tagger}\n\n{message}\n"
        made = self.shell.run("git", "mktag", stdin=text).text
        self.shell.run("git", "push", remote, f"{made}:refs/tags/{name}")


def is_command(value: Any) -> bool:
    """Whether it is a list of texts, one at least."""
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)


def filled(word: str, words: dict[str, str]) -> str:
    """A word of a check with its places filled in; other braces stay."""
    return re.sub(r"\{(target|package|version|tag)\}", lambda found: words[found.group(1)], word)


def hidden(text: str) -> str:
    """Without what looks like a secret, or is one of this environment."""
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= 8:
            text = text.replace(value, "***")
    return text


def tail(text: str, chars: int) -> str:
    """The end of a text, where commands say what went wrong, without secrets."""
    text = hidden(text)
    return text if len(text) <= chars else "…" + text[1 - chars :]


def say(line: str) -> None:
    """Progress, for who follows the run."""
    print(hidden(line), flush=True)


def main() -> None:
    """Reads the context, works, prints the result."""
    flow = json.load(sys.stdin)["flow"]
    Fork(flow, Settings(flow.get("config") or {}, dict(os.environ)), Shell()).answer()


if __name__ == "__main__":
    main()
