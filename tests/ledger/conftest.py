"""Both engines of the ledger, behind one interface: every test of its decisions runs on each."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from banana.ledger.ledger import Ledger
from banana.ledger.redis import RedisLedger
from banana.ledger.sqlite import SQLiteLedger
from tests.redis_server import RedisServer
from tests.services import needs

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()  # a Monday


class Clock:
    """The time, for both engines: of this process, and instead of Redis' own."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.time", clock)
    return clock


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs("redis-server"))])
def opened(request: pytest.FixtureRequest, clock: Clock) -> Callable[[], Ledger]:
    """Opens the ledger, empty at first, as one more process does."""
    if request.param == "sqlite":
        return lambda: SQLiteLedger(Path("state/ledger.db"))
    redis: RedisServer = request.getfixturevalue("redis")
    redis.empty()
    return lambda: RedisLedger(redis.url, clock)


@pytest.fixture
def ledger(opened: Callable[[], Ledger]) -> Iterator[Ledger]:
    ledger = opened()
    yield ledger
    ledger.close()
