"""Reading TOML tables key by key, collecting every problem instead of stopping at the first."""

import difflib
import math
from collections.abc import Callable
from typing import Any

from stepwell.flows.jsonvalue import has_control

MAX_NAME_BYTES = 128


class Problems:
    """The list that all tables of one file share."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.hint = ""

    def add(self, key: str, reason: str, hint: str = "") -> None:
        """Note a problem; the first hint that comes with one is kept."""
        self.reasons.append(f"{key}: {reason}")
        self.hint = self.hint or hint


class Table:
    """One TOML table. Each getter names a known key and answers its value, or None after a problem; `close` last."""

    def __init__(self, data: dict[str, Any], where: str, problems: Problems) -> None:
        self._data = data
        self._where = where
        self._known: list[str] = []
        self.problems = problems

    def add(self, key: str, reason: str, hint: str = "") -> None:
        """Note a problem with one key of this table."""
        self.problems.add(f"{self._where}{key}", reason, hint)

    def has(self, key: str) -> bool:
        """Whether the key is there, right or wrong."""
        return key in self._data

    def name(self, key: str, *, required: bool = False, max_bytes: int = MAX_NAME_BYTES) -> str | None:
        """A short text on one line: not blank, no control characters."""
        value = self._get(key, str, "a text", required)
        if value is None:
            return None
        reason = _name_fault(value, max_bytes)
        if reason:
            self.add(key, reason)
        return None if reason else value

    def text(self, key: str, max_bytes: int) -> str | None:
        """A text that may have several lines."""
        value: str | None = self._get(key, str, "a text")
        if value is not None and len(value.encode()) > max_bytes:
            self.add(key, f"is longer than {max_bytes} bytes")
            return None
        return value

    def integer(self, key: str, low: int, high: int, *, required: bool = False) -> int | None:
        """An integer (no float, no boolean) from `low` to `high`."""
        value: int | None = self._get(key, int, "an integer", required)
        return value if value is not None and self._within(key, value, low, high) else None

    def number(self, key: str, low: float, high: float, *, required: bool = False) -> int | float | None:
        """A finite number from `low` to `high`."""
        value: int | float | None = self._get(key, int | float, "a number", required)
        if isinstance(value, float) and not math.isfinite(value):
            self.add(key, "must be finite")
            return None
        return value if value is not None and self._within(key, value, low, high) else None

    def flag(self, key: str, default: bool) -> bool:
        """A boolean."""
        value: bool | None = self._get(key, bool, "true or false")
        return default if value is None else value

    def names(self, key: str) -> tuple[str, ...] | None:
        """An array of texts, each as in `name`; None when the key is absent or wrong."""
        values = self._get(key, list, "an array of texts")
        if values is None:
            return None
        for index, value in enumerate(values):
            reason = _name_fault(value, 4_096) if isinstance(value, str) else "must be a text"
            if reason:
                self.add(f"{key}[{index}]", reason)
                return None
        return tuple(values)

    def raw(self, key: str) -> dict[str, Any] | None:
        """A table with free content."""
        value: dict[str, Any] | None = self._get(key, dict, "a table")
        return value

    def table(self, key: str) -> "Table | None":
        """A table to be read key by key."""
        value = self.raw(key)
        return None if value is None else Table(value, f"{self._where}{key}.", self.problems)

    def tables(self, key: str, limit: int) -> list["Table"]:
        """An array of tables, with one member at least."""
        values = self._get(key, list, "an array of tables", required=True) or []
        if len(values) > limit:
            self.add(key, f"has more than {limit} members")
        found = []
        for index, value in enumerate(values[:limit]):
            if isinstance(value, dict):
                found.append(Table(value, f"{self._where}{key}[{index}].", self.problems))
            else:
                self.add(f"{key}[{index}]", "must be a table")
        return found

    def close(self) -> None:
        """Report the keys that nobody asked for."""
        for key in self._data:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(sorted(self._known))}."
                self.add(_shown(key), f"unknown key. {hint}", hint)

    def _get(self, key: str, kind: Any, wanted: str, required: bool = False) -> Any:
        self._known.append(key)
        value = self._data.get(key)
        if value is None or (required and value == []):
            if required:
                self.add(key, "is required")
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.add(key, f"must be {wanted}, not {_toml_kind(value)}")
            return None
        return value

    def _within(self, key: str, value: float, low: float, high: float) -> bool:
        inside = low <= value <= high
        if not inside:
            self.add(key, f"must be from {low:_} to {high:_}")
        return inside


def plain(value: Any, convert: Callable[[Any], Any]) -> Any:
    """A copy of nested tables and arrays with every leaf passed through `convert`."""
    if isinstance(value, dict):
        return {key: plain(child, convert) for key, child in value.items()}
    if isinstance(value, list):
        return [plain(child, convert) for child in value]
    return convert(value)


def _name_fault(value: str, max_bytes: int) -> str:
    if not value.strip():
        return "must not be empty"
    if has_control(value):
        return "must not have control characters"
    if len(value.encode()) > max_bytes:
        return f"is longer than {max_bytes} bytes"
    return ""


def _shown(key: str) -> str:
    return repr(key)[1:-1][:80]


def _toml_kind(value: object) -> str:
    names = {bool: "a boolean", str: "a text", int: "an integer", float: "a float", dict: "a table", list: "an array"}
    return names.get(type(value), "a date or time")
