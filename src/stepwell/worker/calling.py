"""Calls of queries and mutations that are no step of their own: an action's, and the queries of a workflow."""

from collections.abc import Mapping
from typing import Any, Protocol


class Calling(Protocol):
    """Runs a query in one snapshot, or a mutation as a commit of its own, where the store is."""

    async def call(
        self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, scope: str = "main", by: str = ""
    ) -> Any:
        """The result, typed. Raises what the function raised, as the error of functions."""
