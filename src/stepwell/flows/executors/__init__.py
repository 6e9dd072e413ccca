"""Ways to start a step's process, by the name that the option `executor` gives. One more is a file and a line here."""

from stepwell.flows.executors.base import Executor
from stepwell.flows.executors.direct import DirectExecutor
from stepwell.flows.executors.systemd import SystemdExecutor
from stepwell.flows.options import ExecutorName

EXECUTORS: dict[ExecutorName, Executor] = {
    "direct": DirectExecutor(),
    "systemd-run": SystemdExecutor(),
}
