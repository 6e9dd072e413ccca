"""Journals that a Python recorded, replayed by this one: a history must outlive the interpreter that wrote it.

`python -m tests.workflow.golden FILE` replays a file and tells what differs; it needs msgspec and nothing else, so any
interpreter can be asked. `golden_record` writes such a file.
"""

import gzip
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.model import commands as c
from stepwell.model.rows import Entry
from tests.workflow.lives import replayed
from tests.workflow.programs import Node

FILE = Path(__file__).parent / "golden" / "journals.jsonl.gz"
#: How many beginnings of each journal are replayed.
PARTS = 4


class History(Struct):
    """One run: what it was given, its journal, and what its lives saw and asked for."""

    python: str
    program: Node
    first: c.Leased
    journal: list[Entry]
    seen: list[tuple[str, float, str, str]]
    asked: list[str]


def write(path: Path, histories: Iterable[History]) -> None:
    """Writes histories, one a line."""
    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in histories)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(lines, mtime=0))


def read(path: Path) -> list[History]:
    """The histories of a file."""
    decoder = msgspec.json.Decoder(History)
    return [decoder.decode(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def difference(history: History) -> str | None:
    """How a replay differs from what was recorded, if it does; the whole and beginnings of it."""
    count = len(history.journal)
    for until in sorted({count, *(count * part // PARTS for part in range(PARTS))}, reverse=True):
        life = replayed(history.first, history.journal[:until])
        mismatch = life.turn.instance.mismatch
        seen, asked = life.close()
        if mismatch is not None:
            return mismatch
        pairs: list[tuple[str, list[Any], list[Any]]] = [("saw", history.seen, seen), ("asked", history.asked, asked)]
        for what, recorded, now in pairs:
            known = recorded if until == count else recorded[: len(now)]
            for at, (one, other) in enumerate(zip(known, now, strict=False)):
                if one != other:
                    return f"it {what}, at {at}:\n- {history.python} {one}\n+ {sys.version.split()[0]} {other}"
            if len(known) != len(now):
                return f"it {what} {len(known)} things, and now {len(now)}"
    return None


def main(path: Path) -> int:
    """Replays a file; the number of histories that differ."""
    differ, histories = 0, read(path)
    for history in histories:
        told = difference(history)
        if told is not None:
            differ += 1
            print(f"{history.first.run.id} of {history.program!r}\n{told}\n")
    print(f"python {sys.version.split()[0]}: {len(histories)} journals, {differ} differ")
    return differ


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE) else 0)
