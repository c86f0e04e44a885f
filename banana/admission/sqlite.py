"""The embedded storage of the rate limit: one SQLite file that all workers of a machine share, with no service to run.

A storage for the `limits` library, registered under `sqlite:///FILE` (three slashes: relative, four: absolute). It counts
exactly across processes, because each decision is one IMMEDIATE transaction. It blocks its thread for a fraction of a
millisecond, and never longer than `LOCK_SECONDS`. It holds a minute of counts: a broken file is moved aside, and a missing
one is made anew.
"""

import sqlite3
from pathlib import Path

from limits.storage import MovingWindowSupport, Storage

from banana.database import Database
from banana.intervals import INTERVALS

# Longest wait for another process's transaction.
LOCK_SECONDS = 0.1
# The name of a storage in memory, for one worker.
IN_MEMORY = ":memory:"

# Workers of earlier releases count in other tables of the same file while they are being replaced.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    key TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (key, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS requests_by_time ON requests (at);
"""
# The requests of a key are numbered, so that the first and the last of a window tell how many there are.
_WINDOW = """
SELECT number, at, (SELECT max(number) FROM requests WHERE key = ?)
FROM requests WHERE key = ? ORDER BY number LIMIT 1
"""


_NOT_SUPPORTED = "only the strategy moving-window is supported"


class MovingWindowStorage(Storage, MovingWindowSupport):
    """A storage for the moving window alone: `limits` asks for counters too, which only its other strategies use."""

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Refuse."""
        raise NotImplementedError(_NOT_SUPPORTED)

    def get(self, key: str) -> int:
        """Refuse."""
        raise NotImplementedError(_NOT_SUPPORTED)

    def get_expiry(self, key: str) -> float:
        """Refuse."""
        raise NotImplementedError(_NOT_SUPPORTED)


class SQLiteStorage(MovingWindowStorage):
    """Moving windows in a SQLite file, or in memory (`sqlite:///:memory:`); all windows have one length.

    Raises sqlite3.Error or OSError when the file cannot be used; when it is made, only for what will not pass.
    """

    STORAGE_SCHEME = ["sqlite"]  # noqa: RUF012 # declared by the base class

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        look_seconds: float = INTERVALS.file_look,
        **options: float | str | bool,
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions, **options)
        name = uri.removeprefix("sqlite:///")
        # What a power cut may take is the last minute's counts.
        self._database = Database(
            None if name == IN_MEMORY else Path(name),
            lambda connection: connection.executescript(_SCHEMA),
            synchronous="OFF",
            lock_seconds=LOCK_SECONDS,
            moves_broken_aside=True,
            look_seconds=look_seconds,
        )
        self._database.open()

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """The errors that mean that the storage failed."""
        return (sqlite3.Error, OSError)

    def decide(self, key: str, limit: int, expiry: int, amount: int = 1) -> tuple[bool, float, int]:
        """Take `amount` of `limit` in the last `expiry` seconds, and look at the window, in one transaction.

        Returns whether there was room, when the window's oldest request was (seconds of the epoch), and how many there are.
        """
        with self._database.transaction() as (execute, now):
            # Also what a clock that was ahead has left. One that is set back by less than a window makes no room.
            execute("DELETE FROM requests WHERE at <= ? OR at > ?", now - expiry, now + expiry)
            first, oldest, last = next(iter(execute(_WINDOW, key, key)), (1, now, 0))
            is_allowed = last - first + 1 + amount <= limit
            if is_allowed:
                for _ in range(amount):
                    last += 1
                    execute("INSERT INTO requests VALUES (?, ?, ?)", key, last, now)
            return is_allowed, oldest, last - first + 1

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Take `amount` of `limit` in the last `expiry` seconds; return whether there was room."""
        return self.decide(key, limit, expiry, amount)[0]

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the oldest request of the window was, in seconds of the epoch, and how many there are."""
        return self.decide(key, limit, expiry, amount=0)[1:]

    def check(self) -> bool:
        """Return whether the storage can be written to."""
        try:
            with self._database.transaction() as (execute, _):  # a full disk lets a transaction begin
                execute("INSERT INTO requests VALUES ('', 0, 0)")
                execute("DELETE FROM requests WHERE key = ''")
            return True
        except (sqlite3.Error, OSError):
            return False

    def reset(self) -> int:
        """Forget everything; return how many requests that were."""
        return len(self._database.execute("DELETE FROM requests RETURNING 1"))

    def clear(self, key: str) -> None:
        """Forget one key."""
        self._database.execute("DELETE FROM requests WHERE key = ?", key)

    def close(self) -> None:
        """Close the file; the next decision opens it again."""
        self._database.close()
