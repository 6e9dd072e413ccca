"""SQL from files, one act a file. `{run}` stands for the columns of a row, `{r.run}` for the same with an alias,
`{run?}` for its parameters from ?1, `{run=name}` for assignments to the columns from `name` on, from ?2."""

import re
from functools import cache
from importlib.resources import files
from typing import Any

from stepwell.store.columns import columns

_HOLE = re.compile(r"\{(?:(\w+)\.)?(\w+)(\?|=\w+)?\}")
_PARAMETER = re.compile(r"\?(\d+)")
_VALUES = re.compile(r"\bvalues \((.*)\)$")


def position(row: str, column: str) -> int:
    """Where a column stands in its row."""
    return columns(row).index(column)


def _fill(match: re.Match[str]) -> str:
    alias, row, how = match.groups()
    names = columns(row)
    if how == "?":
        return ", ".join(f"?{number}" for number in range(1, len(names) + 1))
    if how:
        tail = names[names.index(how[1:]) :]
        return ", ".join(f'"{name}" = ?{number}' for number, name in enumerate(tail, start=2))
    prefix = f"{alias}." if alias else ""
    return ", ".join(f'{prefix}"{name}"' for name in names)


@cache
def sql(act: str) -> str:
    """The statement of an act, for example `load/runs`."""
    text = files("stepwell.store.sqlite").joinpath("sql", f"{act}.sql").read_text("utf-8")
    return _HOLE.sub(_fill, text).strip()


@cache
def bulk(act: str, count: int) -> str:
    """The same act for `count` rows in one statement: its parameters are columns of a table of values.

    An insert of the act's row becomes an insert of a selection, an update one from that table.
    """
    text = sql(act)
    width = max(int(number) for number in _PARAMETER.findall(text))
    names = ", ".join(f"c{number}" for number in range(1, width + 1))
    row = f"({', '.join('?' * width)})"
    one = _PARAMETER.sub(r"new.c\1", text)
    many = (
        _VALUES.sub(r"select \1 from new", one)
        if one.startswith("insert")
        else one.replace(" where ", " from new where ")
    )
    return f"with new({names}) as (values {', '.join([row] * count)}) {many}"


def migrations() -> list[tuple[int, str, str]]:
    """(number, name, script) of every migration, in order."""
    folder: Any = files("stepwell.store.sqlite").joinpath("sql", "migrate")
    found = sorted(path.name for path in folder.iterdir() if path.name.endswith(".sql"))
    return [(int(name[:4]), name.removesuffix(".sql"), folder.joinpath(name).read_text("utf-8")) for name in found]
