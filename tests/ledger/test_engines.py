"""Which engine the ledger has."""

from pathlib import Path

import pytest

import config
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
    settings = config.read(gemini_api_key=("k",), store_url=store_url)

    assert type(open_ledger(store_url, settings.ledger_file, is_file=settings.ledger_is_a_file)) is engine


def test_a_ledger_of_its_own_goes_before_the_store() -> None:
    """Also beside a Redis, which then only counts."""
    settings = config.read(gemini_api_key=("k",), store_url="redis://h", ledger_url="sqlite:///elsewhere/money.db")

    assert settings.ledger_is_a_file
    assert settings.ledger_file == Path("elsewhere/money.db")
