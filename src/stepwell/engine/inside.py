"""Whether the code that runs now runs inside a mutation: then a call of the engine would wait for itself.

The name of the mutation is a context variable, so what it hands to the event loop of another thread is its own.
"""

from contextvars import ContextVar

from stepwell.model.errors import Nested

INSIDE: ContextVar[str | None] = ContextVar("stepwell_mutation", default=None)


def refuse_inside() -> None:
    """Raises `Nested` inside a mutation."""
    name = INSIDE.get()
    if name is not None:
        raise Nested(f"mutation {name} calls the engine", function=name)
