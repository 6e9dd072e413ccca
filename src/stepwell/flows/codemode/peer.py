"""One end of a JSON-RPC conversation, over any transport (source: spec codex-flows 3.2, wire).

Messages are pulled, one at a time and by one task: what is said while we wait for an answer is dealt with in order, and
nobody can be left waiting on a connection that is gone, since `pull` raises what ended it.
"""

from collections.abc import Callable
from typing import Any, Protocol

from stepwell.flows.codemode import messages
from stepwell.flows.codemode.failure import CodeModeFailure
from stepwell.flows.codemode.messages import Noise, Notification, Request, Response

MAX_LINE_BYTES = 32 * 1024 * 1024


class Transport(Protocol):
    """Carries messages, each of at most `MAX_LINE_BYTES`. All may raise `CodeModeFailure` that says how it ended."""

    async def send(self, text: str) -> None:
        """Send one message."""
        ...

    async def receive(self) -> str | bytes:
        """The next message. Raises when there will be none."""
        ...

    async def close(self) -> None:
        """Let go of it, and of what was started for it. Raises nothing."""
        ...


class Peer:
    """Sends requests and takes in everything else. `awaits` says for what it waits, for messages to people."""

    def __init__(
        self, transport: Transport, on_notification: Callable[[Notification], None], note: Callable[[str], None]
    ) -> None:
        self._transport, self._on_notification, self._note = transport, on_notification, note
        self._asked = 0
        self._answers: dict[int | str, Response | None] = {}  # of the open requests only
        self.awaits = "nothing"

    async def request(self, method: str, params: dict[str, Any]) -> Response:
        """Ask, and wait for the answer, which may be an error."""
        number = await self.send(method, params)
        while (answer := self.answer(number)) is None:
            await self.pull()
        return answer

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        """Ask for a result. Raises `CodeModeFailure` for an error."""
        return result_of(method, await self.request(method, params))

    async def send(self, method: str, params: dict[str, Any]) -> int:
        """Ask, without waiting; the number is for `answer`."""
        self._asked += 1
        self._answers[self._asked] = None
        self.awaits = f"the answer to {method}"
        await self._transport.send(messages.request(self._asked, method, params))
        return self._asked

    def answer(self, number: int) -> Response | None:
        """The answer to a request, once, when it is there."""
        return self._answers.pop(number, None) if self._answers.get(number) else None

    async def notify(self, method: str) -> None:
        """Tell something."""
        await self._transport.send(messages.notification(method))

    async def pull(self) -> None:
        """Wait for one message and deal with it. Raises `CodeModeFailure` when there will be none."""
        line = await self._transport.receive()
        if not line.strip():
            return
        message = messages.classify(line)
        if isinstance(message, Noise):
            self._note(f"skipped a line of the app-server that is {message.reason}")
        elif isinstance(message, Request):
            self._note(f"refused the app-server's request {message.method:.100}")
            await self._transport.send(messages.refusal(message.id))
        elif isinstance(message, Notification):
            self._on_notification(message)
        elif message.id in self._answers:
            self._answers[message.id] = message


def result_of(method: str, answer: Response) -> Any:
    """The result in an answer. Raises `CodeModeFailure` with the message of an error."""
    if answer.error is not None:
        raise CodeModeFailure(f"the app-server refused {method}: {answer.error}")
    return answer.result
