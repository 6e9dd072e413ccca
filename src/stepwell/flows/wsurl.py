"""What a WebSocket address is, said once (source: spec codex-flows 3.2 and 4.1)."""

from urllib.parse import urlsplit

MAX_URL_BYTES = 2_048


def ws_url_fault(text: str) -> str:
    """What is wrong with a ws:// or wss:// URL; empty when nothing is. It is not repeated: it may be secret."""
    if len(text.encode(errors="replace")) > MAX_URL_BYTES:
        return f"is longer than {MAX_URL_BYTES} bytes"
    if any(char.isspace() or not char.isprintable() for char in text):
        return "has blanks or control characters"
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number or too large, a bracket that is not closed
        good = False
    return "" if good else "is not a ws:// or wss:// URL, as ws://127.0.0.1:3585"
