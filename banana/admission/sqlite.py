"""The embedded store of the rate limit: one SQLite file that all workers of a machine share, with no service to run.

A storage for the `limits` library, registered under `sqlite:///FILE` (three slashes: relative, four: absolute). Counts
exactly across processes: each decision is one IMMEDIATE transaction. It blocks its thread for microseconds, and never
longer than `LOCK_SECONDS`. What it holds is a minute of counts: a file that is broken is moved aside, and one that is
gone is made anew.
"""

import errno
import fcntl
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
from limits.storage import MovingWindowSupport, Storage

# Longest wait for another process's transaction, in seconds; one takes some 20 µs.
LOCK_SECONDS = 0.1
# Expired rows that one decision sweeps away, so that the file grows no further than its live callers need.
SWEEP_ROWS = 20
# How often it is looked whether the file still has its name, in seconds.
LOOK_SECONDS = 1
# A store that lives as long as its process, for one worker.
IN_MEMORY = ":memory:"
# What SQLite says of a file that will not get better (https://www.sqlite.org/rescode.html).
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# What may be over in a moment: a full disk, somebody else's transaction.
_PASSING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

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


# Made when the clock was ahead by more than their window.
_FUTURE = "DELETE FROM hits WHERE at + at - expires_at > ?"

log = structlog.get_logger(__name__)


class SQLiteStorage(Storage, MovingWindowSupport):
    """Moving and fixed windows in a SQLite file, or in memory (`sqlite:///:memory:`).

    Raises sqlite3.Error or OSError when the file cannot be used; when it is made, only for what will not pass.
    """

    STORAGE_SCHEME = ["sqlite"]  # noqa: RUF012 # declared by the base class

    def __init__(self, uri: str, wrap_exceptions: bool = False, **options: float | str | bool) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions, **options)
        name = uri.removeprefix("sqlite:///")
        self._path = None if name == IN_MEMORY else Path(name)
        self._lock = threading.RLock()
        self._opened: sqlite3.Connection | None = None
        self._inode = 0
        self._looked_at = 0.0
        try:
            self._connection()
        except (sqlite3.Error, OSError) as error:
            if not _may_pass(error):
                raise

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
        with self._transaction() as (execute, now):
            last, at = execute(_LAST, key) or (0, 0)
            if at > now + expiry:  # the clock was far ahead: that counts as nothing, now and in 200 days
                execute(_FUTURE, now)
                last, at = execute(_LAST, key) or (0, 0)
            now = max(now, at)  # a clock that was set back a little does not make room
            # Were this entry made, the one `limit` before it must have left the window: no counting, whatever the limit.
            blocking = execute("SELECT at FROM hits WHERE key = ? AND number = ?", key, last + amount - limit)
            allowed = amount <= limit and not (blocking and blocking[0] >= now - expiry)
            if allowed:
                for number in range(last + 1, last + 1 + amount):
                    execute("INSERT INTO hits VALUES (?, ?, ?, ?)", key, number, now, now + expiry)
                execute(_SWEEP, now, SWEEP_ROWS)
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
        with self._lock:
            self._close()

    def _execute(self, statement: str, *values: object) -> Any:
        """Run one statement; return its first row, or an empty one."""
        return self._connection().execute(statement, values).fetchone() or ()

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Callable[..., Any], float]]:
        """Yield the means to execute, and the time, which is the same for all processes' order of transactions."""
        with self._lock:
            connection = self._connection()

            def execute(statement: str, *values: object) -> Any:
                return connection.execute(statement, values).fetchone() or ()

            try:
                connection.execute("BEGIN IMMEDIATE")
                yield execute, time.time()
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if _is_broken(error):
                    self._move_aside()
                raise

    def _connection(self) -> sqlite3.Connection:
        """Return the connection to the file of that name; made anew where there is none, or another file."""
        with self._lock:
            now = time.monotonic()
            if self._opened is not None and now - self._looked_at < LOOK_SECONDS:
                return self._opened
            self._looked_at = now
            if self._opened is None or self._inode != self._inode_of_name():
                self._close()
                try:
                    self._opened = self._open()
                except sqlite3.DatabaseError as error:
                    if not _is_broken(error):
                        raise
                    self._move_aside()
                    self._opened = self._open()
            return self._opened

    def _open(self) -> sqlite3.Connection:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path or IN_MEMORY, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        weakref.finalize(self, connection.close)  # also where nobody closes the storage
        self._inode = self._inode_of_name()
        try:
            # What a power cut may take is the last minute's counts.
            connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; {_SCHEMA}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    def _inode_of_name(self) -> int:
        """Return the inode of the file that has the name now; 0 where there is none, or none is needed."""
        try:
            return os.stat(self._path).st_ino if self._path else 0  # noqa: PTH116 # a path object is slower
        except FileNotFoundError:
            return 0

    def _move_aside(self) -> None:
        """Move a broken file out of the way. Of several workers that find it broken, one does it."""
        self._close()
        if self._path is None:
            return
        aside = self._path.with_name(f"{self._path.name}.broken")
        with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._inode != self._inode_of_name():
                return
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
        log.error("store_broken", file=str(self._path), moved_to=str(aside))


def _is_broken(error: BaseException) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and _code_of(error) in _BROKEN


def _may_pass(error: sqlite3.Error | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return _code_of(error) in _PASSING


def _code_of(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; the extended ones say the same in more detail."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
