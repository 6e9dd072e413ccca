"""Finding flow packages (source: seed codex-flows; spec 1.2): `.codex/flows` first, then `flows`, the first name wins.

One broken package is reported and blocks no other.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from stepwell.flows.jsonvalue import is_unicode
from stepwell.flows.manifest import MANIFEST, load_flow
from stepwell.flows.package import Flow
from stepwell.model.errors import Invalid

#: Where packages are looked for below the working directory, in order of precedence.
ROOTS = (Path(".codex") / "flows", Path("flows"))
MAX_PACKAGES = 1_000

_Stamp = tuple[int, int, int, int]


class Problem(Struct, frozen=True):
    """A package, or a root, that could not be used, why, and what to do about it."""

    path: Path
    reason: str
    hint: str


class Shadowed(Struct, frozen=True):
    """A good package that is not used, since the package at `by` has the same name and came first."""

    path: Path
    name: str
    by: Path


class Discovery(Struct, frozen=True):
    """What was found, in the order of precedence."""

    flows: tuple[Flow, ...]
    problems: tuple[Problem, ...]
    shadowed: tuple[Shadowed, ...]


class FlowCatalog:
    """Discovers packages again and again, and reads only the manifests that changed.

    A manifest that was refused is read each time: its reason may lie in another file, which has been corrected since.
    """

    def __init__(self) -> None:
        self._flows: dict[Path, tuple[_Stamp, Flow]] = {}

    def discover(self, cwd: Path, roots: Sequence[Path] | None = None) -> Discovery:
        """Look into `roots` (relative ones from `cwd`; None: `ROOTS`). A missing root is empty. Never raises."""
        used: dict[str, Flow] = {}
        problems: list[Problem] = []
        shadowed: list[Shadowed] = []
        for manifest in self._manifests(
            [cwd.absolute() / root for root in (ROOTS if roots is None else roots)], problems
        ):
            flow = self._load(manifest, problems)
            if flow is None:
                continue
            first = used.setdefault(flow.name, flow)
            if first is not flow:
                shadowed.append(Shadowed(flow.root, flow.name, first.root))
        return Discovery(tuple(used.values()), tuple(problems), tuple(shadowed))

    def _manifests(self, roots: Sequence[Path], problems: list[Problem]) -> Iterator[Path]:
        seen: set[Path] = set()
        for root in roots:
            if root not in seen:
                yield from _packages(root, problems)
            seen.add(root)

    def _load(self, manifest: Path, problems: list[Problem]) -> Flow | None:
        if not is_unicode(str(manifest)):  # steps are told where they are, and the store keeps it
            hint = "Rename the folder: its name has bytes that are not UTF-8."
            problems.append(Problem(Path(shown(manifest)), "its path is not valid Unicode", hint))
            return None
        try:
            stamp = _stamp(manifest)
            known = self._flows.get(manifest)
            if known is None or known[0] != stamp:
                known = (stamp, load_flow(manifest))
                self._remember(manifest, known)
            return known[1]
        except Invalid as error:
            reasons = error.fields.get("problems") or [error.message]
            problems.append(Problem(manifest, "; ".join(reasons), error.hint))
        except OSError as error:
            problems.append(_unreadable(manifest, error))
        self._flows.pop(manifest, None)
        return None

    def _remember(self, manifest: Path, known: tuple[_Stamp, Flow]) -> None:
        if len(self._flows) >= 2 * MAX_PACKAGES:  # packages come and go; forgetting costs one parse each
            self._flows.clear()
        self._flows[manifest] = known


def discover(cwd: Path, roots: Sequence[Path] | None = None) -> Discovery:
    """One discovery without a memory; keep a `FlowCatalog` to do it often."""
    return FlowCatalog().discover(cwd, roots)


def _packages(root: Path, problems: list[Problem]) -> Iterator[Path]:
    """The manifests of a root's immediate children that are real directories, in code-unit order."""
    try:
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        problems.append(_unreadable(root, error))
        return
    if len(names) > MAX_PACKAGES:
        hint = "Remove packages, or spread them over several roots."
        problems.append(Problem(root, f"has more than {MAX_PACKAGES} packages; the others are ignored", hint))
    for name in sorted(names, key=_code_units)[:MAX_PACKAGES]:
        manifest = root / name / MANIFEST
        try:
            os.lstat(manifest)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problems.append(Problem(manifest, f"cannot be looked at: {error.strerror}", "Mend its permissions."))
        else:
            yield manifest


def _code_units(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def shown(path: Path) -> str:
    """A path as a text that can be printed and stored, whatever bytes it has."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem(
        path, f"cannot be read: {error.strerror}", "Check that it exists and that its permissions allow reading."
    )
