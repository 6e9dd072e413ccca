"""What an app's applied migrations allow of those that it has now. Pure."""

from collections.abc import Mapping, Sequence

from stepwell.model.errors import Invalid
from stepwell.store.port import AppMigration

ONE_WAY = "Migrations are not edited once they are applied: undo the edit, and write the next one."


def refuse_edits(app: str, applied: Mapping[int, str], given: Sequence[AppMigration]) -> None:
    """`applied` is the hash of each number. Raises Invalid for one that is gone, changed, or comes too late."""
    known = {one.no: one for one in given}
    for no, digest in applied.items():
        if no not in known:
            hint = "Deploy the version of the app that has it; a database never goes back."
            raise Invalid(f"migration {no} of {app} was applied, and is not in its folder", hint=hint)
        if known[no].hash != digest:
            raise Invalid(f"migration {known[no].name} of {app} changed after it was applied", hint=ONE_WAY)
    last = max(applied, default=0)
    late = next((one for one in given if one.no not in applied and one.no < last), None)
    if late is not None:
        raise Invalid(f"migration {late.name} of {app} comes before {last}, which was applied", hint="Renumber it.")
