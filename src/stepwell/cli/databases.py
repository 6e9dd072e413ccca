"""Databases as the commands of `stepwell db` name them: by file or URL, as the source or the target of a copy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from stepwell.model.errors import Invalid
from stepwell.model.settings import Settings
from stepwell.store.copying import Source, Target
from stepwell.store.sqlite import copying as sqlite_copying
from stepwell.worker.local import open_store

if TYPE_CHECKING:  # its driver may not be there
    from stepwell.store.postgres.store import PostgresStore

FORMS = "Write FILE, sqlite:///FILE, or postgresql://USER@HOST/DATABASE."


class Database(Struct, frozen=True):
    """A database on a disk: a file, or a URL of PostgreSQL that may hold a password."""

    url: str
    settings: Settings

    @property
    def path(self) -> Path | None:
        """The file; None on PostgreSQL."""
        return Path(self.url.removeprefix("sqlite:///")) if self.url.startswith("sqlite:///") else None

    @property
    def shown(self) -> str:
        """What may be printed."""
        return str(self.path) if self.path is not None else self.postgres().url

    def postgres(self) -> "PostgresStore":
        """The store of a URL that is one of PostgreSQL. Raises `Invalid` without a driver, and for a wrong URL."""
        store = open_store(self.url, self.settings)
        from stepwell.store.postgres.store import PostgresStore

        assert isinstance(store, PostgresStore)
        return store

    @contextmanager
    def reading(self, *, alone: bool) -> Iterator[Source]:
        """A moment of it; `alone`: nobody writes to it meanwhile."""
        if self.path is not None:
            with sqlite_copying.reading(self.path, alone=alone) as file:
                yield file
            return
        store = self.postgres()
        from stepwell.store.postgres import copying

        with copying.reading(store, alone=alone) as source:
            yield source

    @contextmanager
    def writing(self, origin: str) -> Iterator[Target]:
        """It, empty, to be filled from `origin`."""
        if self.path is not None:
            with sqlite_copying.writing(self.path) as file:
                yield file
            return
        store = self.postgres()
        from stepwell.store.postgres import copying

        with copying.writing(store, origin) as target:
            yield target


def database(named: str, settings: Settings) -> Database:
    """What an argument or --db names. Raises `Invalid` for what is neither a file nor PostgreSQL."""
    if named.startswith(("postgresql://", "postgres://", "sqlite:///")):
        return Database(named, settings)
    if "://" in named or named.startswith("memory:") or not named:
        raise Invalid(f"{named.partition('://')[0]!r:.40} is no database that can be copied", hint=FORMS)
    return Database(f"sqlite:///{Path(named).absolute()}", settings)
