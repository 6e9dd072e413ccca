"""What tests of the kernel share: a lane without its thread, a clock, stores to choose from, the doctor."""

from tests.support.bench import Bench, Clock
from tests.support.lawful import assert_lawful, offences
from tests.support.snapshot import plain, snapshot, stamp
from tests.support.stores import LITE, STORES, by_hand, durable, durable_url, on_postgres, open_store

__all__ = [
    "LITE",
    "STORES",
    "Bench",
    "Clock",
    "assert_lawful",
    "by_hand",
    "durable",
    "durable_url",
    "offences",
    "on_postgres",
    "open_store",
    "plain",
    "snapshot",
    "stamp",
]
