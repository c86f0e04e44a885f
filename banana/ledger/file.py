"""The ledger's SQLite file, which all workers of a machine share: its versions, and its errors as the ledger's own."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from banana.database import Database, Execute, is_broken
from banana.intervals import INTERVALS, Intervals
from banana.ledger.ledger import LedgerError

# Each brings a file from the version before it to its own; what a version of the service once wrote stays as it is here.
MIGRATIONS = (
    (
        """
        CREATE TABLE entries (
            number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, caller TEXT NOT NULL, key TEXT,
            route TEXT NOT NULL, fingerprint TEXT NOT NULL, calls INTEGER NOT NULL, has_links INTEGER NOT NULL,
            is_task INTEGER NOT NULL, owner TEXT NOT NULL,
            request_id TEXT NOT NULL, keep_seconds REAL NOT NULL, created_at REAL NOT NULL, expires_at REAL NOT NULL, state TEXT NOT NULL,
            result BLOB NOT NULL, is_presumed INTEGER NOT NULL DEFAULT 0
        )
        """,
        "CREATE UNIQUE INDEX entries_by_key ON entries (caller, key) WHERE key IS NOT NULL",
        "CREATE INDEX entries_active ON entries (state) WHERE state IN ('begun', 'sent')",
        "CREATE INDEX entries_tasks ON entries (caller, number) WHERE is_task",
        "CREATE INDEX entries_by_expiry ON entries (expires_at)",
        "CREATE TABLE beats (owner TEXT PRIMARY KEY, beat INTEGER NOT NULL)",
    ),
    (
        """
        CREATE TABLE spend (
            caller TEXT NOT NULL, day INTEGER NOT NULL, nanodollars INTEGER NOT NULL, PRIMARY KEY (caller, day)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE reservations (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL, caller TEXT NOT NULL, day INTEGER NOT NULL,
            nanodollars INTEGER NOT NULL, is_presumed INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID
        """,
        "CREATE INDEX reservations_by_caller ON reservations (caller, day)",
        """
        CREATE TABLE key_spend (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL, key TEXT NOT NULL, spent_at REAL NOT NULL,
            nanodollars INTEGER NOT NULL, is_open INTEGER NOT NULL DEFAULT 1
        ) WITHOUT ROWID
        """,
        "CREATE INDEX key_spend_by_key ON key_spend (key, spent_at)",
    ),
)


class LedgerFile:
    """The file at `path`, which is opened when it is first used. Every method raises LedgerError."""

    def __init__(self, path: Path, intervals: Intervals = INTERVALS) -> None:
        self._path = path
        # A broken ledger is not replaced: with its keys forgotten, what was paid for would be paid for again.
        self._database = Database(
            path,
            self._prepare,
            synchronous="FULL",
            lock_seconds=intervals.ledger_lock,
            moves_broken_aside=False,
            look_seconds=intervals.file_look,
        )

    def check(self) -> None:
        """Open the file once. Raises LedgerError when that will never be: broken, or of a newer version."""
        try:
            self._database.open()
        except (sqlite3.Error, OSError) as error:
            advice = "; move it away to begin a new one: repeats of requests that it holds would then be billed again"
            raise LedgerError(
                f"the ledger {self._path} cannot be used ({error}){advice if is_broken(error) else ''}"
            ) from error
        self._database.close()

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement that changes nothing; return its rows."""
        with _errors():
            return self._database.execute(statement, *values)

    def change(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own; return its rows."""
        with self.transaction() as (execute, _):
            return execute(statement, *values)

    @contextmanager
    def transaction(self) -> Iterator[tuple[Execute, float]]:
        """Yield the means to execute, and the time in seconds of the epoch; what was changed is on the disk at the end."""
        with _errors(), self._database.transaction() as transaction:
            yield transaction

    def close(self) -> None:
        """Close the file; it opens by itself when it is used again."""
        self._database.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Bring the file to the newest version. Raises LedgerError when it is of a newer one."""
        if _version_of(connection) < len(MIGRATIONS):
            connection.execute("BEGIN IMMEDIATE")
            for statements in MIGRATIONS[_version_of(connection) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
        if (version := _version_of(connection)) > len(MIGRATIONS):
            raise LedgerError(
                f"the ledger {self._path} is of version {version}, written by a newer BananaService; this one reads up to"
                f" {len(MIGRATIONS)}: install the newer one again, or move the file away and lose its keys, tasks and"
                " what was spent"
            )


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, OverflowError) as error:
        raise LedgerError(f"{type(error).__name__}: {error}") from error


def _version_of(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
