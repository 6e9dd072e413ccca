"""Check the rules of the house that no other tool knows. Prints `path:line: rule` for each offender.

Usage: house.py [TREE], a git work tree; files that git ignores are not read.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70
SKIPS = {"skip", "skipif", "xfail", "importorskip"}
IGNORE = re.compile(r"#.*\b(type|mypy|pyright): *ignore")
# Locks must install from whichever registry the machine is configured for.
REGISTRY = re.compile(r"\b(pypi|pythonhosted)\.org\b|\bregistry\.(npmjs|yarnpkg)\.[a-z]+")
ADDRESS = re.compile(r"://|\"resolved\"")

Offence = tuple[int, str]


def offences(path: Path, text: str) -> Iterator[Offence]:
    """All offences of one file, as (line, rule). `path` is relative to the tree."""
    yield from matches(REGISTRY, text, "names a package registry")
    if path.parts[0] == "requirements" or path.name == "package-lock.json":
        yield from matches(ADDRESS, text, "a lock holds no addresses")
    if path.suffix == ".py":
        yield from python_offences(path, text)


def matches(pattern: re.Pattern[str], text: str, rule: str) -> Iterator[Offence]:
    return ((n, rule) for n, line in enumerate(text.splitlines(), 1) if pattern.search(line))


def python_offences(path: Path, text: str) -> Iterator[Offence]:
    lines = text.count("\n")
    if path.parts[0] == "src" and lines > MAX_FILE_LINES:
        yield 1, f"{lines} lines, at most {MAX_FILE_LINES}: split it by noun"
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and IGNORE.search(token.string):
            yield token.start[0], "silences the type checker: fix the type"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}"
        elif path.parts[0] == "tests" and isinstance(node, ast.Attribute | ast.ImportFrom) and is_skip(node):
            yield node.lineno, "skips a test: make it run or delete it"


def is_skip(node: ast.Attribute | ast.ImportFrom) -> bool:
    """True for `pytest.skip`, `pytest.mark.xfail` and the like, and for importing their names."""
    if isinstance(node, ast.Attribute):
        return node.attr in SKIPS and ast.unparse(node.value) in {"pytest", "pytest.mark", "mark"}
    return node.module == "pytest" and any(a.name in SKIPS for a in node.names)


def tracked(tree: Path) -> list[Path]:
    """The files of a git work tree, new ones included, relative to it."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    out = subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True).stdout
    return sorted(path for path in map(Path, set(out.split("\0")) - {""}) if (tree / path).is_file())


def main(tree: Path) -> int:
    paths = tracked(tree)
    found = [
        f"{path}:{line}: {rule}"
        for path in paths
        for line, rule in offences(path, (tree / path).read_text(errors="replace"))
    ]
    print(*found, f"house: {len(paths)} files, {len(found)} offences", sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:2])))
