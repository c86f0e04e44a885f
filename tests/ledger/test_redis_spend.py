"""What was spent, in Redis; its decisions are in test_spend."""

import calendar
from datetime import UTC, datetime

import pytest

from banana.ledger.redis import RedisLedger
from banana.ledger.spend import KEY_WINDOW_SECONDS, Spent, Window
from tests.ledger.conftest import Clock
from tests.redis_server import RedisServer
from tests.services import needs

pytestmark = needs("redis-server")


@pytest.fixture
def ledger(redis: RedisServer, clock: Clock) -> RedisLedger:
    redis.empty()
    return RedisLedger(redis.url, clock)


def test_months_are_those_of_the_calendar(ledger: RedisLedger, clock: Clock) -> None:
    """On the first and the last day of every month of six years: what was spent before does not count, what was since does."""
    for year in range(2024, 2030):
        for month in range(1, 13):
            caller = f"{year}-{month}"
            first = datetime(year, month, 1, tzinfo=UTC).timestamp()
            for number, now in enumerate((first - 1, first)):
                clock.now = now
                assert ledger.spend.reserve(f"{caller}-{number}", "w", caller, 10, 10, Window.MONTH), caller
            clock.now = datetime(year, month, calendar.monthrange(year, month)[1], 23, tzinfo=UTC).timestamp()
            assert not ledger.spend.reserve(f"{caller}-2", "w", caller, 1, 10, Window.MONTH), caller


def test_amounts_are_exact(ledger: RedisLedger) -> None:
    """To the nanodollar, in sums that Redis itself would write as 1e+15."""
    limit = 10**15
    assert ledger.spend.reserve("a", "w", "ann", limit - 1, limit, Window.DAY)
    assert not ledger.spend.reserve("b", "w", "ann", 2, limit, Window.DAY)
    assert ledger.spend.reserve("b", "w", "ann", 1, limit, Window.DAY)
    assert ledger.spend.spent("ann") == Spent(reserved_day=limit, reserved_month=limit)
    ledger.spend.settle("a", limit - 3)
    ledger.spend.lapse("w")

    assert ledger.spend.spent("ann").ever == limit - 2


def test_a_keys_window_leaves_nothing_behind(ledger: RedisLedger, redis: RedisServer, clock: Clock) -> None:
    """Its sum is that of what is in it, however often it was used."""
    for number in range(30):
        assert ledger.spend.take_room(f"r{number}", "w", "key", 10, 1000) == 0
        ledger.spend.settle_room(f"r{number}", 7)
        clock.now += 1
    assert ledger.spend.take_room("more", "w", "key", 1000 - 30 * 7 + 1, 1000) == KEY_WINDOW_SECONDS - 30
    clock.now += KEY_WINDOW_SECONDS
    assert ledger.spend.take_room("all", "w", "key", 1000, 1000) == 0
    ledger.spend.settle_room("all", 0)
    ledger.sweep()

    assert redis.keys() <= {"key_sum", "session"}
