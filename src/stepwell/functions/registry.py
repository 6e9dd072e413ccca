"""The functions of an app by their paths, several versions of a workflow side by side (source: API, rules 3 and 12)."""

import difflib
from collections.abc import Iterator
from typing import Any

from stepwell.functions.define import Function, Kind, Workflow
from stepwell.model.errors import Invalid, UnknownFunction

MAX_FUNCTIONS = 10_000
#: How many names a hint lists.
NAMED = 10
AnyFunction = Function[Any, Any]
AnyWorkflow = Workflow[Any, Any]


class Registry:
    """Functions by path. One that is included tells of what is registered in it later, too."""

    def __init__(self) -> None:
        self._functions: dict[str, AnyFunction] = {}
        self._versions: dict[str, dict[str, AnyWorkflow]] = {}
        self._listeners: list[Registry] = []

    def __iter__(self) -> Iterator[AnyFunction]:
        """All functions, and all versions of each workflow, in the order of registration."""
        for path, function in list(self._functions.items()):
            if function.kind == "workflow":
                yield from list(self._versions[path].values())
            else:
                yield function

    def __len__(self) -> int:
        return len(self._functions)

    def register(self, function: AnyFunction) -> None:
        """Adds one. Raises Invalid for a path, or a version of a workflow, that another function has."""
        there = self._there(function)
        if there is function:
            return
        if there is not None:
            raise _taken(function, there)
        if len(self._functions) >= MAX_FUNCTIONS:
            raise Invalid(f"an app has at most {MAX_FUNCTIONS:,} functions", hint="Are functions made in a loop?")
        if isinstance(function, Workflow):
            self._versions.setdefault(function.path, {})[function.version] = function
        self._functions[function.path] = function
        for listener in self._listeners:
            listener.register(function)

    def include(self, other: "Registry") -> None:
        """Adds all functions of another registry, now and later."""
        if other is self or self in other._listeners:
            return
        for function in other:
            self.register(function)
        other._listeners.append(self)

    def find(self, path: str) -> AnyFunction | None:
        """The function of a path, or of a bare name that only one workflow has; of a workflow the newest version."""
        found = self._functions.get(path)
        if found is not None or ":" in path:
            return found
        named = [one for one in self.of("workflow") if one.path.rpartition(":")[2] == path]
        return self._functions[named[0].path] if len({one.path for one in named}) == 1 else None

    def get(self, path: str) -> AnyFunction:
        """As `find`. Raises UnknownFunction."""
        found = self.find(path)
        if found is None:
            raise self._unknown(path, "function", list(self._functions))
        return found

    def workflow(self, name: str, version: str | None = None) -> AnyWorkflow:
        """A workflow: the very version if it is there, else the newest that was registered. Raises UnknownFunction."""
        found = self.find(name)
        if not isinstance(found, Workflow):
            raise self._unknown(name, "workflow", list(self._versions))
        return found if version is None else self._versions[found.path].get(version, found)

    def of(self, kind: Kind) -> list[AnyFunction]:
        """All functions of a kind."""
        return [function for function in self if function.kind == kind]

    def check(self) -> None:
        """Resolves all annotations. Raises Invalid for one that names nothing."""
        for function in self:
            function.signature.check()

    def _there(self, function: AnyFunction) -> AnyFunction | None:
        there = self._functions.get(function.path)
        if isinstance(function, Workflow) and isinstance(there, Workflow):
            return self._versions[function.path].get(function.version)
        return there

    def _unknown(self, name: str, what: str, names: list[str]) -> UnknownFunction:
        near = difflib.get_close_matches(name, names, NAMED) or sorted(names)[:NAMED]
        more = f" and {len(names) - len(near)} more" if len(names) > len(near) else ""
        hint = f"There is {', '.join(near)}{more}." if near else "Nothing is registered here."
        return UnknownFunction(f"no {what} {name!r:.200}", hint=hint, name=name)


def _taken(function: AnyFunction, there: AnyFunction) -> Invalid:
    return Invalid(
        f"{function!r} is there already: {_place(there)} and {_place(function)}",
        hint="Rename one of them; for another version of a workflow give version='2'.",
    )


def _place(function: AnyFunction) -> str:
    code: Any = getattr(function.fn, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function.fn)
