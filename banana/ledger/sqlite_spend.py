"""What was spent and is reserved, in the ledger's SQLite file."""

import time
from collections.abc import Collection
from typing import Any

from banana.database import Execute
from banana.ledger.file import LedgerFile
from banana.ledger.spend import (
    KEY_WINDOW_SECONDS,
    Spent,
    Window,
    day_of,
    first_day_of_month,
    first_day_of_week,
)

# Days that are kept one by one; /v1/key looks back over the month and the week.
KEPT_DAYS = 62
# The day under which older ones are summed up.
_EARLIER = 0

_ADD = (
    "INSERT INTO spend VALUES (?, ?, ?)"
    " ON CONFLICT (caller, day) DO UPDATE SET nanodollars = nanodollars + excluded.nanodollars"
)
_WITHIN = """
    SELECT (SELECT coalesce(sum(nanodollars), 0) FROM spend WHERE caller = ? AND day >= ?)
        + (SELECT coalesce(sum(nanodollars), 0) FROM reservations WHERE caller = ? AND day >= ? AND NOT is_presumed)
"""
_SPENT = """
    SELECT sum(nanodollars * NOT is_reserved), sum(nanodollars * (NOT is_reserved AND day >= ?)),
        sum(nanodollars * (NOT is_reserved AND day >= ?)), sum(nanodollars * (NOT is_reserved AND day >= ?)),
        sum(nanodollars * (is_reserved AND day >= ?)), sum(nanodollars * (is_reserved AND day >= ?))
    FROM (
        SELECT day, nanodollars, 0 AS is_reserved FROM spend WHERE caller = ?
        UNION ALL SELECT day, nanodollars, 1 FROM reservations WHERE caller = ? AND NOT is_presumed
    )
"""
# What was reserved for an entry that its owner did not send: it is as it was begun, or another has taken it up.
_UNSENT = """
    EXISTS (
        SELECT 1 FROM entries WHERE entries.id = substr(reservations.id, 1, 32)
            AND reservations.id = entries.id || '-' || reservations.owner
            AND (entries.state = 'begun' OR entries.owner != reservations.owner)
    )
"""
# An owner shows that it lives; the time makes the number another one when its row was gone meanwhile.
BEAT = (
    "INSERT INTO beats VALUES (?, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))"
    " ON CONFLICT (owner) DO UPDATE SET beat = max(beat + 1, excluded.beat)"
)
# Who has reserved something that is not settled.
OWNERS = "SELECT owner FROM reservations WHERE NOT is_presumed UNION SELECT owner FROM key_spend WHERE is_open"


