"""Mutations without functions: a test says what each call answers."""

from collections.abc import Callable, Collection

from stepwell.kernel.calls import Call, Called
from stepwell.kernel.unit import Unit


class Scripted:
    """Answers the calls of some names with what `answer` says of them."""

    def __init__(
        self, answer: Callable[[Call], tuple[bool, str]], names: Collection[str] = ("m:f", "m:good", "m:bad")
    ) -> None:
        self.names, self.answer = names, answer
        self.took_ms = 0.0

    def call(self, unit: Unit, call: Call, now: int) -> Called:
        done, text = self.answer(call)
        return Called(done, text, self.took_ms)
