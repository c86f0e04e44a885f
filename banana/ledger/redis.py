"""The ledger in Redis or Valkey, which several machines share; what is recorded lasts as long as that server keeps it.

Its own clock decides what has expired; `ledger.lua` has the decisions themselves.
"""

import time
from collections.abc import Callable, Collection
from typing import Any

from banana.ledger.ledger import Entry, State
from banana.ledger.redis_spend import RedisSpend
from banana.ledger.server import LedgerServer, batches

# Entries that are forgotten in one run of the script.
SWEPT_AT_ONCE = 500


class RedisLedger:
    """A `Ledger` in the server at `url`; `clock` is its clock, None the server's own."""

    def __init__(self, url: str, clock: Callable[[], float] | None = None, *, is_demo: bool = False) -> None:
        self._server = LedgerServer(url, clock, is_demo=is_demo)
        self._clock = clock or time.time
        self.spend = RedisSpend(self._server)

    def check(self) -> None:
        """Ask the server once. Raises LedgerError when it can never be used; one that is not there may come."""
        self._server.check()

    def warnings(self) -> list[str]:
        """Return why the server may forget what it was given."""
        return self._server.warnings()

    def begin(self, new: Entry) -> Entry:
        """Add `new`, unless its caller's key has an entry; return the one that holds. A task makes that one a task."""
        values = (
            *(new.id, new.caller, new.key or "", new.route, new.fingerprint, new.calls, new.has_links, new.is_task),
            *(new.owner, new.request_id, new.keep_seconds, new.created_at, self._from_now(new.expires_at)),
            *(new.state, new.result),
        )
        held = _entry(self._server.change("begin", *values))
        return new if held.id == new.id else held

    def find(self, caller: str, key: str) -> Entry | None:
        """Return the entry of a caller's key."""
        return _entry_or_none(self._server.look("find", caller, key))

    def get(self, ids: Collection[str]) -> list[Entry]:
        """Return those of `ids` that there are."""
        return [_entry(row) for some in batches(ids) for row in self._server.look("get", *some)]

    def tasks(self, caller: str, limit: int, after: str | None) -> list[Entry] | None:
        """Return at most `limit` tasks, newest first, those behind `after`; None when that is no task of the caller's."""
        rows = self._server.look("tasks", caller, limit, *([after] if after is not None else []))
        return None if rows is None else [_entry(row) for row in rows]

    def mark_sent(self, entry_id: str, owner: str) -> bool:
        """Record that the call is made; return whether the owner may make it."""
        return bool(self._server.change("mark_sent", entry_id, owner))

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
        times = [self._from_now(at) for at in (expires_at, released_at) if at is not None]
        return bool(self._server.change("settle", entry_id, owner, state, result, *times))

    def presume(self, entry_id: str, owner: str, state: State, result: bytes, expires_at: float) -> bool:
        """Settle what `owner` sent and did not live to settle; return whether it was still open."""
        return bool(self._server.change("presume", entry_id, owner, state, result, self._from_now(expires_at)))

    def discard(self, entry_id: str, owner: str) -> None:
        """Forget an entry that was not sent."""
        self._server.change("discard", entry_id, owner)

    def cancel(self, entry_id: str, caller: str, result: bytes, expires_at: float) -> Entry | None:
        """Cancel a caller's active task; return it as it was."""
        return _entry_or_none(self._server.change("cancel", entry_id, caller, result, self._from_now(expires_at)))

    def delete(self, entry_id: str, caller: str) -> Entry | None:
        """Delete a caller's ended task; return it. Its key stays used until it expires."""
        return _entry_or_none(self._server.change("delete", entry_id, caller))

    def beat(self, owner: str) -> None:
        """Show that `owner` lives."""
        self._server.look("beat", owner)

    def beats(self) -> dict[str, int]:
        """Return a number of each owner's that grows whenever it shows that it lives, or begins something."""
        found = self._server.look("beats")
        return {owner.decode(): int(beat) for owner, beat in zip(found[::2], found[1::2], strict=True)}

    def owners(self) -> set[str]:
        """Return the owners of the entries that have not ended."""
        return {owner.decode() for owner in self._server.look("owners")}

    def active(self, owner: str) -> list[Entry]:
        """Return the entries of `owner` that have not ended."""
        return [_entry(row) for row in self._server.look("active", owner)]

    def take_up(self, entry_id: str, old_owner: str, new_owner: str) -> bool:
        """Make an entry that was not sent another worker's; return whether that was still possible."""
        return bool(self._server.change("take_up", entry_id, old_owner, new_owner))

    def sweep(self) -> None:
        """Forget what has expired."""
        while self._server.look("sweep", SWEPT_AT_ONCE) == SWEPT_AT_ONCE:
            pass

    def count_tasks(self) -> dict[State, int]:
        """Return how many tasks there are in each state."""
        found = self._server.look("count_tasks")
        return {State(state.decode()): count for state, count in zip(found[::2], found[1::2], strict=True) if count}

    def secret(self, own: str) -> str | None:
        """Return the secret of all machines: the first one's own."""
        shared: bytes = self._server.look("secret", own)
        return shared.decode()

    def close(self) -> None:
        """Close the connections; they open by themselves when they are used again."""
        self._server.close()

    def _from_now(self, at: float) -> float:
        """Return in how many seconds something is, by this machine's clock: the server adds them to its own."""
        return at - self._clock()


def _entry_or_none(row: list[bytes] | None) -> Entry | None:
    return None if row is None else _entry(row)


def _entry(row: list[Any]) -> Entry:
    texts = [value.decode() for value in row[:14]]
    return Entry(
        *(texts[0], texts[1], texts[2] or None, texts[3], texts[4]),
        calls=int(texts[5]),
        has_links=texts[6] == "1",
        is_task=texts[7] == "1",
        owner=texts[8],
        request_id=texts[9],
        keep_seconds=float(texts[10]),
        created_at=float(texts[11]),
        expires_at=float(texts[12]),
        state=State(texts[13]),
        result=row[14],
    )