class SQLiteSpend:
    """A `SpendLedger` in a ledger's file."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def reserve(self, reservation_id: str, owner: str, caller: str, amount: int, limit: int, window: Window) -> bool:
        """Reserve `amount` of a caller's budget; return whether it fits into what is left of `limit`."""
        with self._file.transaction() as (execute, now):
            day = day_of(now)
            first = window.first_day(day)
            ((spent,),) = execute(_WITHIN, caller, first, caller, first)
            if spent + amount > limit:
                return False
            execute(
                "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?, ?, ?, 0)",
                *(reservation_id, owner, caller, day, amount),
            )
            execute(BEAT, owner)
            return True

    def settle(self, reservation_id: str, amount: int) -> None:
        """Give a reservation back, and count `amount` as spent on the day it was reserved; once, however often it is said."""
        with self._file.transaction() as (execute, _):
            reserved = "DELETE FROM reservations WHERE id = ? RETURNING caller, day, nanodollars * is_presumed"
            for caller, day, charged in execute(reserved, reservation_id):
                if amount != charged:
                    execute(_ADD, caller, day, amount - charged)

    def add(self, spent: Collection[tuple[str, int, int]]) -> None:
        """Count what was spent without a reservation: caller, day, amount."""
        with self._file.transaction() as (execute, _):
            for caller, day, amount in spent:
                execute(_ADD, caller, day, amount)

    def spent(self, caller: str) -> Spent:
        """Return what a caller has spent."""
        day = day_of(time.time())
        week, month = first_day_of_week(day), first_day_of_month(day)
        (sums,) = self._file.execute(_SPENT, day, week, month, day, month, caller, caller)
        return Spent(*(amount or 0 for amount in sums))

    def take_room(self, room_id: str, owner: str, key: str, amount: int, limit: int) -> float:
        """Take `amount` of what a key may spend in a window; return 0, or the seconds until there is room."""
        with self._file.transaction() as (execute, now):
            # A clock that was set back would keep them for as long as it was ahead.
            execute("UPDATE key_spend SET spent_at = ? WHERE key = ? AND spent_at > ?", now, key, now)
            missing = _in_window(execute, key, now) + amount - limit
            if missing > 0:
                return _seconds_until(execute, key, missing, now)
            execute("INSERT INTO key_spend VALUES (?, ?, ?, ?, ?, 1)", room_id, owner, key, now, amount)
            execute(BEAT, owner)
            return 0

    def settle_room(self, room_id: str, amount: int) -> None:
        """Count `amount` as spent with the key instead; from now on it leaves the window."""
        with self._file.transaction() as (execute, now):
            if amount:
                settled = "UPDATE key_spend SET nanodollars = ?, spent_at = ?, is_open = 0 WHERE id = ?"
                execute(settled, amount, now, room_id)
            else:
                execute("DELETE FROM key_spend WHERE id = ?", room_id)

    def owners(self) -> set[str]:
        """Return the owners of what is reserved."""
        return {owner for (owner,) in self._file.execute(OWNERS)}

    def lapse(self, owner: str) -> int:
        """Settle what an owner reserved and did not live to settle; return how many reservations that were."""
        with self._file.transaction() as (execute, now):
            execute("UPDATE key_spend SET is_open = 0, spent_at = ? WHERE owner = ? AND is_open", now, owner)
            left = "owner = ? AND NOT is_presumed"
            execute(f"DELETE FROM reservations WHERE {left} AND {_UNSENT}", owner)
            presumed = f"UPDATE reservations SET is_presumed = 1 WHERE {left} RETURNING caller, day, nanodollars"
            charged = execute(presumed, owner)
            for caller, day, amount in charged:
                execute(_ADD, caller, day, amount)
            return len(charged)

    def sweep(self) -> None:
        """Forget what is in no window any more; the sum of each caller stays."""
        now = time.time()
        day = day_of(now)
        bounds: tuple[Any, ...] = (day - KEPT_DAYS, _EARLIER, day - 1, now - KEY_WINDOW_SECONDS)
        old_days = "FROM spend WHERE day < ? AND day > ?"
        old_reservations = "FROM reservations WHERE is_presumed AND day < ?"
        old_keys = "FROM key_spend WHERE NOT is_open AND spent_at <= ?"
        # Looked for first: a transaction that changes nothing takes the lock all the same.
        anything = " UNION ALL ".join(f"SELECT 1 {old}" for old in (old_days, old_reservations, old_keys))
        if not self._file.execute(f"{anything} LIMIT 1", *bounds):
            return
        with self._file.transaction() as (execute, _):
            for caller, amount in execute(f"SELECT caller, sum(nanodollars) {old_days} GROUP BY caller", *bounds[:2]):
                execute(_ADD, caller, _EARLIER, amount)
            execute(f"DELETE {old_days}", *bounds[:2])
            execute(f"DELETE {old_reservations}", bounds[2])
            execute(f"DELETE {old_keys}", bounds[3])


def _in_window(execute: Execute, key: str, now: float) -> int:
    """Return what a key has spent in the window; what is open counts however long it takes."""
    statement = "SELECT coalesce(sum(nanodollars), 0) FROM key_spend WHERE key = ? AND (is_open OR spent_at > ?)"
    ((spent,),) = execute(statement, key, now - KEY_WINDOW_SECONDS)
    return int(spent)


def _seconds_until(execute: Execute, key: str, missing: int, now: float) -> float:
    """Return when `missing` has left the window; what is open leaves it in a whole window from now at the latest."""
    statement = (
        "SELECT nanodollars, spent_at FROM key_spend WHERE key = ? AND NOT is_open AND spent_at > ? ORDER BY spent_at"
    )
    for amount, spent_at in execute(statement, key, now - KEY_WINDOW_SECONDS):
        missing -= amount
        if missing <= 0:
            return float(max(0.001, spent_at + KEY_WINDOW_SECONDS - now))
    return KEY_WINDOW_SECONDS
