"""A long list, by pages or one by one (source: API, Paged)."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self, TypeVar

from stepwell.model.errors import Invalid

T = TypeVar("T")
#: A part of a list, and the position that asks for the rest; None at the end.
Part = tuple[list[T], int | None]
Fetch = Callable[[int | None, int], Awaitable[Part[T]]]
MAX_PAGE = 500


class Paged(AsyncIterator[T]):
    """Newest first. `async for` goes through all of it; `page` gives a part and the cursor of the next."""

    def __init__(self, fetch: Fetch[T]) -> None:
        self._fetch = fetch
        self._items: list[T] = []
        self._before: int | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._over:
                raise StopAsyncIteration
            items, self._before = await self._fetch(self._before, 100)
            self._items, self._over = items[::-1], self._before is None
        return self._items.pop()

    async def page(self, cursor: str | None = None, limit: int = 100) -> tuple[list[T], str | None]:
        """Up to `limit` (1 to 500) items after a cursor; it may be fewer, and there is more unless the cursor is None.

        Raises `Invalid` for what is no cursor.
        """
        if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
            raise Invalid(f"limit must be from 1 to {MAX_PAGE}, not {limit!r:.80}", hint="Leave it out for 100.")
        items, before = await self._fetch(None if cursor is None else _position(cursor), limit)
        return items, None if before is None else str(before)


def _position(cursor: object) -> int:
    if not isinstance(cursor, str) or not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 18:
        raise Invalid(f"this is no cursor: {cursor!r:.80}", hint="Give the cursor of the page before.", field="cursor")
    return int(cursor)
