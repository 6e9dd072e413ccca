"""Output: what a running attempt says. Ordered, bounded, repeatable; not history."""

from stepwell.kernel import check
from stepwell.kernel.leases import gone, is_live
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import Said, Say
from stepwell.model.rows import Output, Task
from stepwell.model.words import OutputKind

CUT = "[output cut here: the run said more than {limit:,} bytes]\n"


def say(unit: Unit, command: Say, now: int) -> Said:
    """`Say`: appends at position `at`; the same chunks at the same place again are a repeat."""
    lease = command.lease
    task, run = unit.tasks.get((lease.run_no, lease.k)), unit.runs.get(lease.run_no)
    if task is None or run is None:
        raise errors.Unknown("no such task")
    if not is_live(task, lease):
        raise gone(run, lease)
    key, limit = (run.no, run.turn), unit.settings.output_bytes
    cut = unit.tasks.rows[key].output_bytes > limit
    if command.at != task.said:
        if cut or command.at + len(command.chunks) == task.said:
            return Said(task.said, cut)
        raise errors.OutOfStep(f"output {command.at} of {run.id} follows {task.said}", next=task.said)
    head, mine = unit.tasks.edit(key), unit.tasks.edit((run.no, task.k))
    for kind, text in command.chunks:
        if not keep(unit, head, task.attempt, kind, text, now):
            break
        mine.said += 1
    return Said(mine.said, head.output_bytes > limit)


def keep(unit: Unit, head: Task, attempt: int, kind: OutputKind, text: str, at: int) -> bool:
    """Adds a chunk to what a run said, or in its place the mark where the bound was reached; false beyond that.

    `head` is the run's turn, which counts for the whole run.
    """
    limit = unit.settings.output_bytes
    check.payload(unit.settings, "output", text)
    if head.output_bytes > limit:
        return False
    head.output_n += 1
    head.output_bytes += len(text.encode())
    row = Output(head.run_no, head.output_n, attempt, kind, at, text)
    if head.output_bytes > limit:
        row.kind, row.text = "system", CUT.format(limit=limit)
    unit.outputs.append(row)
    return True
