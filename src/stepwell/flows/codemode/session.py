"""What is said to Codex to run one script, from the greeting to the result (source: spec codex-flows 3.2, sequence)."""

from typing import Any

from stepwell.flows.codemode.failure import CodeModeFailure, missing_method
from stepwell.flows.codemode.messages import METHOD_NOT_FOUND, Response, shorten
from stepwell.flows.codemode.peer import Peer, result_of
from stepwell.flows.codemode.turn import Turn, thread_result
from stepwell.flows.result import FlowResult, ResultFault

EXECUTE = "thread/codeMode/execute"
CLIENT = {"name": "codex-flow-runner", "title": "Codex Flow Runner", "version": "0.1.0"}


async def run_source(peer: Peer, turn: Turn, cwd: str, source: str) -> FlowResult:
    """Run `source` in a new thread, in `cwd`. Raises `CodeModeFailure`."""
    hello = await peer.call("initialize", {"clientInfo": CLIENT, "capabilities": {"experimentalApi": True}})
    await peer.notify("initialized")
    turn.thread_id = _thread_id(await peer.call("thread/start", _thread(cwd)))
    await _execute(peer, turn, source, _user_agent(hello))
    return await _result(peer, turn)


async def interrupt(peer: Peer, turn: Turn) -> None:
    """Ask Codex to stop the turn, if one runs. Raises `CodeModeFailure`, also for the end of the turn."""
    if turn.id is not None:
        await peer.call("turn/interrupt", {"threadId": turn.thread_id, "turnId": turn.id})


def _thread(cwd: str) -> dict[str, Any]:
    return {
        "cwd": cwd,
        "approvalPolicy": "never",
        "sandbox": "danger-full-access",
        "ephemeral": False,
        "experimentalRawEvents": False,
        "persistExtendedHistory": True,
    }


async def _execute(peer: Peer, turn: Turn, source: str, user_agent: str) -> None:
    """Wait for the end of the turn; the answer to the request may come before, after, or never."""
    number = await peer.send(EXECUTE, {"threadId": turn.thread_id, "source": source})
    while not turn.is_over:
        answer = peer.answer(number)
        if answer is not None:
            _check_answer(answer, user_agent)
            peer.awaits = "turn/completed"
        await peer.pull()


def _check_answer(answer: Response, user_agent: str) -> None:
    unknown = "unknown variant" in (answer.error or "")  # how the Codex of OpenAI says it, with the code -32600
    if answer.error is not None and (unknown or answer.code == METHOD_NOT_FOUND):
        raise missing_method(EXECUTE, user_agent, answer.error[:200])
    result_of(EXECUTE, answer)


async def _result(peer: Peer, turn: Turn) -> FlowResult:
    """The result in the thread, else in what was streamed: the work is done, and not every Codex can read a thread."""
    failure: CodeModeFailure | None = None
    try:
        found = thread_result(await peer.call("thread/read", {"threadId": turn.thread_id, "includeTurns": True}))
    except CodeModeFailure as error:
        found, failure = turn.said(), error
    if isinstance(found, ResultFault) and found.type == "no_result":
        found = turn.said()
    if isinstance(found, FlowResult):
        return found
    raise failure or CodeModeFailure(found.message, hint='End the script with result({status: "completed"}).')


def _thread_id(answer: Any) -> str:
    thread = answer.get("thread") if isinstance(answer, dict) else None
    found = thread.get("id") if isinstance(thread, dict) else None
    if not isinstance(found, str) or not found:
        raise CodeModeFailure("the app-server's answer to thread/start has no thread id")
    return found


def _user_agent(hello: Any) -> str:
    found = hello.get("userAgent") if isinstance(hello, dict) else None
    return shorten(found) if isinstance(found, str) else "it does not say which"
