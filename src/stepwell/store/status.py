"""What an operator wants to know of a database before anything is opened."""

from msgspec import Struct


class TableSize(Struct, frozen=True):
    """`rows` and `dead` (versions that nobody can see any more) are estimates on PostgreSQL; None: not known."""

    name: str
    rows: int | None
    bytes: int | None = None
    dead: int | None = None


class Schema(Struct, frozen=True):
    """`applied` are numbers, `missing` names of migrations; `refused`: why a server of this program would not start."""

    applied: list[int]
    missing: list[str]
    refused: str | None = None


class Oldest(Struct, frozen=True):
    """The oldest transaction that keeps dead rows from going; `who`: process and application, as the server says."""

    who: str
    age_ms: int


class Status(Struct, frozen=True):
    """`lanes`: of servers, workers and commands that are connected. None, or no key: the store cannot tell."""

    database: str
    server: str
    bytes: int
    schema: Schema
    tables: list[TableSize]
    lanes: int | None = None
    connections: int | None = None
    oldest: Oldest | None = None
