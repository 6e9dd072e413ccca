"""Databases as the commands of `stepwell db` name them: by file or URL, as the source or the target of a copy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from stepwell.cli.app import load_app
from stepwell.functions.migrations import read_migrations
from stepwell.model.errors import Invalid
from stepwell.model.settings import Settings
from stepwell.store.copying import Prepare, Source, Target, nothing
from stepwell.store.port import Store
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
    def writing(self, origin: str, prepare: Prepare = nothing) -> Iterator[Target]:
        """It, empty, to be filled from `origin`; `prepare` makes the app's tables."""
        if self.path is not None:
            with sqlite_copying.writing(self.path, prepare=prepare) as file:
                yield file
            return
        store = self.postgres()
        from stepwell.store.postgres import copying

        with copying.writing(store, origin, prepare) as target:
            yield target


def database(named: str, settings: Settings) -> Database:
    """What an argument or --db names. Raises `Invalid` for what is neither a file nor PostgreSQL."""
    if named.startswith(("postgresql://", "postgres://", "sqlite:///")):
        return Database(named, settings)
    if "://" in named or named.startswith("memory:") or not named:
        raise Invalid(f"{named.partition('://')[0]!r:.40} is no database that can be copied", hint=FORMS)
    return Database(f"sqlite:///{Path(named).absolute()}", settings)


def app_tables(app: str | None, cwd: Path) -> Prepare:
    """What makes the tables of an app that --app names. Raises `Invalid` for one that is not there."""
    loaded = load_app(app, cwd)
    if loaded is None or loaded.migrations is None:
        return nothing
    name, folder = loaded.name, loaded.migrations
    return lambda store: _applied(store, name, folder)


def _applied(store: Store, app: str, folder: Path) -> None:
    store.migrate_app(app, read_migrations(folder, store.dialect))
