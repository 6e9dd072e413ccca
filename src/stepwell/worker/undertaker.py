"""The undertaker: what workers held that died on this machine goes on at once, not when their leases run out."""

import asyncio
import logging
from pathlib import Path

from stepwell.engine.roles import Role, Submit
from stepwell.model import commands as c
from stepwell.worker.alive import Sign, dead

log = logging.getLogger("stepwell.worker")
LOOK_S = 1.0


class Undertaker(Role):
    """Looks every second for signs of the dead beside the database at `path`."""

    name = "undertaker"

    def __init__(self, submit: Submit, path: Path, *, wait_s: float = LOOK_S) -> None:
        super().__init__(wait_s=wait_s)
        self._submit, self._path = submit, path

    async def work(self) -> float:
        """Buries all that died. Raises what the store raises; a sign that is left is looked at again."""
        for sign in dead(self._path):
            await self._bury(sign)
        return self.wait_s

    async def _bury(self, sign: Sign) -> None:
        """The lock is kept until the answer, also if nobody waits for that any more: a namesake could claim before."""
        answer: asyncio.Future[c.Worked] | None = None
        try:
            name, more = sign.name, True
            while name is not None and more:
                answer = asyncio.ensure_future(self._submit(c.Bury(name)))
                await asyncio.wait((answer,))
                count, more = answer.result().count, answer.result().more
                log.info("worker %s is dead; %d of its leases have ended", name, count)
            sign.remove()
        finally:
            if answer is None or answer.done():
                sign.close()
            else:
                answer.add_done_callback(lambda _: sign.close())
