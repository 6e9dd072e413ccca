"""A `stepwell` command whose leases are shorter than any that a user can set: a storm sees more takeovers so."""

from collections.abc import Mapping
from unittest.mock import patch

import msgspec

from stepwell.cli import common
from stepwell.cli.main import main
from stepwell.model.settings import Settings, settings_from

LEASE_MS = 3_000


def short_leases(environ: Mapping[str, str]) -> Settings:
    settings = settings_from(environ)
    msgspec.structs.force_setattr(settings, "lease_ms", LEASE_MS)
    return settings


if __name__ == "__main__":
    with patch.object(common, "settings_from", short_leases):
        main()
