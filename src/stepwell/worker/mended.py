"""Runs that were held since the code did not fit their journal: code that has changed since then gets another look.

A run whose journal still does not fit is held again, by the new code, so each version of the code looks once.
"""

import logging
from functools import partial

import msgspec

from stepwell.engine.engine import Engine
from stepwell.functions.registry import Registry
from stepwell.model import commands as c
from stepwell.model.errors import StepwellError
from stepwell.model.rows import Run
from stepwell.store.port import Page, Reader, RunFilter
from stepwell.workflow.versions import held_by

log = logging.getLogger("stepwell.worker")
PAGE = 200
#: How many of a run's last entries are looked at for the one that held it.
LAST = 20


async def release_mended(engine: Engine, registry: Registry, code: str, *, scope: str = "main") -> int:
    """Lets those go on that other code than `code` held; answers how many."""
    names = {workflow.path for workflow in registry.of("workflow")}
    released, before = 0, None
    while True:
        page = await engine.read(partial(_held, scope, before))
        for run in page.rows:
            if run.name in names and await _held_by_other(engine, run, code):
                released += await _release(engine, run)
        before = page.cursor
        if before is None:
            return released


def _held(scope: str, before: int | None, reader: Reader) -> Page:
    return reader.list_runs(RunFilter(scope=scope, hold="mismatch"), limit=PAGE, before=before)


async def _held_by_other(engine: Engine, run: Run, code: str) -> bool:
    entries = await engine.read(lambda reader: reader.entries(run.no, after=max(0, run.head_seq - LAST)))
    held = next((entry for entry in reversed(entries) if entry.kind == "run.held"), None)
    return held is not None and held_by(msgspec.json.decode(held.data).get("diff", "")) != code


async def _release(engine: Engine, run: Run) -> bool:
    try:
        await engine.submit(c.ReleaseRun(run.id, by="worker", scope=run.scope))
    except StepwellError as refused:
        log.info("run %s stays held: %s", run.id, refused.message)
        return False
    log.info("run %s was held since the code did not fit its journal: the code has changed, it tries again", run.id)
    return True
