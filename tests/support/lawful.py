"""The doctor, as an assertion."""

from contextlib import closing

from stepwell.engine.doctor import Checked, examine
from stepwell.kernel.laws import Offence
from stepwell.model.settings import Settings
from stepwell.store.port import Store


def offences(store: Store, settings: Settings | None = None) -> list[Offence]:
    """Every law that the store's rows break."""
    with closing(store.reader()) as reader:
        return list(examine(reader, settings or Settings(), Checked()))


def assert_lawful(store: Store, settings: Settings | None = None) -> None:
    """No law is broken."""
    assert offences(store, settings) == []
