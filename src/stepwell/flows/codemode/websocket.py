"""A running app-server elsewhere, when flow.toml says `app_server = "ws://..."` (source: spec codex-flows 3.2)."""

from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from stepwell.flows.codemode.failure import CodeModeFailure
from stepwell.flows.codemode.peer import MAX_LINE_BYTES

CONNECT_S = 10
CLOSE_S = 1


class WebSocketTransport:
    """A message a frame."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        try:
            await self._connection.send(text)
        except ConnectionClosed as error:
            raise _closed(error) from None

    async def receive(self) -> str | bytes:
        try:
            return await self._connection.recv()
        except ConnectionClosed as error:
            raise _closed(error) from None

    async def close(self) -> None:
        await self._connection.close()


async def dial(url: str) -> WebSocketTransport:
    """Connect. Raises `CodeModeFailure` without the secrets that a URL may hold."""
    try:
        connection = await connect(url, open_timeout=CONNECT_S, close_timeout=CLOSE_S, max_size=MAX_LINE_BYTES)
    except (OSError, InvalidHandshake, InvalidURI) as error:  # OSError: TimeoutError, too
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        hint = "Start it, or correct app_server in flow.toml."
        raise CodeModeFailure(f"cannot connect to the app-server at {public(url)}: {reason}", hint=hint) from None
    return WebSocketTransport(connection)


def public(url: str) -> str:
    """A URL without user, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _closed(error: ConnectionClosed) -> CodeModeFailure:
    frame = error.rcvd or error.sent
    why = "without a word" if frame is None else f"with code {frame.code} {frame.reason}".rstrip()
    return CodeModeFailure(f"the connection to the app-server was closed {why}")
