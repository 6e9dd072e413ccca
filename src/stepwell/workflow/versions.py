"""Which code a process has: what a run is held by when its journal does not fit, and what lets it go on later."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stepwell.functions.define import Function

#: How the code is named in the last line of a mismatch.
MARK = "  code      "


def code_digest(functions: Iterable[Function[Any, Any]]) -> str:
    """A short hash of the files that an app's functions stand in; where there is no file, of their byte code."""
    digest = hashlib.sha256()
    for source in sorted({_source(function.fn) for function in functions}):
        digest.update(hashlib.sha256(source).digest())
    return digest.hexdigest()[:16]


def _source(fn: Any) -> bytes:
    code = getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)
    if code is None:
        return repr(type(fn)).encode()
    try:
        return Path(code.co_filename).read_bytes()
    except OSError:
        return bytes(code.co_code)


def held_by(diff: str) -> str:
    """The code that held a run, out of the diff that it left; empty when it does not say."""
    _, found, rest = diff.rpartition(MARK)
    return rest.strip() if found else ""
