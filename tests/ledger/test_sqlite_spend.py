"""What was spent, in SQLite: each of its decisions, by a clock of the test's own."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from banana.ledger.ledger import LedgerError
from banana.ledger.spend import KEY_WINDOW_SECONDS, Spent, Window, day_of, reservation_id_of
from banana.ledger.sqlite import SQLiteLedger
from banana.ledger.sqlite_spend import SQLiteSpend
from tests.ledger.entries import ENTRY

FILE = Path("state/ledger.db")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()  # a Monday
DAY = 86_400


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.time", clock)
    return clock


@pytest.fixture
def ledger() -> SQLiteLedger:
    return SQLiteLedger(FILE)


@pytest.fixture
def spend(ledger: SQLiteLedger) -> SQLiteSpend:
    return ledger.spend


def reserve(spend: SQLiteSpend, name: str, amount: int, limit: int = 10, window: Window = Window.DAY) -> bool:
    return spend.reserve(name, "owner", "ann", amount, limit, window)


def test_what_fits_is_reserved(spend: SQLiteSpend) -> None:
    """To the last nanodollar, and no further; another caller has a budget of its own."""
    assert [reserve(spend, name, 5) for name in "abc"] == [True, True, False]
    assert spend.reserve("d", "owner", "bob", 10, 10, Window.DAY)
    assert spend.spent("ann") == Spent(reserved_day=10, reserved_month=10)


def test_a_reservation_is_settled_by_what_was_spent(spend: SQLiteSpend) -> None:
    """What is left of it is there again, and nothing at all is spent by what cost nothing."""
    reserve(spend, "a", 8)
    spend.settle("a", 3)
    reserve(spend, "b", 7)
    spend.settle("b", 0)

    assert spend.spent("ann") == Spent(ever=3, day=3, week=3, month=3)


def test_a_settlement_counts_once(spend: SQLiteSpend) -> None:
    """Whoever does not know whether it was recorded says it again."""
    reserve(spend, "a", 8)
    spend.settle("a", 3)
    spend.settle("a", 3)

    assert spend.spent("ann").ever == 3


def test_what_cost_more_than_was_reserved_counts(spend: SQLiteSpend) -> None:
    """The next one does not fit."""
    reserve(spend, "a", 8)
    spend.settle("a", 11)

    assert not reserve(spend, "b", 0)


def test_midnight_begins_a_new_day(spend: SQLiteSpend, clock: Clock) -> None:
    """What was reserved before it is spent on the day before."""
    reserve(spend, "a", 10)
    clock.now += DAY
    assert reserve(spend, "b", 10)
    spend.settle("a", 10)

    assert spend.spent("ann") == Spent(ever=10, week=10, month=10, reserved_day=10, reserved_month=10)


def test_a_month_is_a_longer_window(spend: SQLiteSpend, clock: Clock) -> None:
    """It holds over its days, and ends with the month."""
    assert reserve(spend, "a", 10, window=Window.MONTH)
    spend.settle("a", 10)
    clock.now += 7 * DAY
    assert not reserve(spend, "b", 1, window=Window.MONTH)
    clock.now += DAY

    assert reserve(spend, "b", 1, window=Window.MONTH)
    assert spend.spent("ann") == Spent(ever=10, reserved_day=1, reserved_month=1)


def test_of_many_at_once_no_more_than_fit_are_reserved() -> None:
    """Each process has a connection of its own."""
    ledgers = [SQLiteLedger(FILE) for _ in range(4)]
    barrier = Barrier(4)

    def storm(number: int) -> int:
        barrier.wait()
        return sum(reserve(ledgers[number].spend, f"{number}-{index}", 3) for index in range(10))

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(storm, range(4))) == 3


def test_what_a_dead_owner_reserved_is_charged(spend: SQLiteSpend) -> None:
    """Only its own; and what it says later after all is believed."""
    reserve(spend, "a", 6)
    spend.reserve("b", "other", "ann", 1, 10, Window.DAY)
    assert spend.owners() == {"owner", "other"}
    assert spend.lapse("owner") == 1

    assert spend.spent("ann") == Spent(ever=6, day=6, week=6, month=6, reserved_day=1, reserved_month=1)
    assert spend.owners() == {"other"}
    assert spend.lapse("owner") == 0
    spend.settle("a", 2)
    assert spend.spent("ann").ever == 2


@pytest.mark.parametrize("taken_up", [False, True])
def test_what_was_reserved_for_an_entry_that_was_not_sent_is_given_back(ledger: SQLiteLedger, taken_up: bool) -> None:
    """Its owner died between the two; whoever takes the entry up, and sends it, has reserved for itself."""
    ledger.begin(replace(ENTRY, owner="owner"))
    reserve(ledger.spend, reservation_id_of(ENTRY.id, "owner"), 6)
    if taken_up:
        ledger.take_up(ENTRY.id, "owner", "other")
        ledger.mark_sent(ENTRY.id, "other")
    ledger.spend.lapse("owner")

    assert ledger.spend.spent("ann") == Spent()


def test_what_was_sent_is_charged(ledger: SQLiteLedger) -> None:
    """The owner of an entry died after it."""
    ledger.begin(replace(ENTRY, owner="owner"))
    reserve(ledger.spend, reservation_id_of(ENTRY.id, "owner"), 6)
    ledger.mark_sent(ENTRY.id, "owner")
    ledger.spend.lapse("owner")

    assert ledger.spend.spent("ann").ever == 6


def test_two_owners_of_an_entry_reserve_each_for_itself(spend: SQLiteSpend) -> None:
    """One was stopped, and finds that it is not its own any more: what the other reserved stays."""
    reserve(spend, reservation_id_of(ENTRY.id, "other"), 4)
    reserve(spend, reservation_id_of(ENTRY.id, "owner"), 4)
    spend.settle(reservation_id_of(ENTRY.id, "owner"), 0)
    spend.settle(reservation_id_of(ENTRY.id, "other"), 3)

    assert spend.spent("ann") == Spent(ever=3, day=3, week=3, month=3)


def test_what_was_spent_without_a_budget_is_added(spend: SQLiteSpend) -> None:
    """By caller and day."""
    today = day_of(NOON)
    spend.add([("ann", today, 2), ("bob", today, 1), ("ann", today - 1, 4)])

    assert spend.spent("ann").ever >= 6


def test_the_sums_of_old_days_stay(spend: SQLiteSpend, clock: Clock) -> None:
    """In one row a caller; what was presumed long ago is final."""
    reserve(spend, "a", 6)
    spend.lapse("owner")
    spend.add([("ann", day_of(NOON) + day, 1) for day in range(5)])
    clock.now += 100 * DAY
    spend.sweep()
    spend.sweep()
    spend.add([("ann", day_of(clock.now), 1)])

    assert spend.spent("ann") == Spent(ever=12, day=1, week=1, month=1)


def room(spend: SQLiteSpend, name: str, amount: int = 4, **given: Any) -> float:
    return spend.take_room(name, "owner", given.get("key", "k"), amount, 10)


def test_a_key_has_room_until_its_window_is_full(spend: SQLiteSpend, clock: Clock) -> None:
    """Then it is said when there is room again; another key has its own."""
    assert room(spend, "a") == room(spend, "b") == 0
    spend.settle_room("a", 4)
    clock.now += 60
    spend.settle_room("b", 4)

    assert room(spend, "c") == KEY_WINDOW_SECONDS - 60
    assert room(spend, "c", amount=10) == KEY_WINDOW_SECONDS
    assert room(spend, "c", key="other") == 0
    clock.now += KEY_WINDOW_SECONDS - 60
    assert room(spend, "d") == 0


def test_what_is_open_counts_however_long_it_takes(spend: SQLiteSpend, clock: Clock) -> None:
    """Google counts it when it ends."""
    room(spend, "a", amount=8)
    clock.now += 2 * KEY_WINDOW_SECONDS
    assert room(spend, "b") == KEY_WINDOW_SECONDS
    spend.settle_room("a", 1)
    assert room(spend, "b") == 0


def test_room_that_was_not_used_is_free_at_once(spend: SQLiteSpend) -> None:
    """A call that cost nothing leaves nothing."""
    room(spend, "a", amount=10)
    spend.settle_room("a", 0)

    assert room(spend, "b", amount=10) == 0


def test_the_room_of_a_dead_owner_leaves_the_window(spend: SQLiteSpend, clock: Clock) -> None:
    """As if it had been spent when that was noticed."""
    room(spend, "a", amount=10)
    spend.lapse("owner")
    assert room(spend, "b") == KEY_WINDOW_SECONDS
    clock.now += KEY_WINDOW_SECONDS
    spend.sweep()

    assert room(spend, "b") == 0


def test_a_clock_that_is_set_back_blocks_no_key(spend: SQLiteSpend, clock: Clock) -> None:
    """What seems to be spent in the future was spent now."""
    room(spend, "a", amount=10)
    spend.settle_room("a", 10)
    clock.now -= 30 * DAY
    assert room(spend, "b") == KEY_WINDOW_SECONDS
    clock.now += KEY_WINDOW_SECONDS

    assert room(spend, "b") == 0


def test_a_beat_of_whoever_has_reserved_something_is_kept(ledger: SQLiteLedger) -> None:
    """Without it its owner would seem to die."""
    reserve(ledger.spend, "a", 1)
    ledger.beat("owner")
    ledger.sweep()
    assert ledger.beats() == {"owner": 1}
    ledger.spend.settle("a", 1)
    ledger.sweep()

    assert ledger.beats() == {}


def test_a_file_that_cannot_be_used_is_an_error() -> None:
    """Whatever is wanted of it."""
    FILE.parent.mkdir()
    FILE.write_bytes(b"not a database" * 100)
    spend = SQLiteLedger(FILE).spend

    with pytest.raises(LedgerError):
        reserve(spend, "a", 1)
    with pytest.raises(LedgerError):
        spend.spent("ann")
