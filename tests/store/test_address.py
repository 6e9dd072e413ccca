"""What is printed of a database's address: nothing that is a secret, however wrong it is."""

import pytest

from stepwell import Stepwell, StepwellError, blocking
from stepwell.model.settings import Settings
from stepwell.store.address import public_address
from stepwell.worker.local import open_store

SECRET = "s3cr"
ADDRESSES = (
    f"postgresql://ann:{SECRET}et@db.example:5432/shop",
    f"postgres://ann:{SECRET}et@db.example/shop?sslmode=require",
    f"postgresql://ann:{SECRET}/e:t@db.example/shop",
    f"postgresql://ann:{SECRET}?e#t@db.example/shop",
    f"postgresql://ann:{SECRET}@et@db.example/shop",
    f"postgresql://ann:et@db.example:{SECRET}/shop",
    f"postgresql://db.example/shop?user=ann&password={SECRET}@et",
    f"postgresql://db.example/shop?sslpassword={SECRET}",
    f"postgresql://ann:{SECRET}%zz@db.example/shop",
    f"mysql://ann:{SECRET}et@db.example/shop",
)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory:", "memory:"),
        ("sqlite:////srv/a@b?c.db", "sqlite:////srv/a@b?c.db"),
        (ADDRESSES[0], "postgresql://db.example:5432/shop"),
        (ADDRESSES[1], "postgres://db.example/shop"),
        (ADDRESSES[3], "postgresql://db.example/shop"),
        (ADDRESSES[6], "postgresql://…"),
        ("postgresql:///shop?host=/run/postgresql", "postgresql:///shop"),
    ],
)
def test_what_is_shown(url: str, shown: str) -> None:
    assert public_address(url) == shown


@pytest.mark.parametrize("url", [one for one in ADDRESSES if ":" + SECRET + "/shop" not in one])
def test_the_secret_is_never_shown(url: str) -> None:
    assert SECRET not in public_address(url)


@pytest.mark.parametrize("url", ADDRESSES)
def test_no_error_and_no_repr_tells_it(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The host is one that nobody has, or the address is none at all."""
    url = url.replace("db.example", "127.0.0.1:1" if url.count(":") < 4 and ":5432" not in url else "127.0.0.1")
    with pytest.raises(StepwellError) as opened:
        open_store(url, Settings()).migrate()
    with pytest.raises(StepwellError) as blocked, blocking.Stepwell(url):
        pass
    sw = Stepwell(url)
    for told in (opened.value, blocked.value, sw, sw._connection):
        assert SECRET not in f"{told} {told!r} {getattr(told, 'hint', '')} {getattr(told, 'fields', '')}"
    assert SECRET not in caplog.text
