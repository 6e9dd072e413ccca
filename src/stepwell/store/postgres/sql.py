"""SQL from files, one act a file. `{run}` stands for the columns of a row, `{r.run}` for the same with an alias,
`{run=new.name}` for assignments to the columns from `name` on, from the row `new`."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from stepwell.store.columns import columns

#: What nearly every batch does. Its plans are the same on empty tables as on full ones, so each is made once; a test
#: holds them to that. All others are made anew each time: one made on empty tables would stay bad when they have grown.
PLANNED_ONCE = frozenset(
    (
        *(f"lane/{name}" for name in ("begin", "numbers")),
        *(f"load/{name}" for name in ("runs", "runs_and_named", "free_runs", "free_runs_and_named", "runs_by_no")),
        *(f"load/{name}" for name in ("tasks", "open_tasks", "pools", "requests")),
        *(f"find/{name}" for name in ("groups", "ready", "ready_keys", "ready_of_keys", "leased_counts", "blocked")),
        *(f"flush/{name}" for name in ("insert_run", "insert_task", "insert_entry", "insert_change", "insert_request")),
        *(f"flush/{name}" for name in ("insert_output", "insert_blob", "insert_message", "delete_message")),
        *(f"flush/{name}" for name in ("advance_run", "update_run_status", "update_run", "update_task")),
        "list/entries_between",
    )
)
_HOLE = re.compile(r"\{(?:(\w+)\.)?(\w+)(?:=(\w+)\.(\w+))?\}")
_MADE = re.compile(r"^create (?:unique )?(?:table|index|sequence) (?:if not exists )?(\w+)", re.MULTILINE)
_PARAMETER = re.compile(r"\$1\b")


class Anew(str):
    """A statement that is planned anew each time, for the values and the tables of the moment."""

    __slots__ = ()


def _fill(match: re.Match[str]) -> str:
    alias, row, source, first = match.groups()
    names = columns(row)
    if source:
        return ", ".join(f'"{name}" = {source}."{name}"' for name in names[names.index(first) :])
    prefix = f"{alias}." if alias else ""
    return ", ".join(f'{prefix}"{name}"' for name in names)


@cache
def sql(act: str) -> str:
    """The statement of an act, for example `load/runs`."""
    text = files("stepwell.store.postgres").joinpath("sql", f"{act}.sql").read_text("utf-8")
    filled = _HOLE.sub(_fill, text).strip()
    frames = act.startswith("app/")  # savepoints and settings around what the app says: nothing to plan
    return filled if frames or act in PLANNED_ONCE else Anew(filled)


@cache
def together(acts: Sequence[str]) -> str:
    """Acts with one parameter each as one statement: one round trip, and all of them see what was there before."""
    parts = [_PARAMETER.sub(f"${number}", sql(act)) for number, act in enumerate(acts, 1)]
    named = ",\n".join(f"act{number} as (\n{part}\n)" for number, part in enumerate(parts, 1))
    text = f"with {named}\nselect"
    return text if PLANNED_ONCE.issuperset(acts) else Anew(text)


def migrations() -> list[tuple[int, str, str]]:
    """(number, name, script) of every migration, in order."""
    folder: Any = files("stepwell.store.postgres").joinpath("sql", "migrate")
    found = sorted(path.name for path in folder.iterdir() if path.name.endswith(".sql"))
    return [(int(name[:4]), name.removesuffix(".sql"), folder.joinpath(name).read_text("utf-8")) for name in found]


@cache
def made() -> frozenset[str]:
    """What the migrations make: tables, indexes and sequences."""
    return frozenset(name for _, _, script in migrations() for name in _MADE.findall(script))
