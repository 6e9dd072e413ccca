"""`python -m bench [names...] [--quick] [--json] [--dir DIR]`"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import msgspec

from bench.machine import NotADisk, facts, refuse_memory
from bench.report import Row, line, say
from bench.rig import Rig

#: In the order in which they run; the module of each has `measure(rig)`.
SUBJECTS = {
    "steps": "recorded steps, next to the floor",
    "workflows": "start, claim, finish",
    "programs": "workflows as users write them, body and worker and all",
    "layout": "layouts of the journal: append, and read back",
    "readback": "a journal of 10,000 entries through the store",
    "idle": "1,000,000 parked runs, and a burst of timers",
    "start_to_result": "latency of one workflow on an idle engine, and of a signal",
    "http": "events over HTTP",
    "signed": "signed events over HTTP, beside unsigned ones",
    "flowstep": "a flow step over its bare process",
    "slots": "200 flow steps in 16 slots, beside their bare processes",
    "peer": "DBOS on SQLite, beside ours",
    "postgres": "programs on PostgreSQL: one and two server processes, lanes, 1,000,000 parked runs",
    "postgres_peer": "DBOS on PostgreSQL, beside ours on the same server",
}
ON_DEMAND = {"peer", "postgres", "postgres_peer"}


def main(arguments: list[str] | None = None) -> int:
    """Runs subjects and prints what they say. 1: a subject could not be measured. 2: refused."""
    args = _parse(arguments)
    folder = Path(tempfile.mkdtemp(prefix="stepwell-bench-", dir=args.dir))
    try:
        refuse_memory(folder)
        about = facts(folder)
        for name, value in about.items():
            say(f"{name:<8} {value}")
        rig = Rig(folder, args.quick)
        rows, failed = _run(args.names or [name for name in SUBJECTS if name not in ON_DEMAND], rig)
    except NotADisk as refusal:
        say(f"bench: {refusal}")
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        print(msgspec.json.encode({"machine": about, "quick": args.quick, "rows": rows, "failed": failed}).decode())
    return 1 if failed else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:<16} {what}" for name, what in SUBJECTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"subjects:\n{listed}\n\nWithout names: all but {', '.join(sorted(ON_DEMAND))}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="which subjects to measure")
    parser.add_argument("--quick", action="store_true", help="smaller amounts: 3 min in all, where full is 12 min")
    parser.add_argument("--json", action="store_true", help="rows with all samples as JSON on stdout; text on stderr")
    parser.add_argument(
        "--dir", type=Path, default=None, help="a folder on the disk to measure (default: the temporary one)"
    )
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.names if name not in SUBJECTS]:
        parser.error(f"no subject {unknown[0]!r}; there are {', '.join(SUBJECTS)}")
    if args.dir is not None and not args.dir.is_dir():
        parser.error(f"no folder {args.dir}")
    return args


def _run(names: list[str], rig: Rig) -> tuple[list[dict[str, object]], dict[str, str]]:
    rows: list[dict[str, object]] = []
    failed: dict[str, str] = {}
    for name in names:
        say(f"\n{name}: {SUBJECTS[name]}")
        started = time.perf_counter()
        try:
            measure: Callable[[Rig], Iterator[Row]] = import_module(f"bench.{MODULES.get(name, name)}").measure
            for row in measure(rig):
                row.subject = name
                rows.append({**msgspec.structs.asdict(row), "median": row.median, "met": row.met})
                say(line(row))
        except Exception as reason:
            failed[name] = f"{type(reason).__name__}: {reason}"
            say(f"  NOT MEASURED: {failed[name]}")
        say(f"  ({time.perf_counter() - started:.0f} s)")
    return rows, failed


#: A module may not have the name of one of Python's own.
MODULES = {"http": "intake"}

if __name__ == "__main__":
    sys.exit(main())
