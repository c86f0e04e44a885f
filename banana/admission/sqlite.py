"""The embedded store of the rate limit: one SQLite file that all workers of a machine share, with no service to run.

A storage for the `limits` library, registered under `sqlite:///FILE` (three slashes: relative, four: absolute). Counts
exactly across processes: each decision is one IMMEDIATE transaction. It blocks its thread for microseconds, and never
longer than `LOCK_SECONDS`. What it holds is a minute of counts: a file that is broken is moved aside, and one that is
gone is made anew.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from limits.storage import MovingWindowSupport, Storage

from banana.database import Database

# Longest wait for another process's transaction, in seconds; one takes some 20 µs.
LOCK_SECONDS = 0.1
# How many rows are looked at for what has expired, and after how many entries. Two for each entry that is added: the time
# to get round a file adds half of its rows, so that it never holds more than twice what counts.
SWEEP_ROWS = 128
SWEEP_EVERY = 64
# A store that lives as long as its process, for one worker.
IN_MEMORY = ":memory:"

# A decision writes one page: each that is written takes 6 µs, of 20, so there is one tree, and 1 KiB takes 1 µs less than 4.
_PAGE_BYTES = 1024
# An entry counts while it is no further from now than `seconds`. Workers of 1.0 count in a table `hits` in the same file, also
# while they are being replaced: it is left as it is.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT NOT NULL, at REAL NOT NULL, number INTEGER NOT NULL, seconds INTEGER NOT NULL, PRIMARY KEY (key, at, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (key TEXT PRIMARY KEY, amount INTEGER NOT NULL, expires_at REAL NOT NULL);
"""
# A key's entries are numbered without gaps, as they were made: two of them tell how many there are, whatever the limit.
_LAST = "SELECT number, at FROM entries WHERE key = ? ORDER BY at DESC, number DESC LIMIT 1"
_OLDEST = "SELECT number, at FROM entries WHERE key = ? AND at >= ? ORDER BY at, number LIMIT 1"
_ADD = "INSERT INTO entries (key, at, number, seconds) VALUES (?, ?, ?, ?)"
_FORGET_FUTURE = "DELETE FROM entries WHERE key = ? AND at > ?"
# Places in the table, in its order; this one is before all entries.
_START = ("", 0.0, 0)
_PLACE_AFTER = (
    "SELECT key, at, number FROM entries WHERE (key, at, number) > (?, ?, ?) ORDER BY key, at, number LIMIT 1 OFFSET ?"
)
_SWEEP_AFTER = "DELETE FROM entries WHERE (key, at, number) > (?, ?, ?) AND abs(at - ?) > seconds"
_SWEEP_BETWEEN = f"{_SWEEP_AFTER} AND (key, at, number) <= (?, ?, ?)"


