"""What was spent: the windows of budgets, and each decision on both engines, by a clock of the test's own."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Barrier
from typing import Any

import pytest

from banana.ledger.ledger import Ledger
from banana.ledger.spend import (
    KEY_WINDOW_SECONDS,
    SpendLedger,
    Spent,
    Window,
    day_of,
    first_day_of_month,
    first_day_of_week,
    reservation_id_of,
)
from tests.ledger.conftest import NOON, Clock
from tests.ledger.entries import ENTRY

DAY = 86_400


@pytest.fixture
def spend(ledger: Ledger) -> SpendLedger:
    return ledger.spend


def day(text: str) -> int:
    return day_of(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("today", "monday", "month"),
    [("2026-11-23", "2026-11-23", "2026-11-01"), ("2026-11-29T23:59:59", "2026-11-23", "2026-11-01"),
     ("2026-12-01", "2026-11-30", "2026-12-01"), ("2028-02-29", "2028-02-28", "2028-02-01"), ("2027-01-01", "2026-12-28", "2027-01-01")],
)  # fmt: skip
def test_windows_begin_at_midnight_utc(today: str, monday: str, month: str) -> None:
    """Weeks on Monday, months on the first."""
    assert first_day_of_week(day(today)) == day(monday)
    assert first_day_of_month(day(today)) == day(month)
    assert Window.MONTH.first_day(day(today)) == day(month)
    assert Window.DAY.first_day(day(today)) == day(today)


def test_what_is_reserved_counts() -> None:
    """Until it is settled it may all be spent."""
    spent = Spent(ever=9, day=1, week=2, month=4, reserved_day=10, reserved_month=20)

    assert (spent.within(Window.DAY), spent.within(Window.MONTH)) == (11, 24)


def reserve(spend: SpendLedger, name: str, amount: int, limit: int = 10, window: Window = Window.DAY) -> bool:
    return spend.reserve(name, "owner", "ann", amount, limit, window)


def test_what_fits_is_reserved(spend: SpendLedger) -> None:
    """To the last nanodollar, and no further; another caller has a budget of its own."""
    assert [reserve(spend, name, 5) for name in "abc"] == [True, True, False]
    assert spend.reserve("d", "owner", "bob", 10, 10, Window.DAY)
    assert spend.spent("ann") == Spent(reserved_day=10, reserved_month=10)


def test_a_reservation_is_settled_by_what_was_spent(spend: SpendLedger) -> None:
    """What is left of it is there again, and nothing at all is spent by what cost nothing."""
    reserve(spend, "a", 8)
    spend.settle("a", 3)
    reserve(spend, "b", 7)
    spend.settle("b", 0)

    assert spend.spent("ann") == Spent(ever=3, day=3, week=3, month=3)


def test_a_settlement_counts_once(spend: SpendLedger) -> None:
    """Whoever does not know whether it was recorded says it again."""
    reserve(spend, "a", 8)
    spend.settle("a", 3)
    spend.settle("a", 3)

    assert spend.spent("ann").ever == 3


def test_what_cost_more_than_was_reserved_counts(spend: SpendLedger) -> None:
    """The next one does not fit."""
    reserve(spend, "a", 8)
    spend.settle("a", 11)

    assert not reserve(spend, "b", 0)


def test_midnight_begins_a_new_day(spend: SpendLedger, clock: Clock) -> None:
    """What was reserved before it is spent on the day before."""
    reserve(spend, "a", 10)
    clock.now += DAY
    assert reserve(spend, "b", 10)
    spend.settle("a", 10)

    assert spend.spent("ann") == Spent(ever=10, week=10, month=10, reserved_day=10, reserved_month=10)


def test_a_month_is_a_longer_window(spend: SpendLedger, clock: Clock) -> None:
    """It holds over its days, and ends with the month."""
    assert reserve(spend, "a", 10, window=Window.MONTH)
    spend.settle("a", 10)
    clock.now += 7 * DAY
    assert not reserve(spend, "b", 1, window=Window.MONTH)
    clock.now += DAY

    assert reserve(spend, "b", 1, window=Window.MONTH)
    assert spend.spent("ann") == Spent(ever=10, reserved_day=1, reserved_month=1)


def test_of_many_at_once_no_more_than_fit_are_reserved(opened: Callable[[], Ledger]) -> None:
    """Each process has a connection of its own."""
    ledgers = [opened() for _ in range(4)]
    barrier = Barrier(4)

    def storm(number: int) -> int:
        barrier.wait()
        return sum(reserve(ledgers[number].spend, f"{number}-{index}", 3) for index in range(10))

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(storm, range(4))) == 3


def test_what_a_dead_owner_reserved_is_charged(spend: SpendLedger) -> None:
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
def test_what_was_reserved_for_an_entry_that_was_not_sent_is_given_back(ledger: Ledger, taken_up: bool) -> None:
    """Its owner died between the two; whoever takes the entry up, and sends it, has reserved for itself."""
    ledger.begin(replace(ENTRY, owner="owner"))
    reserve(ledger.spend, reservation_id_of(ENTRY.id, "owner"), 6)
    if taken_up:
        ledger.take_up(ENTRY.id, "owner", "other")
        ledger.mark_sent(ENTRY.id, "other")
    ledger.spend.lapse("owner")

    assert ledger.spend.spent("ann") == Spent()


def test_what_was_sent_is_charged(ledger: Ledger) -> None:
    """The owner of an entry died after it."""
    ledger.begin(replace(ENTRY, owner="owner"))
    reserve(ledger.spend, reservation_id_of(ENTRY.id, "owner"), 6)
    ledger.mark_sent(ENTRY.id, "owner")
    ledger.spend.lapse("owner")

    assert ledger.spend.spent("ann").ever == 6


def test_two_owners_of_an_entry_reserve_each_for_itself(spend: SpendLedger) -> None:
    """One was stopped, and finds that it is not its own any more: what the other reserved stays."""
    reserve(spend, reservation_id_of(ENTRY.id, "other"), 4)
    reserve(spend, reservation_id_of(ENTRY.id, "owner"), 4)
    spend.settle(reservation_id_of(ENTRY.id, "owner"), 0)
    spend.settle(reservation_id_of(ENTRY.id, "other"), 3)

    assert spend.spent("ann") == Spent(ever=3, day=3, week=3, month=3)


def test_what_was_spent_without_a_budget_is_added(spend: SpendLedger) -> None:
    """By caller and day."""
    today = day_of(NOON)
    spend.add([("ann", today, 2), ("bob", today, 1), ("ann", today - 1, 4)])

    assert spend.spent("ann").ever >= 6


def test_the_sums_of_old_days_stay(spend: SpendLedger, clock: Clock) -> None:
    """In one row a caller; what was presumed long ago is final."""
    reserve(spend, "a", 6)
    spend.lapse("owner")
    spend.add([("ann", day_of(NOON) + day, 1) for day in range(5)])
    clock.now += 100 * DAY
    spend.sweep()
    spend.sweep()
    spend.add([("ann", day_of(clock.now), 1)])

    assert spend.spent("ann") == Spent(ever=12, day=1, week=1, month=1)


def room(spend: SpendLedger, name: str, amount: int = 4, **given: Any) -> float:
    return spend.take_room(name, "owner", given.get("key", "k"), amount, 10)


def test_a_key_has_room_until_its_window_is_full(spend: SpendLedger, clock: Clock) -> None:
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


def test_what_is_open_counts_however_long_it_takes(spend: SpendLedger, clock: Clock) -> None:
    """Google counts it when it ends."""
    room(spend, "a", amount=8)
    clock.now += 2 * KEY_WINDOW_SECONDS
    assert room(spend, "b") == KEY_WINDOW_SECONDS
    spend.settle_room("a", 1)
    assert room(spend, "b") == 0


def test_room_that_was_not_used_is_free_at_once(spend: SpendLedger) -> None:
    """A call that cost nothing leaves nothing."""
    room(spend, "a", amount=10)
    spend.settle_room("a", 0)

    assert room(spend, "b", amount=10) == 0


def test_the_room_of_a_dead_owner_leaves_the_window(spend: SpendLedger, clock: Clock) -> None:
    """As if it had been spent when that was noticed."""
    room(spend, "a", amount=10)
    spend.lapse("owner")
    assert room(spend, "b") == KEY_WINDOW_SECONDS
    clock.now += KEY_WINDOW_SECONDS
    spend.sweep()

    assert room(spend, "b") == 0


def test_a_clock_that_is_set_back_blocks_no_key(spend: SpendLedger, clock: Clock) -> None:
    """What seems to be spent in the future was spent now."""
    room(spend, "a", amount=10)
    spend.settle_room("a", 10)
    clock.now -= 30 * DAY
    assert room(spend, "b") == KEY_WINDOW_SECONDS
    clock.now += KEY_WINDOW_SECONDS

    assert room(spend, "b") == 0


def test_a_beat_of_whoever_has_reserved_something_is_kept(ledger: Ledger) -> None:
    """Without it its owner would seem to die."""
    reserve(ledger.spend, "a", 1)
    ledger.beat("owner")
    ledger.sweep()
    assert set(ledger.beats()) == {"owner"}
    ledger.spend.settle("a", 1)
    ledger.sweep()

    assert ledger.beats() == {}
