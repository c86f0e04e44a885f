"""Which engine the ledger has."""

from pathlib import Path

import pytest

from banana.ledger.engines import open_ledger
from banana.ledger.redis import RedisLedger
from banana.ledger.sqlite import SQLiteLedger


@pytest.mark.parametrize(
    ("store_url", "engine"),
    [("sqlite:///.state/banana.db", SQLiteLedger), ("memory://", SQLiteLedger), ("redis://h:1/2", RedisLedger),
     ("rediss://h", RedisLedger), ("redis+unix:///run/redis.sock", RedisLedger)],
)  # fmt: skip
def test_the_store_decides(store_url: str, engine: type) -> None:
    """A Redis has everything; beside any other store there is a file."""
    assert type(open_ledger(store_url, Path("ledger.db"))) is engine
