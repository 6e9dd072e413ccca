"""The JavaScript that Codex is given: the context, `result()`, and the script (source: spec codex-flows 3.2)."""

import json
import re
from collections.abc import Mapping
from typing import Any

from stepwell.flows.result import MARK

# As a plain key of an object literal it would set the prototype; in brackets it is a member like any other.
_PROTO = re.compile(r'^(\s*)"__proto__": ', re.MULTILINE)


def build_source(context: Mapping[str, Any], script: str) -> str:
    """`flow` and `runtime` as on a step's stdin, `result(value)` to end with a result, then the script as it is.

    `runtime` is a global rather than a const, since scripts from before it may declare the name themselves.
    """
    emit = f'text("\\n{MARK}" + JSON.stringify(value) + "\\n");'
    parts = (
        f"const flow = {_literal(context.get('flow'))};",
        f"globalThis.runtime = {_literal(context.get('runtime'))};",
        f"function result(value) {{\n  {emit}\n  exit();\n}}",
        script,
    )
    return "\n".join(parts)


def _literal(value: Any) -> str:
    """A value as an expression. ASCII only, so that no byte of an event can end a line or a text."""
    return _PROTO.sub(r'\1["__proto__"]: ', json.dumps(value, indent=2))
