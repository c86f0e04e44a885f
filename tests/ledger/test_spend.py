"""The windows of budgets, in days since 1970-01-01."""

from datetime import UTC, datetime

import pytest

from banana.ledger.spend import Spent, Window, day_of, first_day_of_month, first_day_of_week


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
