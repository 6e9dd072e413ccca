"""What the program prints is bounded, and its result is a line of its own."""

import io

from stepwell.flows.codemode.output import MAX_LINE_CHARS, MAX_NOTE_CHARS, MAX_NOTES, Output


def test_text_is_passed_on_as_it_is() -> None:
    stdout = io.StringIO()
    output = Output(stdout, io.StringIO())
    for text in ("a", "\n\nb\r\n", "", "x" * MAX_LINE_CHARS):
        output.text(text)
    output.result("FLOW_RESULT {}")
    assert stdout.getvalue() == "a\n\nb\r\n" + "x" * MAX_LINE_CHARS + "\nFLOW_RESULT {}\n"


def test_lines_are_broken_when_they_get_too_long() -> None:
    stdout = io.StringIO()
    output = Output(stdout, io.StringIO())
    output.text("begin\n" + "x" * (MAX_LINE_CHARS - 1))
    output.text("y" * (2 * MAX_LINE_CHARS) + "\nend")
    begin, *lines, end = stdout.getvalue().split("\n")
    assert (begin, end) == ("begin", "end")
    assert [len(line) for line in lines] == [MAX_LINE_CHARS, MAX_LINE_CHARS, MAX_LINE_CHARS - 1]


def test_notes_are_bounded() -> None:
    stderr = io.StringIO()
    output = Output(io.StringIO(), stderr)
    for _ in range(100):
        output.note("x" * 10_000)
    output.last_words("it failed", "")
    lines = stderr.getvalue().splitlines()
    assert len(lines) == MAX_NOTES + 2
    assert max(map(len, lines)) == MAX_NOTE_CHARS + len("code mode: ")
    assert lines[-2:] == ["code mode: further notes are not shown", "code mode failed: it failed"]