class SQLiteStorage(Storage, MovingWindowSupport):
    """Moving and fixed windows in a SQLite file, or in memory (`sqlite:///:memory:`).

    Raises sqlite3.Error or OSError when the file cannot be used; when it is made, only for what will not pass.
    """

    STORAGE_SCHEME = ["sqlite"]  # noqa: RUF012 # declared by the base class

    def __init__(self, uri: str, wrap_exceptions: bool = False, **options: float | str | bool) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions, **options)
        name = uri.removeprefix("sqlite:///")
        # What a power cut may take is the last minute's counts.
        self._database = Database(
            None if name == IN_MEMORY else Path(name),
            lambda connection: connection.executescript(_SCHEMA),
            synchronous="OFF",
            lock_seconds=LOCK_SECONDS,
            page_bytes=_PAGE_BYTES,
            moves_broken_aside=True,
        )
        self._database.open()
        self._unswept = 0
        self._swept = _START

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """The errors that mean that the store failed."""
        return (sqlite3.Error, OSError)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Take `amount` of `limit` in the last `expiry` seconds; return whether there was room."""
        return self.decide(key, limit, expiry, amount)[0]

    def decide(self, key: str, limit: int, expiry: int, amount: int = 1) -> tuple[bool, float, int]:
        """Take `amount` of `limit` in the last `expiry` seconds, and look at the window, in one transaction.

        Returns whether there was room, when the window's oldest entry was made (seconds of the epoch), and how many
        entries there are.
        """
        return self._database.transact(self._decide, key, limit, expiry, amount)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the oldest entry of the window was made, in seconds of the epoch, and how many there are."""
        with self._transaction() as (execute, now):
            oldest = execute(_OLDEST, key, now - expiry)
            if not oldest:
                return now, 0
            last = execute(_LAST, key)
            return oldest[1], last[0] - oldest[0] + 1

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add `amount` to a counter that lives `expiry` seconds from its first hit; return its value."""
        with self._transaction() as (execute, now):
            execute("DELETE FROM counters WHERE expires_at <= ? OR expires_at > ?", now, now + 2 * expiry)
            (value,) = execute(
                "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET amount = amount + excluded.amount"
                " RETURNING amount",
                key,
                amount,
                now + expiry,
            )
            return int(value)

    def get(self, key: str) -> int:
        """Return a counter's value, 0 when there is none."""
        row = self._execute("SELECT amount FROM counters WHERE key = ? AND expires_at > ?", key, time.time())
        return int(row[0]) if row else 0

    def get_expiry(self, key: str) -> float:
        """Return when a counter ends, in seconds of the epoch; now when there is none."""
        row = self._execute("SELECT expires_at FROM counters WHERE key = ?", key)
        return float(row[0]) if row else time.time()

    def check(self) -> bool:
        """Return whether the store can be written to."""
        try:
            with self._transaction() as (execute, _):  # a full disk lets a transaction begin
                execute("INSERT OR REPLACE INTO counters VALUES ('', 0, 0)")
                execute("DELETE FROM counters WHERE key = ''")
            return True
        except (sqlite3.Error, OSError):
            return False

    def reset(self) -> int:
        """Forget everything; return how many rows that were."""
        with self._transaction() as (execute, _):
            (rows,) = execute("SELECT (SELECT count(*) FROM entries) + (SELECT count(*) FROM counters)")
            execute("DELETE FROM entries")
            execute("DELETE FROM counters")
            return int(rows)

    def clear(self, key: str) -> None:
        """Forget one key."""
        with self._transaction() as (execute, _):
            execute("DELETE FROM entries WHERE key = ?", key)
            execute("DELETE FROM counters WHERE key = ?", key)

    def close(self) -> None:
        """Close the file; the next decision opens it again."""
        self._database.close()

    def _decide(
        self, cursor: sqlite3.Cursor, now: float, key: str, limit: int, expiry: int, amount: int
    ) -> tuple[bool, float, int]:
        last, at = cursor.execute(_LAST, (key,)).fetchone() or (0, 0)
        if at > now + expiry:  # the clock was far ahead: that counts as nothing, now and in 200 days
            cursor.execute(_FORGET_FUTURE, (key, now + expiry))
            last, at = cursor.execute(_LAST, (key,)).fetchone() or (0, 0)
        at = max(now, at)  # a clock that was set back a little does not make room
        oldest, oldest_at = cursor.execute(_OLDEST, (key, at - expiry)).fetchone() or (last + 1, at)
        allowed = last - oldest + 1 + amount <= limit
        if allowed:
            for number in range(last + 1, last + 1 + amount):
                cursor.execute(_ADD, (key, at, number, expiry))
            last += amount
            self._sweep(cursor, now, amount)
        return allowed, oldest_at, last - oldest + 1

    def _sweep(self, cursor: sqlite3.Cursor, now: float, added: int) -> None:
        """Go on round the table after so many entries, and delete what has expired, or was made when the clock was ahead."""
        self._unswept += added
        if self._unswept < SWEEP_EVERY:
            return
        self._unswept = 0
        begin, end = self._swept, cursor.execute(_PLACE_AFTER, (*self._swept, SWEEP_ROWS - 1)).fetchone()
        if end:
            cursor.execute(_SWEEP_BETWEEN, (*begin, now, *end))
        else:
            cursor.execute(_SWEEP_AFTER, (*begin, now))
        self._swept = end or _START

    def _execute(self, statement: str, *values: object) -> Any:
        """Run one statement; return its first row, or an empty one."""
        return _first(self._database.execute(statement, *values))

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Callable[..., Any], float]]:
        """Yield the means to execute, of which the first row is returned, and the time."""
        with self._database.transaction() as (execute, now):
            yield lambda statement, *values: _first(execute(statement, *values)), now


def _first(rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return rows[0] if rows else ()
