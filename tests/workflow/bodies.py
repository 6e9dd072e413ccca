"""Bodies on a real workflow loop, without a journal: what the tests of their environment share."""

import uuid
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from stepwell.functions.errors import NondeterministicCall
from stepwell.workflow import where
from stepwell.workflow.ambient import Environment
from stepwell.workflow.loop import WorkflowLoop, WorkflowTimer

Body = Callable[[], Coroutine[Any, Any, Any]]
#: The time in bodies, unless a test says otherwise: seconds since the epoch.
NOW_S = 1_000_000.5


class BodyHost:
    """An `Ambient`, and the host of a loop."""

    def __init__(self, *, run_id: str = "r1", now_s: float = NOW_S, replaying: bool = False) -> None:
        self.run_id, self.replaying = run_id, replaying
        self.random = Random(run_id)
        make: Any = WorkflowLoop  # what it refuses is added when its module is imported
        self.loop: WorkflowLoop = make(self, now_s)
        self.around: Environment | None = None
        self.workflow = "shop:checkout"

    def now_s(self) -> float:
        return self.loop.now_s

    def uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def step_path(self) -> str:
        return self.loop.scope().path.rstrip("/")

    refuse = staticmethod(where.refusal)

    def timer_started(self, timer: WorkflowTimer) -> None:
        return

    def timer_cancelled(self, timer: WorkflowTimer) -> None:
        return

    def given_up(self, key: str) -> None:
        return

    def loop_exception(self, context: dict[str, Any]) -> None:
        raise context["exception"]

    def violated(self, error: NondeterministicCall) -> None:
        return

    def pump_started(self) -> None:
        if self.around is not None:
            self.around.pump_started(self.workflow, self.run_id)

    def pump_ended(self) -> None:
        if self.around is not None:
            self.around.pump_ended()

    def run(self, body: Body) -> Any:
        """The result of a body that waits for nothing durable."""
        root = self.loop.create_root(body())
        self.loop.pump()
        return root.result()


def of(act: Callable[[], Any], **facts: Any) -> Any:
    """What `act` returns in a body."""

    async def body() -> Any:
        return act()

    return BodyHost(**facts).run(body)
