"""The nursery's own process: imports what its children need, then forks one for each order.

An order is a packet with five files: a JSON text with `args` (as for an interpreter: `-m MODULE ...` or `-c CODE ...`),
`cwd` and `env`; stdin, stdout and stderr; and a pipe that gets two numbers, the pid and, at the end, the wait status.
"""

import atexit
import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from importlib import import_module
from types import ModuleType

NUMBER = struct.Struct("q")
PACKAGES = ("cli", "client", "flows", "server", "store.sqlite", "worker")
#: What is imported late by what is above.
LATE = ("uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.on", "unittest.mock", "pickle", "logging.config")


def learn() -> None:
    """Imports; a fork shares them until it writes."""
    for package in (f"stepwell.{name}" for name in PACKAGES):
        for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
            if not module.ispkg and not module.name.endswith(("__main__", "_process")):
                import_module(module.name)
    for name in LATE:
        import_module(name)
    gc.collect()
    gc.freeze()


class Nursery:
    """Its children, each by the descriptor that becomes readable when it ends: pid, and the pipe that is told."""

    def __init__(self, orders: socket.socket) -> None:
        self.orders = orders
        self.children: dict[int, tuple[int, int]] = {}
        self.poll = select.poll()
        self.poll.register(orders, select.POLLIN)

    def work(self) -> list[int] | None:
        """Forks until nobody is left who orders. Returns in each child, with the files of its order."""
        while True:
            for ready, _ in self.poll.poll():
                if ready in self.children:
                    self._bury(ready)
                elif (files := socket.recv_fds(self.orders, 1, 5)[1]) == []:
                    return None
                elif (pid := os.fork()) == 0:
                    self._leave()
                    return files
                else:
                    self._keep(pid, files)

    def _keep(self, pid: int, files: list[int]) -> None:
        *given, told = files
        for file in given:
            os.close(file)
        os.write(told, NUMBER.pack(pid))
        ends = os.pidfd_open(pid)
        self.children[ends] = (pid, told)
        self.poll.register(ends, select.POLLIN)

    def _bury(self, ends: int) -> None:
        pid, told = self.children.pop(ends)
        self.poll.unregister(ends)
        os.close(ends)
        status = os.waitpid(pid, 0)[1]
        with suppress(BrokenPipeError):  # nobody may want to know any more
            os.write(told, NUMBER.pack(status))
        os.close(told)

    def _leave(self) -> None:
        """What the nursery has open is not its children's."""
        self.orders.close()
        for ends, (_, told) in self.children.items():
            os.close(ends)
            os.close(told)


def become(files: list[int]) -> None:
    """Turns this process into what was ordered."""
    letter, *streams, told = files
    os.close(told)
    order = json.loads(os.pread(letter, os.fstat(letter).st_size, 0))
    os.close(letter)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    how, what, *rest = order["args"]
    here = "" if how == "-c" else order["cwd"]
    sys.path[:1] = [here, *filter(None, order["env"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [how, *rest]
    if how == "-m":
        sys.modules.pop(what, None)
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), vars(main))


def lived(files: list[int]) -> int:
    """A life from its order to its exit code, as an interpreter counts."""
    try:
        become(files)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def leave(code: int) -> None:
    """What an interpreter does at its end, but for taking every module apart, which takes 50 ms."""
    vars(threading)["_shutdown"]()  # it has no public name, and ends the threads of executors
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    learn()
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        files = Nursery(orders).work()
    if files is not None:
        leave(lived(files))
