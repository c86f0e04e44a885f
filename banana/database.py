"""A SQLite file that all workers of a machine share: opened, opened again when it is gone, one transaction at a time.

It knows nothing of what is in the file; its schema is handed in.
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
from typing import Any, Literal, TypeVar

import structlog

from banana.intervals import INTERVALS

# Between two attempts at what SQLite does not wait for.
RETRY_SECONDS = 0.005
# What SQLite says of a file that will not get better (https://www.sqlite.org/rescode.html).
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# What may be over in a moment: a full disk, somebody else's transaction.
_PASSING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

Execute = Callable[..., list[tuple[Any, ...]]]
Result = TypeVar("Result")

log = structlog.get_logger(__name__)


class Database:
    """A SQLite file, or one in memory.

    Args:
        path: of the file; None is a database in memory.
        prepare: makes or checks the schema, in a connection that was just opened.
        synchronous: SQLite's pragma: OFF leaves it to the system when a transaction reaches the disk, FULL waits for it.
        lock_seconds: the longest wait for another process's transaction.
        moves_broken_aside: whether a file that is no database makes room for a new one; else it stays, and every
            transaction fails.
        look_seconds: how often it is looked whether the file of that name is still the one that is open.

    Every method raises sqlite3.Error or OSError when the file cannot be used.

    """

    def __init__(
        self,
        path: Path | None,
        prepare: Callable[[sqlite3.Connection], object],
        *,
        synchronous: Literal["OFF", "FULL"],
        lock_seconds: float,
        moves_broken_aside: bool,
        look_seconds: float = INTERVALS.file_look,
    ) -> None:
        self._look_seconds = look_seconds
        self._path = path
        self._prepare = prepare
        self._synchronous = synchronous
        self._lock_seconds = lock_seconds
        self._moves_broken_aside = moves_broken_aside
        self._lock = threading.RLock()
        self._opened: sqlite3.Cursor | None = None
        self._inode = 0
        self._looked_at = 0.0

    def open(self) -> None:
        """Open the file. Raises only for what will not pass by itself."""
        try:
            with self._lock:
                self._cursor()
        except (sqlite3.Error, OSError) as error:
            if not _may_pass(error):
                raise

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement by itself; return its rows."""
        with self._lock:
            cursor = self._cursor()
            try:
                return cursor.execute(statement, values).fetchall()
            except sqlite3.DatabaseError as error:
                self._move_aside_if_broken(error)
                raise

    @contextmanager
    def transaction(self) -> Iterator[tuple[Execute, float]]:
        """Yield the means to execute, and the time, which is the same for all processes' order of transactions."""
        with self._lock:
            cursor = self._cursor()

            def execute(statement: str, *values: object) -> list[tuple[Any, ...]]:
                return cursor.execute(statement, values).fetchall()

            try:
                cursor.execute("BEGIN IMMEDIATE")
                yield execute, time.time()
                cursor.execute("COMMIT")
            except BaseException as error:
                self._give_up(cursor, error)
                raise

    def close(self) -> None:
        """Close the file; the next statement opens it again."""
        with self._lock:
            if self._opened is not None:
                self._opened.connection.close()
            self._opened = None

    def _cursor(self) -> sqlite3.Cursor:
        """Return a cursor in the file of that name; made anew where there is none, or another file."""
        now = time.monotonic()
        if self._opened is not None and now - self._looked_at < self._look_seconds:
            return self._opened
        self._looked_at = now
        if self._opened is None or self._inode != self._inode_of_name():
            self.close()
            try:
                self._opened = self._open()
            except sqlite3.DatabaseError as error:
                if not (is_broken(error) and self._moves_broken_aside):
                    raise
                self._move_aside()
                self._opened = self._open()
        return self._opened

    def _open(self) -> sqlite3.Cursor:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path or ":memory:", timeout=self._lock_seconds, isolation_level=None, check_same_thread=False
        )
        weakref.finalize(self, connection.close)  # also where nobody closes the database
        self._inode = self._inode_of_name()
        try:
            self._use_write_ahead_log(connection)
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection.cursor()

    def _use_write_ahead_log(self, connection: sqlite3.Connection) -> None:
        """Switch the file to WAL; SQLite itself does not wait when another process does that in the same moment."""
        until = time.monotonic() + self._lock_seconds
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if _code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
                time.sleep(RETRY_SECONDS)

    def _inode_of_name(self) -> int:
        """Return the inode of the file that has the name now; 0 where there is none, or none is needed."""
        try:
            return os.stat(self._path).st_ino if self._path else 0  # noqa: PTH116 # a path object is slower
        except FileNotFoundError:
            return 0

    def _give_up(self, cursor: sqlite3.Cursor, error: BaseException) -> None:
        """End a transaction in which an error was raised: nothing of it stays."""
        if cursor.connection.in_transaction:
            cursor.execute("ROLLBACK")
        self._move_aside_if_broken(error)

    def _move_aside_if_broken(self, error: BaseException) -> None:
        if is_broken(error) and self._moves_broken_aside:
            self._move_aside()

    def _move_aside(self) -> None:
        """Move a broken file out of the way. Of several workers that find it broken, one does it."""
        self.close()
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


def is_broken(error: BaseException) -> bool:
    """Return whether an error says that the file is no database, or a broken one."""
    return isinstance(error, sqlite3.DatabaseError) and _code_of(error) in _BROKEN


def _may_pass(error: sqlite3.Error | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return _code_of(error) in _PASSING


def _code_of(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; the extended ones say the same in more detail."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
