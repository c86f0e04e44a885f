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
# Expired rows that are swept away, and after how many entries, so that the file grows no further than its live callers need.
SWEEP_ROWS = 320
SWEEP_EVERY = 16
# A store that lives as long as its process, for one worker.
IN_MEMORY = ":memory:"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS hits (
    key TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, expires_at REAL NOT NULL, PRIMARY KEY (key, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hits_by_time ON hits (key, at, number);
CREATE INDEX IF NOT EXISTS hits_by_expiry ON hits (expires_at);
CREATE TABLE IF NOT EXISTS counters (key TEXT PRIMARY KEY, amount INTEGER NOT NULL, expires_at REAL NOT NULL);
"""
_SWEEP = "DELETE FROM hits WHERE (key, number) IN (SELECT key, number FROM hits WHERE expires_at < ? LIMIT ?)"
_LAST = "SELECT number, at FROM hits WHERE key = ? ORDER BY number DESC LIMIT 1"
_OLDEST = "SELECT at, number FROM hits WHERE key = ? AND at >= ? ORDER BY at, number LIMIT 1"
# One more entry, where there is room for it: were it made, the one `limit` before it must have left the window. No counting,
# whatever the limit. A clock that was set back a little does not make room; one that was far ahead is looked into elsewhere.
_TAKE = """
INSERT INTO hits (key, number, at, expires_at)
SELECT ?, next.number, next.at, next.at + ? FROM (
    SELECT coalesce(last.number, 0) + 1 AS number, max(?, coalesce(last.at, 0)) AS at
    FROM (SELECT 1) LEFT JOIN (SELECT number, at FROM hits WHERE key = ? ORDER BY number DESC LIMIT 1) AS last
) AS next
WHERE next.at <= ? + ?
    AND NOT EXISTS (SELECT 1 FROM hits WHERE key = ? AND number = next.number - ? AND at >= next.at - ?)
RETURNING number, at
"""
# Made when the clock was ahead by more than their window.
_FUTURE = "DELETE FROM hits WHERE at + at - expires_at > ?"


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
            moves_broken_aside=True,
        )
        self._database.open()
        self._unswept = 0

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
        if amount == 1 and (taken := self._take(key, limit, expiry)):
            last, at = taken
            oldest_at, number = self._execute(_OLDEST, key, at - expiry) or (at, last)
            self._unswept += 1
            if self._unswept >= SWEEP_EVERY:
                self._unswept = 0
                self._execute(_SWEEP, at, SWEEP_ROWS)
            return True, oldest_at, last - number + 1
        with self._transaction() as (execute, now):
            last, at = execute(_LAST, key) or (0, 0)
            if at > now + expiry:  # the clock was far ahead: that counts as nothing, now and in 200 days
                execute(_FUTURE, now)
                last, at = execute(_LAST, key) or (0, 0)
            now = max(now, at)  # a clock that was set back a little does not make room
            blocking = execute("SELECT at FROM hits WHERE key = ? AND number = ?", key, last + amount - limit)
            allowed = amount <= limit and not (blocking and blocking[0] >= now - expiry)
            if allowed:
                for number in range(last + 1, last + 1 + amount):
                    execute("INSERT INTO hits VALUES (?, ?, ?, ?)", key, number, now, now + expiry)
                last += amount
            oldest_at, number = execute(_OLDEST, key, now - expiry) or (now, last + 1)
            return allowed, oldest_at, last - number + 1

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the oldest entry of the window was made, in seconds of the epoch, and how many there are."""
        now = time.time()
        oldest = self._execute(_OLDEST, key, now - expiry)
        if not oldest:
            return now, 0
        (last,) = self._execute("SELECT max(number) FROM hits WHERE key = ?", key)
        return oldest[0], last - oldest[1] + 1

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
            (rows,) = execute("SELECT (SELECT count(*) FROM hits) + (SELECT count(*) FROM counters)")
            execute("DELETE FROM hits")
            execute("DELETE FROM counters")
            return int(rows)

    def clear(self, key: str) -> None:
        """Forget one key."""
        with self._transaction() as (execute, _):
            execute("DELETE FROM hits WHERE key = ?", key)
            execute("DELETE FROM counters WHERE key = ?", key)

    def close(self) -> None:
        """Close the file; the next decision opens it again."""
        self._database.close()

    def _take(self, key: str, limit: int, expiry: int) -> Any:
        """Take one, where there is room for it; return its number and time, nothing where there is none."""
        now = time.time()
        return self._execute(_TAKE, key, expiry, now, key, now, expiry, key, limit, expiry)

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
