"""Output: what a running attempt says. Ordered, bounded, repeatable; not history."""

from stepwell.kernel import check
from stepwell.kernel.leases import gone
from stepwell.kernel.unit import Unit
from stepwell.model import errors
from stepwell.model.commands import Said, Say
from stepwell.model.ids import token_hash
from stepwell.model.rows import Output

CUT = "[output cut here: the run said more than {limit:,} bytes]\n"


def say(unit: Unit, command: Say, now: int) -> Said:
    """`Say`: appends at position `at`; the same chunks at the same place again are a repeat."""
    lease = command.lease
    task, run = unit.tasks.get((lease.run_no, lease.k)), unit.runs.get(lease.run_no)
    if task is None or run is None:
        raise errors.Unknown("no such task")
    if task.epoch != lease.epoch or task.token_hash != token_hash(lease.token) or task.state != "leased":
        raise gone(run, lease)
    key, limit = (run.no, run.turn), unit.settings.output_bytes
    head = unit.tasks.rows[key]
    if command.at != head.output_n:
        if command.at + len(command.chunks) == head.output_n or head.output_bytes > limit:
            return Said(head.output_n, head.output_bytes > limit)
        raise errors.OutOfStep(f"output {command.at} of {run.id} follows {head.output_n}", next=head.output_n)
    mine = unit.tasks.edit(key)
    for kind, text in command.chunks:
        check.payload(unit.settings, "output", text)
        if mine.output_bytes > limit:
            break
        mine.output_n += 1
        mine.output_bytes += len(text.encode())
        cut = mine.output_bytes > limit
        row = Output(run.no, mine.output_n, task.attempt, kind, now, text)
        if cut:
            row = Output(run.no, mine.output_n, task.attempt, "system", now, CUT.format(limit=limit))
        unit.outputs.append(row)
    return Said(mine.output_n, mine.output_bytes > limit)
