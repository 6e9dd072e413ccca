"""What a statement of an app may do on PostgreSQL, which has no authorizer (source: KERNEL, mutations).

By its words, before it is sent: so this keeps mistakes away, and not malice. A role of the operator's does both.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, pairwise, zip_longest
from typing import Literal, TypeAlias

from stepwell.store.postgres.sql import made
from stepwell.store.postgres.tokens import Token, tokens

Mode: TypeAlias = Literal["read", "write", "schema"]

_READS = frozenset(("select", "with", "values", "table", "("))
_WRITES = _READS | {"insert", "update", "delete", "merge"}
_SCHEMA = frozenset(("create", "alter", "drop", "comment", "truncate", "refresh", "grant", "revoke"))
_ALLOWED: dict[Mode, frozenset[str]] = {
    "read": _READS,
    "write": _WRITES,
    "schema": _WRITES | _SCHEMA | {"do"},
}
_TRANSACTION = "may not begin, commit or roll back: what it does commits with the step that calls it"
_SETTINGS = "may not change settings of the connection"
_MIGRATE = "may not change the schema: write a migration for that"
_BEYOND: dict[str, str] = {
    **dict.fromkeys(("begin", "start", "commit", "end", "rollback", "abort", "prepare"), _TRANSACTION),
    **dict.fromkeys(("savepoint", "release"), "may not use savepoints"),
    **dict.fromkeys(("set", "reset", "discard"), _SETTINGS),
    **dict.fromkeys(_SCHEMA | {"reindex", "security", "import"}, _MIGRATE),
}
_XML = (
    "query_to_xml query_to_xmlschema query_to_xml_and_xmlschema table_to_xml table_to_xmlschema "
    "table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema schema_to_xml_and_xmlschema database_to_xml "
    "database_to_xmlschema database_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema xpath_table"
)
_ELSEWHERE = "dblink dblink_connect dblink_connect_u dblink_exec dblink_open dblink_fetch dblink_send_query"
_LARGE = (
    "lo_import lo_export lo_create lo_creat lo_unlink lo_open lo_close lo_put lo_get lo_from_bytea lo_lseek "
    "lo_lseek64 lo_tell lo_tell64 lo_truncate lo_truncate64 lowrite loread"
)
_OTHER = "set_config setval ts_stat ts_rewrite crosstab crosstab2 crosstab3 crosstab4 connectby"
#: What acts on more than the transaction, or runs SQL from a text.
_FUNCTIONS = frozenset(" ".join((_XML, _ELSEWHERE, _LARGE, _OTHER)).split())
#: Names with `pg_` are the system's: locks, sleeps, signals, files, the catalogue. These do no harm.
_HARMLESS = frozenset(("pg_catalog", "pg_typeof", "pg_column_size", "pg_size_pretty", "pg_get_serial_sequence"))
_FOREIGN = (
    "access conversion database default event foreign group language large owned publication role schema server "
    "subscription system tablespace transform user"
)
#: Things that are not of the app's schema, by the word after create, alter or drop.
_NOT_ITS_OWN = frozenset(_FOREIGN.split())
_RELATIONS = frozenset(("table", "view", "index", "sequence"))
_ON_A_TABLE = frozenset(("index", "trigger", "rule", "policy"))
_NO_NAMES = frozenset(("if", "not", "exists", "only", "concurrently"))
#: Names that the kernel keeps for tables to come.
RESERVED = "stepwell_"


@cache
def kernel_names() -> frozenset[str]:
    """Every table, index and sequence of the kernel."""
    return made() | {"migration"}


def is_kernels(name: str) -> bool:
    """Whether a name is the kernel's, and so no app's."""
    return name.removesuffix("_no_seq") in kernel_names() or name.startswith(RESERVED)


def why_not(found: Sequence[Token], mode: Mode, kernel: str) -> str | None:
    """Why an app may not run the statement, after its function's name; None: it may. `kernel`: the kernel's schema."""
    first = found[0].text if found else ""
    if first and first not in _ALLOWED[mode]:
        if mode == "read" and first in _WRITES:
            return "may not write: a query only reads"
        return _BEYOND.get(first, f"may not use {first.upper()}: it reads and writes tables")
    refusals = chain(
        _of_names(found, mode), _of_kernel(found, mode, kernel), _of_words(found), _of_schema(found, mode, kernel)
    )
    return next(refusals, None)


def _of_names(found: Sequence[Token], mode: Mode) -> Iterator[str]:
    if mode == "schema" and [one.text for one in found[1:2]] == ["extension"]:
        return
    for token, after in zip_longest(found, found[1:]):
        if not token.names:
            continue
        if token.text.startswith("pg_") and token.text not in _HARMLESS:
            yield f"may not use {token.text}: names with pg_ are the system's"
        called = after is not None and after.text == "("
        if called and token.text in _FUNCTIONS and not (mode == "schema" and token.text == "setval"):
            yield f"may not call {token.text}()"


def _of_kernel(found: Sequence[Token], mode: Mode, kernel: str) -> Iterator[str]:
    """The kernel's things by their full names, also in the bodies of functions that a migration makes.

    Others may be in the same schema: an extension, tables that were there before.
    """
    for place, token in enumerate(found):
        if token.kind == "body" and mode == "schema":
            yield from _of_kernel(tokens(token.text), mode, kernel)
        if token.kind == "text" and _names_kernels(token.text, kernel):
            yield f"may not use {token.text}, which is the kernel's"
        if token.kind == "escaped":
            yield "may not write names with U&"
        if token.names and token.text == kernel:
            after = [one.text for one in found[place + 1 : place + 3]]
            if len(after) == 2 and after[0] == "." and is_kernels(after[1]):
                yield f"may not use {kernel}.{after[1]}, which is the kernel's"


def _names_kernels(text: str, kernel: str) -> bool:
    """A text that a cast or a function takes for a name: 'public.run'::regclass."""
    schema, dot, name = text.replace('"', "").partition(".")
    return bool(dot) and schema == kernel and is_kernels(name)


def _of_words(found: Sequence[Token]) -> Iterator[str]:
    for before, token in pairwise(found):
        if token.kind == "word" and token.text == "into" and before.text not in ("insert", "merge"):
            yield "may not make a table with SELECT INTO: write a migration with CREATE TABLE"


def _of_schema(found: Sequence[Token], mode: Mode, kernel: str) -> Iterator[str]:
    first, words = (found[0].text if found else ""), [token.text if token.names else "" for token in found]
    if mode != "schema" or first not in ("create", "alter", "drop"):
        return
    head = [word for word in words[1:5] if word]
    if {"temp", "temporary"} & set(head):
        yield "may not make or drop temporary things"
    what = next((word for word in head if word not in ("or", "replace")), "")
    if what in _NOT_ITS_OWN:
        yield f"may not {first} a {what}: it has tables of its own, and nothing else"
    if first == "alter" and ("set", "schema") in pairwise(words):
        yield "may not move a thing to another schema"
    for name in _named(found, first, head):
        if name == kernel:
            yield f"may not {first} what is in {kernel}: that schema is the kernel's, and the app's own needs no name"
        if is_kernels(name):
            yield f"may not make, change or drop {name}: that name is the kernel's"


def _named(found: Sequence[Token], first: str, head: Sequence[str]) -> Iterator[str]:
    """The relations that are made, changed or dropped, and those that something is made on."""
    kind = next((place for place, token in enumerate(found) if token.text in _RELATIONS | _ON_A_TABLE), None)
    if kind is None or found[kind].text not in head:
        return
    rest = [token for token in found[kind + 1 :] if token.names and token.text not in _NO_NAMES]
    if found[kind].text in _RELATIONS:
        yield from (token.text for token in (rest if first == "drop" else rest[:1]))
    if found[kind].text in _ON_A_TABLE:
        yield from (after.text for on, after in pairwise(rest) if on.text == "on")
