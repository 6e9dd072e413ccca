"""SQL of an app as tokens: enough of PostgreSQL's grammar to tell statements, parameters and names. Pure."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

Kind: TypeAlias = Literal["word", "name", "escaped", "text", "body", "parameter", "other"]

_TOKEN = re.compile(
    r"""
    (?P<blank> \s+ | --[^\n\r]* )
  | (?P<text> [eE]'(?:[^'\\]|\\.|'')*' | (?:[nNbBxX]|[uU]&)?'(?:[^']|'')*' )
  | (?P<name> (?:[uU]&)?"(?:[^"]|"")*" )
  | (?P<body> \$(?P<tag>(?:[^\W\d]\w*)?)\$ .*? \$(?P=tag)\$ )
  | (?P<word> [^\W\d][\w$]* )
  | (?P<number> \d[\w.]* )
  | (?P<parameter> \?\? | \?\d* | \$\d+ )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")


class Token(Struct, frozen=True, gc=False):
    """`text`: a word in lower case, a name without its quotes, what a body or a text holds; else as it is written."""

    kind: Kind
    text: str
    start: int
    end: int

    @property
    def names(self) -> bool:
        """Whether it may name something."""
        return self.kind in ("word", "name")


def tokens(sql: str) -> list[Token]:
    """The tokens of one or more statements, without blanks and comments."""
    return list(_tokens(sql))


def _tokens(sql: str) -> Iterator[Token]:
    at = 0
    while at < len(sql):
        if sql.startswith("/*", at):
            at = _after_comment(sql, at)
            continue
        match = _TOKEN.match(sql, at)
        assert match is not None  # the last alternative is any character
        if match.lastgroup is not None and match.lastgroup != "blank":
            yield _token(match)
        at = match.end()


def _token(match: re.Match[str]) -> Token:
    written, groups = match[0], match.groupdict()
    start, end = match.span()
    if groups["word"] is not None:
        return Token("word", written.lower(), start, end)
    if groups["name"] is not None:
        return Token(
            "name" if written[0] == '"' else "escaped",
            written[written.index('"') + 1 : -1].replace('""', '"'),
            start,
            end,
        )
    if groups["text"] is not None:
        return Token("text", written[written.index("'") + 1 : -1], start, end)
    if groups["body"] is not None:
        edge = len(match["tag"]) + 2
        return Token("body", written[edge:-edge], start, end)
    return Token("parameter" if groups["parameter"] is not None else "other", written, start, end)


def _after_comment(sql: str, at: int) -> int:
    """Where a comment ends: they nest, and one without an end is the rest."""
    depth = 0
    for match in _COMMENT.finditer(sql, at):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(sql)


def statements(script: str) -> Iterator[str]:
    """The statements of a script. A body of SQL (`begin atomic ... end`) belongs to its statement."""
    depth = blocks = 0
    part: list[Token] = []
    found = tokens(script)
    for place, token in enumerate(found):
        depth += {"(": 1, ")": -1}.get(token.text, 0) if token.kind == "other" else 0
        blocks += _opens(found, place, blocks) if token.kind == "word" else 0
        if token.kind == "other" and token.text == ";" and depth <= 0 and blocks == 0:
            if part:
                yield script[part[0].start : part[-1].end]
            part = []
        else:
            part.append(token)
    if part:
        yield script[part[0].start : part[-1].end]


def _opens(found: Sequence[Token], place: int, blocks: int) -> int:
    word = found[place].text
    if word == "begin":
        return int(place + 1 < len(found) and found[place + 1].text == "atomic")
    if blocks and word == "case":
        return 1
    return -1 if blocks and word == "end" else 0


def with_parameters(sql: str, found: Sequence[Token]) -> tuple[str, int]:
    """The statement with `$1` for `?`, and how many it takes. `?2` is the second one; `??` is the operator `?`."""
    parts: list[str] = []
    at = count = 0
    for token in found:
        if token.kind != "parameter":
            continue
        parts.append(sql[at : token.start])
        at = token.end
        if token.text == "??":
            parts.append("?")
            continue
        number = int(token.text[1:] or count + 1)
        count = max(count, number)
        parts.append(f"${number}")
    return "".join([*parts, sql[at:]]), count
