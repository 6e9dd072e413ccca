"""What the program prints: what Codex says on stdout, its own notes on stderr (source: spec codex-flows 3.2)."""

from typing import TextIO

#: What begins the line on stderr that says why the step failed; its hint is the next line.
FAILED = "code mode failed: "
MAX_NOTES = 20
MAX_NOTE_CHARS = 500
# Less than the bytes that a line of a step's stdout may have, whatever the characters.
MAX_LINE_CHARS = 250_000


class Output:
    """Text goes out at once, in lines of at most `MAX_LINE_CHARS`: a longer one is broken, and does no harm.

    Notes are bounded, in number and length; `last_words` are not counted among them.
    """

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        self._stdout, self._stderr = stdout, stderr
        self._notes = 0
        self._room = MAX_LINE_CHARS

    def text(self, text: str) -> None:
        """Pass on what Codex says."""
        first, *others = text.split("\n")
        lines = [self._broken(first)]
        for line in others:
            self._room = MAX_LINE_CHARS
            lines.append(self._broken(line))
        self._stdout.write("\n".join(lines))
        self._stdout.flush()

    def result(self, text: str) -> None:
        """The last line, in one piece."""
        self._stdout.write(f"\n{text}\n")
        self._stdout.flush()

    def note(self, text: str) -> None:
        """Tell what was odd; after `MAX_NOTES` nothing more."""
        self._notes += 1
        if self._notes <= MAX_NOTES:
            self._say(text[:MAX_NOTE_CHARS])
        elif self._notes == MAX_NOTES + 1:
            self._say("further notes are not shown")

    def last_words(self, message: str, hint: str) -> None:
        """Tell why the step failed. The last thing on stderr, since the end of it is what is kept."""
        self._stderr.write(f"{FAILED}{message}\n" + (f"hint: {hint}\n" if hint else ""))
        self._stderr.flush()

    def _broken(self, line: str) -> str:
        """More of the line that is being written, with newlines where it gets too long."""
        pieces = []
        while len(line) > self._room:
            pieces.append(line[: self._room])
            line, self._room = line[self._room :], MAX_LINE_CHARS
        self._room -= len(line)
        return "\n".join((*pieces, line))

    def _say(self, text: str) -> None:
        self._stderr.write(f"code mode: {text}\n")
        self._stderr.flush()
