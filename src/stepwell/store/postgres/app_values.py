"""Values of an app's statements: the same six kinds as on the other stores, and lists of them.

A number is what it would be if it were written in the statement: `integer` where it fits, else `bigint`. What comes
back and has no like in Python's plain values comes as text: a time in ISO 8601 and UTC, JSON and all else as
PostgreSQL shows it.
"""

from datetime import UTC
from decimal import Decimal
from typing import Any

from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper, Loader, PyFormat
from psycopg.types.datetime import DateLoader, TimeLoader, TimestampLoader, TimestamptzLoader, TimetzLoader
from psycopg.types.numeric import Int4Dumper, Int8Dumper
from psycopg.types.string import TextLoader

_INT4 = 1 << 31
_RANGES = "int4range int8range numrange daterange tsrange tstzrange"
_MULTIRANGES = "int4multirange int8multirange nummultirange datemultirange tsmultirange tstzmultirange"
_AS_TEXT = ("interval", "inet", "cidr", "json", "jsonb", "uuid", "record", *_RANGES.split(), *_MULTIRANGES.split())


class Written(Dumper):
    """An integer, as if it were written in the statement."""

    def get_key(self, obj: Any, format: PyFormat) -> Any:  # noqa: A002 - psycopg's name
        return Int4Dumper if -_INT4 <= obj < _INT4 else Int8Dumper

    def upgrade(self, obj: Any, format: PyFormat) -> Dumper:  # noqa: A002 - psycopg's name
        return (Int4Dumper if -_INT4 <= obj < _INT4 else Int8Dumper)(int)

    def dump(self, obj: Any) -> Buffer | None:
        raise NotImplementedError("one of the others is asked")


class Number(Loader):
    """A numeric: an int if it is whole, else the nearest float."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data).decode()
        if text.isdecimal():
            return int(text)
        exact = Decimal(text)
        return int(exact) if exact.is_finite() and exact == exact.to_integral_value() else float(exact)


class Date(DateLoader):
    """A date as text."""

    def load(self, data: Buffer) -> Any:
        return super().load(data).isoformat()


class Time(TimeLoader):
    """A time of day as text."""

    def load(self, data: Buffer) -> Any:
        return super().load(data).isoformat()


class Timetz(TimetzLoader):
    """A time of day with its offset as text."""

    def load(self, data: Buffer) -> Any:
        return super().load(data).isoformat()


class Timestamp(TimestampLoader):
    """A time without a zone as text."""

    def load(self, data: Buffer) -> Any:
        return super().load(data).isoformat()


class Timestamptz(TimestamptzLoader):
    """A moment as text, in UTC."""

    def load(self, data: Buffer) -> Any:
        return super().load(data).astimezone(UTC).isoformat()


def adapt(adapters: AdaptersMap) -> None:
    """Lets values go to and come from an app's statements as they should."""
    adapters.register_dumper(int, Written)
    adapters.register_loader("numeric", Number)
    for name, loader in _TIMES.items():
        adapters.register_loader(name, loader)
    for name in _AS_TEXT:
        adapters.register_loader(name, TextLoader)


_TIMES: dict[str, type[Loader]] = {
    "date": Date,
    "time": Time,
    "timetz": Timetz,
    "timestamp": Timestamp,
    "timestamptz": Timestamptz,
}
