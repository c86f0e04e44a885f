"""The ledger in a SQLite file that all workers of a machine share; what is recorded is on the disk."""

import time
from collections.abc import Collection
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from banana.intervals import INTERVALS, Intervals
from banana.ledger.file import LedgerFile
from banana.ledger.ledger import Entry, State
from banana.ledger.sqlite_spend import BEAT, OWNERS, SQLiteSpend

_COLUMNS = (
    "id, caller, key, route, fingerprint, calls, has_links, is_task, owner, request_id, keep_seconds, created_at, expires_at,"
    " state, result"
)
_SELECT = f"SELECT {_COLUMNS} FROM entries"
_INSERT = f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_IS_ACTIVE = "state IN ('begun', 'sent')"


class SQLiteLedger:
    """A `Ledger` in the file at `path`, which is opened when it is first used."""

    def __init__(self, path: Path, intervals: Intervals = INTERVALS) -> None:
        self._file = LedgerFile(path, intervals)
        self.spend = SQLiteSpend(self._file)

    def check(self) -> None:
        """Open the file once. Raises LedgerError when that will never be: broken, or of a newer version."""
        self._file.check()

    def warnings(self) -> list[str]:
        """Return nothing: what is recorded is on the disk."""
        return []

    def begin(self, new: Entry) -> Entry:
        """Add `new`, unless its caller's key has an entry; return the one that holds. A task makes that one a task."""
        with self._file.transaction() as (execute, now):
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
            execute(BEAT, new.owner)
            return new

    def find(self, caller: str, key: str) -> Entry | None:
        """Return the entry of a caller's key."""
        rows = self._file.execute(f"{_SELECT} WHERE caller = ? AND key = ?", caller, key)
        return _entry(rows[0]) if rows else None

    def get(self, ids: Collection[str]) -> list[Entry]:
        """Return those of `ids` that there are."""
        marks = ", ".join("?" * len(ids))
        return [_entry(row) for row in self._file.execute(f"{_SELECT} WHERE id IN ({marks})", *ids)]

    def tasks(self, caller: str, limit: int, after: str | None) -> list[Entry] | None:
        """Return at most `limit` tasks, newest first, those behind `after`; None when that is no task of the caller's."""
        below: Any = 1 << 62
        if after is not None:
            number = "SELECT number FROM entries WHERE caller = ? AND is_task AND id = ?"
            rows = self._file.execute(number, caller, after)
            if not rows:
                return None
            below = rows[0][0]
        statement = f"{_SELECT} WHERE caller = ? AND is_task AND number < ? ORDER BY number DESC LIMIT ?"
        return [_entry(row) for row in self._file.execute(statement, caller, below, limit)]

    def mark_sent(self, entry_id: str, owner: str) -> bool:
        """Record, durably, that the call is made; return whether the owner may make it."""
        statement = f"UPDATE entries SET state = 'sent' WHERE id = ? AND owner = ? AND {_IS_ACTIVE} RETURNING id"
        return bool(self._file.change(statement, entry_id, owner))

    def settle(
        self,
        entry_id: str,
        owner: str,
        state: State,
        result: bytes,
        expires_at: float,
        released_at: float | None = None,
    ) -> bool:
        """Record what an entry became; return whether it was the owner's to say."""
        statement = (
            "UPDATE entries SET state = ?, result = ?, expires_at = iif(is_task, ?, coalesce(?, ?)), is_presumed = 0,"
            " key = iif(? IS NULL, key, NULL)"
            f" WHERE id = ? AND owner = ? AND ({_IS_ACTIVE} OR is_presumed) RETURNING id"
        )
        times = (expires_at, released_at, expires_at, released_at)
        return bool(self._file.change(statement, state, result, *times, entry_id, owner))

    def presume(self, entry_id: str, owner: str, state: State, result: bytes, expires_at: float) -> bool:
        """Settle what `owner` sent and did not live to settle; return whether it was still open."""
        statement = (
            "UPDATE entries SET state = ?, result = ?, expires_at = ?, is_presumed = 1"
            " WHERE id = ? AND owner = ? AND state = 'sent' RETURNING id"
        )
        return bool(self._file.change(statement, state, result, expires_at, entry_id, owner))

    def discard(self, entry_id: str, owner: str) -> None:
        """Forget an entry that was not sent."""
        self._file.change("DELETE FROM entries WHERE id = ? AND owner = ? AND state = 'begun'", entry_id, owner)

    def cancel(self, entry_id: str, caller: str, result: bytes, expires_at: float) -> Entry | None:
        """Cancel a caller's active task; return it as it was."""
        with self._file.transaction() as (execute, _):
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
        with self._file.transaction() as (execute, _):
            its = f"id = ? AND caller = ? AND is_task AND NOT {_IS_ACTIVE}"
            rows = execute(f"{_SELECT} WHERE {its}", entry_id, caller)
            execute(f"DELETE FROM entries WHERE {its} AND key IS NULL", entry_id, caller)
            execute(f"UPDATE entries SET is_task = 0, result = x'' WHERE {its}", entry_id, caller)
            return _entry(rows[0]) if rows else None

    def beat(self, owner: str) -> None:
        """Show that `owner` lives."""
        self._file.change(BEAT, owner)

    def beats(self) -> dict[str, int]:
        """Return a number of each owner's that grows whenever it shows that it lives, or begins something."""
        return dict(self._file.execute("SELECT owner, beat FROM beats"))

    def owners(self) -> set[str]:
        """Return the owners of the entries that have not ended."""
        return {owner for (owner,) in self._file.execute(f"SELECT DISTINCT owner FROM entries WHERE {_IS_ACTIVE}")}

    def active(self, owner: str) -> list[Entry]:
        """Return the entries of `owner` that have not ended."""
        return [_entry(row) for row in self._file.execute(f"{_SELECT} WHERE owner = ? AND {_IS_ACTIVE}", owner)]

    def take_up(self, entry_id: str, old_owner: str, new_owner: str) -> bool:
        """Make an entry that was not sent another worker's; return whether that was still possible."""
        with self._file.transaction() as (execute, _):
            execute(BEAT, new_owner)
            statement = "UPDATE entries SET owner = ? WHERE id = ? AND owner = ? AND state = 'begun' RETURNING id"
            return bool(execute(statement, new_owner, entry_id, old_owner))

    def sweep(self) -> None:
        """Forget what has expired."""
        expired = f"FROM entries WHERE expires_at <= ? AND NOT {_IS_ACTIVE}"
        owners = f"SELECT owner FROM entries WHERE {_IS_ACTIVE} UNION {OWNERS}"
        idle = f"FROM beats WHERE owner NOT IN ({owners})"
        # Looked for first: a transaction that changes nothing takes the lock all the same.
        if not self._file.execute(f"SELECT 1 {expired} UNION ALL SELECT 1 {idle} LIMIT 1", time.time()):
            return
        with self._file.transaction() as (execute, now):
            execute(f"DELETE {expired}", now)
            execute(f"DELETE {idle}")

    def count_tasks(self) -> dict[State, int]:
        """Return how many tasks there are in each state."""
        rows = self._file.execute("SELECT state, count(*) FROM entries WHERE is_task GROUP BY state")
        return {State(state): count for state, count in rows}

    def secret(self, own: str) -> str | None:
        """Return None: the file is one machine's."""
        return None

    def close(self) -> None:
        """Close the file; it opens by itself when it is used again."""
        self._file.close()


def _entry(row: tuple[Any, ...]) -> Entry:
    entry = Entry(*row)
    return replace(
        entry,
        has_links=bool(entry.has_links),
        is_task=bool(entry.is_task),
        state=State(entry.state),
        result=bytes(entry.result),
    )
