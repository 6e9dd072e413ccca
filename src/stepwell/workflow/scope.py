"""Step identity: a path in the tree of tasks, not a counter over the whole run (source: DESIGN §4, Step identity).

The key of a step is `<task>/<task>/<name>#<occurrence>`; the root task has no name. A task has the name that it was
given, or its number among the unnamed tasks of the one that created it. So what is added in one task, or under a name
of its own, shifts nothing elsewhere.
"""

from hashlib import sha256
from zlib import crc32

#: Longer keys keep their end and get a digest: the kernel takes 1,024 bytes.
MAX_KEY_CHARS = 240
_ESCAPES = str.maketrans({code: f"%{code:02X}" for code in (*range(32), 127, *map(ord, "/#~%"))})


def plain(name: str) -> str:
    """A user's name as a part of a key: what separates parts, and what nobody can read, is escaped."""
    if not name.isascii():
        name = name.encode(errors="backslashreplace").decode()  # a lone surrogate cannot be stored
    return name.translate(_ESCAPES) if not name.isalnum() else name


def fitting(key: str) -> str:
    """A key within its bound."""
    if len(key) <= MAX_KEY_CHARS:
        return key
    return f"{key[:40]}..{sha256(key.encode(errors='replace')).hexdigest()[:32]}..{key[-100:]}"


class Scope:
    """Where one task stands: the path of its steps, and what it has numbered so far."""

    __slots__ = ("_futures", "_names", "_unnamed", "born", "hash", "parent", "path")

    def __init__(self, path: str, parent: "Scope | None", order: int) -> None:
        self.path, self.parent = path, parent
        self.born = 0
        self.hash = crc32(f"{parent.path}\0{order}".encode()) if parent is not None else 0
        self._unnamed = self._futures = 0
        self._names: dict[str, int] | None = None

    def child(self) -> "Scope":
        """The scope of a task that this one creates."""
        number, self._unnamed = self._unnamed, self._unnamed + 1
        self.born += 1
        return Scope(f"{self.path}{number}/", self, self.born)

    def rename(self, name: str) -> None:
        """Gives the youngest task of a scope its name, and its number back. Later it is too late: steps have keys."""
        parent = self.parent
        if parent is None or parent.born == 0 or self._names is not None or self.born:
            return
        if self.path == f"{parent.path}{parent._unnamed - 1}/":
            parent._unnamed -= 1
            self.path = parent.named(name)

    def future_hash(self) -> int:
        """The hash of a future without a key. Versions of asyncio make more or fewer of them, so it must depend on the
        task alone."""
        self._futures += 1
        return self.hash + self._futures * 0x9E3779B1 & 0xFFFFFFFF

    def named(self, name: str) -> str:
        """The path of a child task with a name; the second of a name gets a number."""
        name = plain(name)
        if name.isdigit():
            name = "=" + name
        number = self._count("/" + name)
        return f"{self.path}{name}/" if number == 0 else f"{self.path}{name}~{number}/"

    def key(self, name: str) -> str:
        """The key of the next step of a name, which is `plain`."""
        return fitting(f"{self.path}{name}#{self._count(name)}")

    def _count(self, name: str) -> int:
        names = self._names
        if names is None:
            names = self._names = {}
        number = names.get(name, 0)
        names[name] = number + 1
        return number
