"""Runs the server until it is told to end: SIGTERM and SIGINT stop the listener, drain the worker, close the store."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

from stepwell.model.errors import Invalid, Unavailable
from stepwell.server.app import create_app
from stepwell.server.auth import is_loopback
from stepwell.server.options import ServerOptions
from stepwell.server.protocol import protocol_for
from stepwell.worker.ending import when_told_to_end
from stepwell.worker.local import Local

#: What the system may hold of an answer that a client has not taken yet; Linux doubles it.
SEND_BYTES = 128 << 10


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


def listen(host: str, port: int, *, secured: bool = False) -> socket.socket:
    """A listening socket; without a secret only on a loopback address. Raises `Invalid` or `Unavailable`."""
    if not secured and not is_loopback(host):
        raise Invalid(
            f"without a secret there is no authentication, and the server does not listen on {host}",
            hint="Set STEPWELL_SECRET, or use 127.0.0.1, ::1 or localhost.",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as undo:
        try:
            # With the protocol named, asyncio turns Nagle's delay off for what it accepts.
            listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Inherited by what is accepted: the system else takes megabytes, and hides whether a client reads at all.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
            listener.bind((host, port))
            listener.listen()  # until somebody does, a second server could bind the port as well
        except (OSError, OverflowError) as error:
            hint = "Choose another --port, or 0 for a free one."
            raise Unavailable(f"cannot listen on {host} port {port}: {error}", hint=hint) from error
        undo.pop_all()
    return listener


async def serve(
    local: Local,
    listener: socket.socket,
    *,
    options: ServerOptions | None = None,
    on_listening: Callable[[str], None],
) -> None:
    """Serves until SIGTERM or SIGINT; a second one cuts the worker's drain short.

    `on_listening` gets the URL once requests are answered.
    """
    options = options or ServerOptions()
    app = create_app(local, options)
    config = uvicorn.Config(
        app,
        http=protocol_for(options),
        ws="none",
        log_level="error",  # a warning of uvicorn is what a client did wrong: it was told, and could fill the disk
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = _Server(config, lambda: on_listening(url))

    def end() -> None:
        if server.should_exit and local.worker is not None:
            local.worker.hurry()
        server.should_exit = True
        app.state.waits.close()

    when_told_to_end(end)
    await server.serve(sockets=[listener])
