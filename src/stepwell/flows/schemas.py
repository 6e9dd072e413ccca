"""Compiled JSON Schemas of packages: 2020-12 unless `$schema` names another draft, `$ref` only inside the package."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema_rs
from msgspec import Struct

from stepwell.flows.jsonvalue import Bounds, canonical_json, parse_json
from stepwell.flows.package import is_inside
from stepwell.model.errors import Invalid, StepwellError

MAX_SCHEMAS = 1_000
MAX_REASONS = 10
MAX_REASON_CHARS = 300
# Collecting errors costs time for each of them, and the library collects all: a large payload gets only its first.
ALL_ERRORS_BYTES = 16 * 1024

_Stamp = tuple[int, int, int, int] | None


class _Compiled(Struct):
    """A validator, or why there is none, and the files that it was made from."""

    stamps: dict[Path, _Stamp]
    validator: jsonschema_rs.Validator | None
    fault: str


class Schemas:
    """Validators by schema file, compiled again when a file behind them changes. Holds `MAX_SCHEMAS` at most."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[Path, Path], _Compiled] = {}

    def check(self, root: Path, schema: str, payload: Any, *, allow_outside: bool = False) -> str:
        """Why `payload` does not fit the schema file (relative to `root`), or why that is broken; empty if it fits."""
        return self.judge(root, schema, payload, allow_outside=allow_outside)[0]

    def judge(self, root: Path, schema: str, payload: Any, *, allow_outside: bool = False) -> tuple[str, bool]:
        """As `check`, and whether the reason is a fault of the schema, which says nothing about the payload."""
        path = root / schema
        if not allow_outside and not is_inside(root, path):
            return f"the schema {schema} leaves the package", True
        compiled = self._compile(root, path)
        if compiled.validator is None:
            return f"the schema {schema} cannot be used: {compiled.fault}", True
        return _reasons(compiled.validator, payload), False

    def _compile(self, root: Path, path: Path) -> _Compiled:
        known = self._compiled.get((root, path))
        if known is None or any(_stamp(file) != stamp for file, stamp in known.stamps.items()):
            if len(self._compiled) >= MAX_SCHEMAS:
                self._compiled.clear()
            known = self._compiled[root, path] = _Loader(root).compile(path)
        return known


class _Loader:
    """Reads one schema and the files that it refers to."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stamps: dict[Path, _Stamp] = {}
        self._refused = ""

    def compile(self, path: Path) -> _Compiled:
        try:
            document = self._read(path)
            uri = path.resolve().as_uri()
            validator = jsonschema_rs.validator_for(document, base_uri=uri, retriever=self._retrieve, mask="value")
        except (OSError, ValueError, StepwellError) as error:
            return _Compiled(self._stamps, None, self._refused or _fault(error))
        return _Compiled(self._stamps, validator, "")

    def _retrieve(self, uri: str) -> Any:
        """Called for each document behind a `$ref`. What it raises comes back as text, so the reason is kept here."""
        parts = urlsplit(uri)
        path = Path(unquote(parts.path))
        if parts.scheme != "file" or parts.netloc or not is_inside(self._root, path):
            self._refused = f"it refers to {uri}, which is outside of the package"
            raise ValueError(self._refused)
        try:
            return self._read(path)
        except (OSError, StepwellError) as error:
            self._refused = f"it refers to {uri}: {_fault(error)}"
            raise ValueError(self._refused) from None

    def _read(self, path: Path) -> Any:
        self._stamps[path] = _stamp(path)
        if not path.is_file():  # a pipe would block, and a missing file is better named than its errno
            raise FileNotFoundError(2, "there is no such file")
        bounds = Bounds()
        with path.open("rb") as file:
            document = parse_json(file.read(bounds.max_bytes + 1), what="the file", bounds=bounds)
        if not isinstance(document, dict | bool):
            raise Invalid("a schema must be a JSON object or a boolean")
        return document


def _reasons(validator: jsonschema_rs.Validator, payload: Any) -> str:
    if validator.is_valid(payload):
        return ""
    if len(canonical_json(payload)) <= ALL_ERRORS_BYTES:
        return _joined(validator.iter_errors(payload))
    try:
        validator.validate(payload)
    except jsonschema_rs.ValidationError as error:
        return _joined(iter([error]))
    return ""


def _joined(errors: Iterator[jsonschema_rs.ValidationError]) -> str:
    reasons = [_reason(error)[:MAX_REASON_CHARS] for error in errors]
    # Missing keys first, as in the seed's reader; the sort is stable.
    reasons.sort(key=lambda reason: not reason.endswith(" is required"))
    more = [f"and {len(reasons) - MAX_REASONS} more"] if len(reasons) > MAX_REASONS else []
    return "; ".join(reasons[:MAX_REASONS] + more)


def _reason(error: jsonschema_rs.ValidationError) -> str:
    """One reason, with the path of the value and without the value: reasons are stored, values may be secret."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    detail = error.kind.as_dict()
    match error.kind.name:
        case "required":
            return f"${path}.{detail['property']} is required"
        case "enum":
            return f"${path} must be one of {', '.join(_plain(option) for option in detail['options'])}"
        case "type":
            return f"${path} must be {' or '.join(detail['types'])}"
        case _:
            return f"${path}: {error.message}"


def _plain(option: Any) -> str:
    return option if isinstance(option, str) else canonical_json(option)


def _fault(error: Exception) -> str:
    if isinstance(error, jsonschema_rs.ValidationError):  # the schema does not fit its own meta-schema
        return _reason(error)[:MAX_REASON_CHARS]
    text = error.strerror if isinstance(error, OSError) else str(error)
    return (text or "unknown reason")[:MAX_REASON_CHARS]


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
