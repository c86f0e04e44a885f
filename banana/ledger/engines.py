"""Which engine the ledger has: SQLite on one machine, Redis or Valkey over several."""

from pathlib import Path
from typing import TYPE_CHECKING

from banana.intervals import INTERVALS, Intervals
from banana.ledger.sqlite import SQLiteLedger

if TYPE_CHECKING:
    from banana.ledger.redis import RedisLedger


def is_shared(store_url: str) -> bool:
    """Return whether several machines can share the store."""
    return store_url.startswith("redis")


def open_ledger(
    store_url: str, file: Path, *, is_file: bool, is_demo: bool = False, intervals: Intervals = INTERVALS
) -> "SQLiteLedger | RedisLedger":
    """Return the ledger in `file`, or else the one in the store; it is opened when it is first used.

    Raises LedgerError when `store_url` is no address.
    """
    if is_file:
        return SQLiteLedger(file, intervals)
    # Not at the top: Redis' client takes 40 ms to import, and by default the store is a file.
    from banana.ledger.redis import RedisLedger

    return RedisLedger(store_url, is_demo=is_demo)
