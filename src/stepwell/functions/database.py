"""`Database`: the app's tables, as mutations and queries see them (source: API, contexts)."""

from collections.abc import Callable
from dataclasses import is_dataclass
from threading import get_ident
from typing import Any, TypeVar, get_origin, is_typeddict, overload

import msgspec

from stepwell.functions.defaults import completed, leaves_defaults
from stepwell.functions.guard import Guard, NotAllowed, Watched
from stepwell.kernel.calls import AppTables, Away, Forbidden, Overdue, Result
from stepwell.model.errors import Invalid, Timeout, TooLarge

T = TypeVar("T")
R = TypeVar("R")
#: How many rows one statement answers at most.
MAX_ROWS = 100_000
_PLAIN = (type(None), bool, int, float, str, bytes)


class Database:
    """Good for one call, on its thread. `?` stands for a parameter, on every store."""

    def __init__(self, tables: AppTables, guard: Guard, watched: Watched) -> None:
        self._tables, self._guard, self._watched = tables, guard, watched
        self._closed = False

    def execute(self, sql: str, *params: Any) -> int:
        """Runs one statement; answers how many rows it changed. Raises the database's own errors, or NotAllowed."""
        return self._run(sql, params).changed

    @overload
    def all(self, sql: str, *params: Any, type: type[T]) -> list[T]: ...
    @overload
    def all(self, sql: str, *params: Any) -> list[dict[str, Any]]: ...
    def all(self, sql: str, *params: Any, type: Any = None) -> list[Any]:  # noqa: A002
        """All rows: as dicts, or of `type`, which is that of the one column or a struct with the columns' names."""
        result = self._run(sql, params)
        if result.more:
            what = f"the statement answers more than {MAX_ROWS:,} rows"
            raise TooLarge(what, what="rows", size=MAX_ROWS + 1, limit=MAX_ROWS, hint="Add a limit to it.")
        names = result.columns
        if len(set(names)) < len(names):
            raise Invalid(f"two columns of {', '.join(names)} have one name", hint="Name them apart with `as`.")
        if type is None or _has_names(type):
            rows: list[Any] = [dict(zip(names, row, strict=True)) for row in result.rows]
        elif len(names) == 1:
            rows = [row[0] for row in result.rows]
        else:
            hint = "Ask for one column, or give a dataclass, Struct or TypedDict with the columns' names."
            raise Invalid(f"{len(names)} columns do not fit {type!r}", hint=hint)
        return rows if type is None else self._decoded(rows, type)

    def _decoded(self, rows: list[Any], type: Any) -> list[Any]:  # noqa: A002
        try:
            decoded: list[Any] = msgspec.convert(rows, list[type], strict=False)
        except msgspec.ValidationError as error:
            raise Invalid(f"a row does not fit {type!r}: {error}", hint="Correct the type, or the statement.") from None
        return completed(decoded) if leaves_defaults(type) else decoded

    def close(self) -> None:
        """The call is over: whoever kept this gets an error."""
        self._closed = True

    def settle(self) -> None:
        """What the database would check at the commit. Raises its own errors."""
        self._do(self._tables.settle)

    def _run(self, sql: str, params: tuple[Any, ...]) -> Result:
        if self._closed or self._watched.thread != get_ident():
            raise NotAllowed("this database was another call's", hint="Use ctx.db of the call, while it runs.")
        _check(sql, params)
        return self._do(lambda: self._tables.execute(sql, params, MAX_ROWS))

    def _do(self, work: Callable[[], R]) -> R:
        watched = self._watched
        with self._guard.shield(watched):
            try:
                return work()
            except Forbidden as refused:
                raise watched.refuse(NotAllowed(f"{watched.name} {refused}")) from None
            except Overdue:
                raise watched.root.refuse(Timeout(f"a statement of {watched.name} took too long")) from None
            except Away as away:
                watched.root.away = away
                raise


def _check(sql: Any, params: tuple[Any, ...]) -> None:
    if not isinstance(sql, str):
        raise Invalid(f"SQL is text, not {type(sql).__name__}", field="sql")
    for number, value in enumerate(params, 1):
        if not isinstance(value, _PLAIN):
            hint = "Give text, a number, bytes or None: a date as .isoformat(), a structure as JSON."
            raise Invalid(f"parameter {number} is {type(value).__name__}", hint=hint, field=str(number))
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise Invalid(f"parameter {number} has more than 64 bits", hint="Store it as text.", field=str(number))
        if isinstance(value, str):
            _check_text(number, value)


def _check_text(number: int, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid(f"parameter {number} is not valid Unicode", hint="Remove lone surrogates.") from None


def _has_names(wanted: Any) -> bool:
    bare = get_origin(wanted) or wanted
    if is_typeddict(bare) or is_dataclass(bare) or bare is dict:
        return True
    return isinstance(bare, type) and issubclass(bare, msgspec.Struct)
