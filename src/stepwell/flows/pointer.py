"""JSON pointers (RFC 6901), and the concurrency key that one finds in an event."""

import re
from hashlib import sha256
from typing import Any

from stepwell.flows.jsonvalue import canonical_json, has_control

MAX_KEY_BYTES = 128
_BAD_ESCAPE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"(0|[1-9][0-9]{0,8})\Z")


def pointer_fault(pointer: str) -> str:
    """Why a text is not a JSON pointer to a part of a document; empty when it is one."""
    if not pointer.startswith("/"):
        return "must begin with /"
    if _BAD_ESCAPE.search(pointer):
        return "has a ~ that is neither ~0 nor ~1"
    return ""


def concurrency_key(pointer: str, document: dict[str, Any]) -> str | None:
    """The key at a pointer: a text as it is, all else as canonical JSON; null and nothing give None.

    A key that is empty, over 128 bytes, or has control characters becomes `sha256:` and its hash, so that any store
    can index it.
    """
    value = _find(pointer, document)
    if value is None:
        return None
    key = value if isinstance(value, str) else canonical_json(value)
    if not key or len(key.encode()) > MAX_KEY_BYTES or has_control(key):
        return f"sha256:{sha256(key.encode()).hexdigest()}"
    return key


def _find(pointer: str, document: Any) -> Any:
    node = document
    for token in pointer.split("/")[1:]:
        node = _child(node, token.replace("~1", "/").replace("~0", "~"))
    return node


def _child(node: Any, token: str) -> Any:
    if isinstance(node, dict):
        return node.get(token)
    if isinstance(node, list) and _INDEX.match(token) and int(token) < len(node):
        return node[int(token)]
    return None
