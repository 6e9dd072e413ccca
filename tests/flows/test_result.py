import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.flows.result import STATUSES, FlowResult, ResultFault, ResultScanner

GOOD = 'FLOW_RESULT {"status":"completed"}'


def scan(*chunks: str, limit: int = 1024 * 1024) -> FlowResult | ResultFault:
    scanner = ResultScanner(limit)
    for chunk in chunks:
        scanner.feed(chunk)
    return scanner.finish()


def good(text: str) -> FlowResult:
    found = scan(text)
    assert isinstance(found, FlowResult), found
    return found


def fault(text: str, limit: int = 1024 * 1024) -> ResultFault:
    found = scan(text, limit=limit)
    assert isinstance(found, ResultFault)
    return found


@pytest.mark.parametrize("status", STATUSES)
def test_all_statuses(status: str) -> None:
    assert good(f'FLOW_RESULT {{"status":"{status}"}}\n').status == status


def test_the_whole_shape() -> None:
    raw = {
        "status": "changed", "message": "m", "artifacts": {"a": 1}, "more": [1],
        "next": [{"type": "t", "payload": None}, {"id": "e", "type": "t", "extra": 1}],
    }  # fmt: skip
    found = good(f"FLOW_RESULT {json.dumps(raw)}\r\n")
    assert (found.message, found.artifacts, found.next, found.raw) == ("m", {"a": 1}, tuple(raw["next"]), raw)
    assert good(GOOD) == FlowResult("completed", None, None, (), {"status": "completed"})


@pytest.mark.parametrize(
    "text",
    [
        f"{GOOD}\nlater lines do no harm\n\n",
        f"12:00 step: {GOOD}",
        f"FLOW_RESULT nonsense\n{GOOD}",
        f"FLOW_RESULT nonsense\r\n{GOOD}\r\n",
        f"{GOOD}  \t\r\n",
        "FLOW_RESULT \t" + GOOD.removeprefix("FLOW_RESULT "),
        "FLOW_RESULT_ FLOW_RESULT" + GOOD,
        "x" * 1_000_000 + GOOD,
        ("x" * 1_000_000 + "\n") * 3 + GOOD,
        f"{GOOD}\n" + ("y" * 1_000_000 + "\n") * 3,
    ],
)
def test_the_last_line_with_the_mark_decides(text: str) -> None:
    assert good(text).status == "completed"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("", "no_result", "did not print"),
        ("FLOW_RESULT", "no_result", "did not print"),
        ("FLOW_\nRESULT {}", "no_result", "did not print"),
        (f"{GOOD}\nFLOW_RESULT nonsense", "bad_result", "not JSON"),
        (f"{GOOD}\nFLOW_RESULT ", "bad_result", "not JSON"),
        ("FLOW_RESULT []", "bad_result", "must be a JSON object"),
        ("FLOW_RESULT {}", "bad_result", "status is None"),
        ('FLOW_RESULT {"status":"done"}', "bad_result", "status is 'done'; it must be one of skipped, completed"),
        ('FLOW_RESULT {"status":["completed"]}', "bad_result", "status"),
        ('FLOW_RESULT {"status":"completed","message":1}', "bad_result", "message must be a text"),
        ('FLOW_RESULT {"status":"completed","artifacts":[]}', "bad_result", "artifacts must be an object"),
        ('FLOW_RESULT {"status":"completed","next":{}}', "bad_result", "next must be an array"),
        ('FLOW_RESULT {"status":"completed","next":["{}"]}', "bad_result", "next[0] must be an object"),
        ('FLOW_RESULT {"status":"completed","next":[{"type":"t"},{}]}', "bad_result", "next[1]: event.type"),
        ('FLOW_RESULT {"status":"completed","message":"\\ud800"}', "bad_result", "surrogates"),
        ('FLOW_RESULT {"status":"completed","n":NaN}', "bad_result", "not JSON"),
        (f"{GOOD} {GOOD}", "bad_result", "not JSON"),
        ("FLOW_RESULT " + "[" * 100_000, "bad_result", "nested deeper"),
    ],
)  # fmt: skip
def test_faults_are_told(text: str, kind: str, message: str) -> None:
    found = fault(text)
    assert found.type == kind
    assert message in found.message


def test_a_line_over_the_limit_is_too_large_with_a_result_in_it_or_not() -> None:
    large = 'FLOW_RESULT {"status":"completed","message":"' + "é" * 60 + '"}'
    for text in (large, f"{large}\nmore\n", f"{large}\n{GOOD}", f"{GOOD}\n{'é' * 51}", f"{'x' * 101}\n{GOOD}"):
        found = fault(text, limit=100)
        assert (found.type, found.message) == ("too_large", "a line of stdout is over 100 bytes; no line may be")
    assert isinstance(scan(f"{'é' * 50}\n{'x' * 100}\n{GOOD}", limit=100), FlowResult)


def test_a_line_of_exactly_one_mebibyte_is_the_longest() -> None:
    begin, end = 'FLOW_RESULT {"status":"completed","message":"', '"}'
    message = "x" * (1024 * 1024 - len(begin) - len(end))
    assert good(f"{begin}{message}{end}\n").message == message
    assert fault(f"{begin}{message}x{end}\n").type == "too_large"
    assert "1048576 bytes" in fault(f"{begin}{message}x{end}\n").message


def test_memory_stays_flat() -> None:
    scanner = ResultScanner(1_000)
    for text in ["FLOW_RESULT ", *["x" * 65_536] * 100, "\n", *["FLOW_RESUL"] * 100, "FLOW_RESULT ", "y" * 999]:
        scanner.feed(text)
        held = sum(map(len, scanner._parts or [])) + len(scanner._carry)
        assert held <= 1_000


LINES = st.sampled_from(["\n", "\r\n", "FLOW_RESULT ", "FLOW_RES", "ULT ", '{"status":"failed"}', "{}", "é", "x", GOOD])


@given(
    st.lists(LINES, max_size=12).map("".join),
    st.lists(st.integers(1, 7), min_size=1, max_size=30),
    st.sampled_from([15, 99]),
)
def test_chunks_do_not_matter(text: str, sizes: list[int], limit: int) -> None:
    chunks: list[str] = []
    rest = text
    while rest:
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(rest[:size])
        rest = rest[size:]
    assert scan(*chunks, limit=limit) == scan(text, limit=limit) == _reference(text, limit)


def _reference(text: str, limit: int) -> FlowResult | ResultFault:
    """The rule as the spec tells it: from the last line backwards."""
    if any(len(line.encode()) > limit for line in text.split("\n")):
        return ResultFault("too_large", f"a line of stdout is over {limit} bytes; no line may be")
    for line in reversed(text.split("\n")):
        _, mark, body = line.partition("FLOW_RESULT ")
        if mark:
            return scan(f"FLOW_RESULT {body}", limit=limit)
    return ResultFault("no_result", "the step did not print a FLOW_RESULT line")
