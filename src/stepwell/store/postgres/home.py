"""Where the app's tables are: a schema beside the kernel's, and the role that statements of the app may have."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from stepwell.store.postgres.sql import sql

#: PostgreSQL cuts off longer names, without a word.
MAX_NAME_BYTES = 63


class Home(Struct, frozen=True):
    """The kernel's schema and the app's; `role` is None where the operator made none.

    `deferred`: constraints that are checked at the commit, unless they are named before, as SQL writes them.
    """

    kernel: str
    role: str | None
    deferred: tuple[str, ...]

    @property
    def app(self) -> str:
        """The app's schema."""
        return f"{self.kernel}_app"

    @property
    def path(self) -> str:
        """What names without a schema are looked for in; temporary things come last, so that they hide nothing."""
        return f"{quoted(self.app)}, pg_temp"


def read_home(rows: Callable[[str], list[tuple[Any, ...]]]) -> Home:
    """`rows` runs a statement and answers its rows."""
    kernel, role, deferred = rows(sql("app/home"))[0]
    return Home(kernel or "", role, tuple(deferred))


def quoted(name: str) -> str:
    """A name as SQL writes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
