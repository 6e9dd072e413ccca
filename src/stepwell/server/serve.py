"""Runs the server until it is told to end: SIGTERM and SIGINT stop the listener, drain the worker, close the store."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from stepwell.model.errors import Invalid, Unavailable
from stepwell.server.app import create_app
from stepwell.worker.local import Local


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again at its end, which would cut the worker's drain short."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on a loopback address. Raises `Invalid` or `Unavailable` with what to do."""
    if not _is_loopback(host):
        raise Invalid(
            f"the server has no authentication yet and does not listen on {host}",
            hint="Use 127.0.0.1, ::1 or localhost, and a reverse proxy that authenticates for anything else.",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as undo:
        try:
            # With the protocol named, asyncio turns Nagle's delay off for what it accepts.
            listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen()  # until somebody does, a second server could bind the port as well
        except (OSError, OverflowError) as error:
            hint = "Choose another --port, or 0 for a free one."
            raise Unavailable(f"cannot listen on {host} port {port}: {error}", hint=hint) from error
        undo.pop_all()
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def serve(local: Local, listener: socket.socket, *, on_listening: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; a second one cuts the worker's drain short.

    `on_listening` gets the URL once requests are answered.
    """
    config = uvicorn.Config(
        create_app(local), log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=5
    )
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = _Server(config, lambda: on_listening(url))
    loop = asyncio.get_running_loop()

    def end() -> None:
        if server.should_exit and local.worker is not None:
            local.worker.hurry()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    await server.serve(sockets=[listener])
