"""What was spent, and what is reserved: by caller and day for budgets, by API key and minute for Google's window.

Amounts are whole nanodollars (1e-9 USD), so that sums are exact: a token costs some hundred of them at least. Days are counted from
1970-01-01, in UTC.
"""

import enum
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import Protocol

DAY_SECONDS = 86_400
# Over which Google counts what a key's project spends.
KEY_WINDOW_SECONDS = 600
_EPOCH = date(1970, 1, 1).toordinal()


class Window(enum.StrEnum):
    """Over which a budget holds; both begin at midnight UTC."""

    DAY = "day"
    MONTH = "month"

    def first_day(self, day: int) -> int:
        """Return the first day of the window that holds `day`."""
        return day if self is Window.DAY else first_day_of_month(day)


def day_of(seconds: float) -> int:
    """Return the day of a time in seconds of the epoch."""
    return int(seconds // DAY_SECONDS)


def first_day_of_week(day: int) -> int:
    """Return the Monday of a day's week."""
    return day - (day + _EPOCH - 1) % 7


def first_day_of_month(day: int) -> int:
    """Return the first day of a day's month."""
    return day - date.fromordinal(day + _EPOCH).day + 1


@dataclass(frozen=True, slots=True)
class Spent:
    """What a caller has spent, in nanodollars: ever, this day, week and month; and what is reserved in the last two windows."""

    ever: int = 0
    day: int = 0
    week: int = 0
    month: int = 0
    reserved_day: int = 0
    reserved_month: int = 0

    def within(self, window: Window) -> int:
        """Return what was spent and is reserved in the running window."""
        return self.day + self.reserved_day if window is Window.DAY else self.month + self.reserved_month


def reservation_id_of(entry_id: str, owner: str) -> str:
    """Return the id of what an owner reserves for an entry: whoever takes the entry up reserves for itself."""
    return f"{entry_id}-{owner}"


class SpendLedger(Protocol):
    """Every method is one decision, over all workers. Each raises LedgerError."""

    def reserve(self, reservation_id: str, owner: str, caller: str, amount: int, limit: int, window: Window) -> bool:
        """Reserve `amount` of a caller's budget; return whether it fits into what is left of `limit`."""
        ...

    def settle(self, reservation_id: str, amount: int) -> None:
        """Give a reservation back, and count `amount` as spent on the day it was reserved; once, however often it is said."""
        ...

    def add(self, spent: Collection[tuple[str, int, int]]) -> None:
        """Count what was spent without a reservation: caller, day, amount."""
        ...

    def spent(self, caller: str) -> Spent:
        """Return what a caller has spent."""
        ...

    def take_room(self, room_id: str, owner: str, key: str, amount: int, limit: int) -> float:
        """Take `amount` of what a key may spend in `KEY_WINDOW_SECONDS`; return 0, or the seconds until there is room."""
        ...

    def settle_room(self, room_id: str, amount: int) -> None:
        """Count `amount` as spent with the key instead; from now on it leaves the window."""
        ...

    def owners(self) -> set[str]:
        """Return the owners of what is reserved."""
        ...

    def lapse(self, owner: str) -> int:
        """Settle what an owner reserved and did not live to settle; return how many reservations that were.

        It is charged as reserved, unless it is for an entry that was not sent. A later `settle` is believed instead.
        """
        ...

    def sweep(self) -> None:
        """Forget what is in no window any more; the sum of each caller stays."""
        ...
