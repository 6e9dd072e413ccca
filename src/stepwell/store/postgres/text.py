"""Text as PostgreSQL keeps it: it has no NUL, and what programs say may. An escape stands for it, and for itself."""

_ESCAPE = "\x1a"
_ESCAPED, _NUL = f"{_ESCAPE}1", f"{_ESCAPE}0"


def storable(text: str) -> bool:
    """Whether a row can have such a text as its name; nothing has one that cannot be stored."""
    return "\0" not in text and (text.isascii() or _encodable(text))


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def kept_text(text: str) -> str:
    """A text as it is stored."""
    if "\0" not in text and _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE, _ESCAPED).replace("\0", _NUL)


def given_text(stored: str) -> str:
    """A stored text as it was given."""
    return stored.replace(_NUL, "\0").replace(_ESCAPED, _ESCAPE) if _ESCAPE in stored else stored
