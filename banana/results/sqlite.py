"""The ledger in a SQLite file that all workers of a machine share; what is recorded is on the disk."""

import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from banana.database import Database, Execute, is_broken
from banana.results.ledger import Entry, LedgerError, State

# Longest wait for another process's transaction, in seconds; with its fsync one takes some milliseconds.
LOCK_SECONDS = 5

# Each brings a file from the version before it to its own; what a version of the service once wrote stays as it is here.
_MIGRATIONS = (
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
)
_COLUMNS = (
    "id, caller, key, route, fingerprint, calls, has_links, is_task, owner, request_id, keep_seconds, created_at, expires_at,"
    " state, result"
)
_SELECT = f"SELECT {_COLUMNS} FROM entries"
_INSERT = f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_IS_ACTIVE = "state IN ('begun', 'sent')"


class SQLiteLedger:
    """A `Ledger` in the file at `path`, which is opened when it is first used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A broken ledger is not replaced: with its keys forgotten, what was paid for would be paid for again.
        self._database = Database(
            path, self._prepare, synchronous="FULL", lock_seconds=LOCK_SECONDS, moves_broken_aside=False
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

    def begin(self, new: Entry) -> Entry:
        """Add `new`, unless its caller's key has an entry; return the one that holds. A task makes that one a task."""
        with self._transaction() as (execute, now):
            if new.key is not None:
                execute(
                    f"DELETE FROM entries WHERE caller = ? AND key = ? AND expires_at <= ? AND NOT {_IS_ACTIVE}",
                    new.caller,
                    new.key,
                    now,
                )
                if new.is_task:
                    execute(
                        "UPDATE entries SET is_task = 1 WHERE caller = ? AND key = ? AND fingerprint = ?"
                        f" AND ({_IS_ACTIVE} OR result != x'')",
                        new.caller,
                        new.key,
                        new.fingerprint,
                    )
                for row in execute(f"{_SELECT} WHERE caller = ? AND key = ?", new.caller, new.key):
                    return _entry(row)
            execute(_INSERT, *astuple(new))
            execute("INSERT OR IGNORE INTO beats VALUES (?, 0)", new.owner)
            return new

    def find(self, caller: str, key: str) -> Entry | None:
        """Return the entry of a caller's key."""
        with self._errors():
            rows = self._database.execute(f"{_SELECT} WHERE caller = ? AND key = ?", caller, key)
            return _entry(rows[0]) if rows else None

    def get(self, ids: Collection[str]) -> list[Entry]:
        """Return those of `ids` that there are."""
        with self._errors():
            marks = ", ".join("?" * len(ids))
            return [_entry(row) for row in self._database.execute(f"{_SELECT} WHERE id IN ({marks})", *ids)]

    def tasks(self, caller: str, limit: int, after: str | None) -> list[Entry] | None:
        """Return at most `limit` tasks, newest first, those behind `after`; None when that is no task of the caller's."""
        with self._transaction() as (execute, _):
            below: Any = 1 << 62
            if after is not None:
                rows = execute("SELECT number FROM entries WHERE caller = ? AND is_task AND id = ?", caller, after)
                if not rows:
                    return None
                below = rows[0][0]
            statement = f"{_SELECT} WHERE caller = ? AND is_task AND number < ? ORDER BY number DESC LIMIT ?"
            return [_entry(row) for row in execute(statement, caller, below, limit)]

    def mark_sent(self, entry_id: str, owner: str) -> bool:
        """Record, durably, that the call is made; return whether the owner may make it."""
        statement = f"UPDATE entries SET state = 'sent' WHERE id = ? AND owner = ? AND {_IS_ACTIVE} RETURNING id"
        return bool(self._change(statement, entry_id, owner))

    def settle(
        self, entry_id: str, owner: str, state: State, result: bytes, expires_at: float, *, keeps_key: bool
    ) -> bool:
        """Record what an entry became; return whether it was the owner's to say."""
        statement = (
            "UPDATE entries SET state = ?, result = ?, expires_at = ?, is_presumed = 0, key = iif(?, key, NULL)"
            f" WHERE id = ? AND owner = ? AND ({_IS_ACTIVE} OR is_presumed) RETURNING id"
        )
        return bool(self._change(statement, state, result, expires_at, keeps_key, entry_id, owner))

    def presume(self, entry_id: str, owner: str, state: State, result: bytes, expires_at: float) -> bool:
        """Settle what `owner` sent and did not live to settle; return whether it was still open."""
        statement = (
            "UPDATE entries SET state = ?, result = ?, expires_at = ?, is_presumed = 1"
            " WHERE id = ? AND owner = ? AND state = 'sent' RETURNING id"
        )
        return bool(self._change(statement, state, result, expires_at, entry_id, owner))

    def discard(self, entry_id: str, owner: str) -> None:
        """Forget an entry that was not sent."""
        self._change("DELETE FROM entries WHERE id = ? AND owner = ? AND state = 'begun'", entry_id, owner)

    def cancel(self, entry_id: str, caller: str, result: bytes, expires_at: float) -> Entry | None:
        """Cancel a caller's active task; return it as it was."""
        with self._transaction() as (execute, _):
            rows = execute(f"{_SELECT} WHERE id = ? AND caller = ? AND is_task AND {_IS_ACTIVE}", entry_id, caller)
            execute(
                "UPDATE entries SET key = iif(state = 'sent', key, NULL), state = 'cancelled', result = ?, expires_at = ?"
                f" WHERE id = ? AND caller = ? AND is_task AND {_IS_ACTIVE}",
                result,
                expires_at,
                entry_id,
                caller,
            )
            return _entry(rows[0]) if rows else None

    def delete(self, entry_id: str, caller: str) -> Entry | None:
        """Delete a caller's ended task; return it. Its key stays used until it expires."""
        with self._transaction() as (execute, _):
            its = f"id = ? AND caller = ? AND is_task AND NOT {_IS_ACTIVE}"
            rows = execute(f"{_SELECT} WHERE {its}", entry_id, caller)
            execute(f"DELETE FROM entries WHERE {its} AND key IS NULL", entry_id, caller)
            execute(f"UPDATE entries SET is_task = 0, result = x'' WHERE {its}", entry_id, caller)
            return _entry(rows[0]) if rows else None

    def beat(self, owner: str) -> None:
        """Show that `owner` lives."""
        self._change("INSERT INTO beats VALUES (?, 1) ON CONFLICT (owner) DO UPDATE SET beat = beat + 1", owner)

    def beats(self) -> dict[str, int]:
        """Return how often each owner of active entries has shown that it lives."""
        with self._errors():
            return dict(self._database.execute("SELECT owner, beat FROM beats"))

    def active(self) -> list[Entry]:
        """Return every entry that has not ended."""
        with self._errors():
            return [_entry(row) for row in self._database.execute(f"{_SELECT} WHERE {_IS_ACTIVE}")]

    def take_up(self, entry_id: str, old_owner: str, new_owner: str) -> bool:
        """Make an entry that was not sent another worker's; return whether that was still possible."""
        with self._transaction() as (execute, _):
            execute("INSERT OR IGNORE INTO beats VALUES (?, 0)", new_owner)
            statement = "UPDATE entries SET owner = ? WHERE id = ? AND owner = ? AND state = 'begun' RETURNING id"
            return bool(execute(statement, new_owner, entry_id, old_owner))

    def sweep(self) -> None:
        """Forget what has expired."""
        expired = f"FROM entries WHERE expires_at <= ? AND NOT {_IS_ACTIVE}"
        idle = f"FROM beats WHERE owner NOT IN (SELECT owner FROM entries WHERE {_IS_ACTIVE})"
        with self._errors():
            # Looked for first: a transaction that changes nothing takes the lock all the same.
            if not self._database.execute(f"SELECT 1 {expired} UNION ALL SELECT 1 {idle} LIMIT 1", time.time()):
                return
            with self._database.transaction() as (execute, now):
                execute(f"DELETE {expired}", now)
                execute(f"DELETE {idle}")

    def count_tasks(self) -> dict[State, int]:
        """Return how many tasks there are in each state."""
        with self._errors():
            rows = self._database.execute("SELECT state, count(*) FROM entries WHERE is_task GROUP BY state")
            return {State(state): count for state, count in rows}

    def close(self) -> None:
        """Close the file; it opens by itself when it is used again."""
        self._database.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Bring the file to the newest version. Raises LedgerError when it is of a newer one."""
        if _version_of(connection) < len(_MIGRATIONS):
            connection.execute("BEGIN IMMEDIATE")
            for statements in _MIGRATIONS[_version_of(connection) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
            connection.execute("COMMIT")
        if (version := _version_of(connection)) > len(_MIGRATIONS):
            raise LedgerError(
                f"the ledger {self._path} is of version {version}, written by a newer BananaService; this one reads up to"
                f" {len(_MIGRATIONS)}: install the newer one again, or move the file away and lose its keys and tasks"
            )

    def _change(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._transaction() as (execute, _):
            return execute(statement, *values)

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Execute, float]]:
        with self._errors(), self._database.transaction() as transaction:
            yield transaction

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"{type(error).__name__}: {error}") from error


def _version_of(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _entry(row: tuple[Any, ...]) -> Entry:
    entry = Entry(*row)
    return replace(
        entry,
        has_links=bool(entry.has_links),
        is_task=bool(entry.is_task),
        state=State(entry.state),
        result=bytes(entry.result),
    )
