"""The ledger: which requests with an Idempotency-Key and which tasks there are, and what became of each.

An entry is begun, then sent (recorded before the first byte goes to Google), then ended. Its worker, the owner, shows that
it lives by a number that grows; when that stops, another worker takes up what was not sent, and settles what was. It
holds no prompt and no picture.
"""

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from banana.ledger.spend import SpendLedger


class LedgerError(Exception):
    """The ledger cannot be used; the message says why."""


class State(enum.StrEnum):
    """How far an entry is."""

    BEGUN = "begun"  # nothing was sent: nothing can have been billed
    SENT = "sent"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_active(self) -> bool:
        """Whether a worker is at it."""
        return self in (State.BEGUN, State.SENT)


@dataclass(frozen=True, slots=True)
class Entry:
    """A request that is carried out once.

    Attributes:
        id: 128 random bits in hexadecimal; a task's id, and the beginning of its files' names.
        caller: who may repeat it, poll it and delete it.
        key: its Idempotency-Key; None where there is none, or where it may be used again.
        route: by which it is carried out.
        fingerprint: of the route and the content, in hexadecimal: what makes two requests the same.
        calls: to Google, that it takes.
        has_links: whether its result, as a task's, holds links instead of pictures.
        is_task: whether it is polled and listed.
        owner: the worker that carries it out.
        request_id: of the request that began it.
        keep_seconds: for how long it is kept when it has ended.
        created_at, expires_at: in seconds of the epoch; what has not ended does not expire.
        state: how far it is.
        result: what it became, as JSON; empty until it has ended, and when that was deleted.

    """

    id: str
    caller: str
    key: str | None
    route: str
    fingerprint: str
    calls: int
    has_links: bool
    is_task: bool
    owner: str
    request_id: str
    keep_seconds: float
    created_at: float
    expires_at: float
    state: State = State.BEGUN
    result: bytes = b""


class Ledger(Protocol):
    """Every method is one decision, over all workers; it may block for some milliseconds. Each raises LedgerError."""

    @property
    def spend(self) -> SpendLedger:
        """What was spent and is reserved."""
        ...

    def begin(self, new: Entry) -> Entry:
        """Add `new`, unless its caller's key has an entry; return the one that holds.

        A task makes that one a task, when it is the same request and was not deleted.
        """
        ...

    def find(self, caller: str, key: str) -> Entry | None:
        """Return the entry of a caller's key."""
        ...

    def get(self, ids: Collection[str]) -> list[Entry]:
        """Return those of `ids` that there are."""
        ...

    def tasks(self, caller: str, limit: int, after: str | None) -> list[Entry] | None:
        """Return at most `limit` tasks, newest first, those behind `after`; None when that is no task of the caller's."""
        ...

    def mark_sent(self, entry_id: str, owner: str) -> bool:
        """Record, durably, that the call is made; return whether the owner may make it."""
        ...

    def settle(
        self,
        entry_id: str,
        owner: str,
        state: State,
        result: bytes,
        expires_at: float,
        released_at: float | None = None,
    ) -> bool:
        """Record what an entry became; return whether it was the owner's to say.

        What `presume` settled may be settled again: the owner lived. With `released_at` its key may be used again, and
        what is no task is forgotten then.
        """
        ...

    def presume(self, entry_id: str, owner: str, state: State, result: bytes, expires_at: float) -> bool:
        """Settle what `owner` sent and did not live to settle; return whether it was still open."""
        ...

    def discard(self, entry_id: str, owner: str) -> None:
        """Forget an entry that was not sent."""
        ...

    def cancel(self, entry_id: str, caller: str, result: bytes, expires_at: float) -> Entry | None:
        """Cancel a caller's active task; return it as it was. `result` is for whoever repeats its key after it was sent."""
        ...

    def delete(self, entry_id: str, caller: str) -> Entry | None:
        """Delete a caller's ended task; return it. Its key stays used until it expires."""
        ...

    def beat(self, owner: str) -> None:
        """Show that `owner` lives."""
        ...

    def beats(self) -> dict[str, int]:
        """Return a number of each owner's that grows whenever it shows that it lives, or begins something."""
        ...

    def owners(self) -> set[str]:
        """Return the owners of the entries that have not ended."""
        ...

    def active(self, owner: str) -> Sequence[Entry]:
        """Return the entries of `owner` that have not ended."""
        ...

    def take_up(self, entry_id: str, old_owner: str, new_owner: str) -> bool:
        """Make an entry that was not sent another worker's; return whether that was still possible."""
        ...

    def sweep(self) -> None:
        """Forget what has expired."""
        ...

    def count_tasks(self) -> dict[State, int]:
        """Return how many tasks there are in each state."""
        ...

    def secret(self, own: str) -> str | None:
        """Return the secret of all machines that share the ledger: the first one's own; None where there is one machine."""
        ...

    def close(self) -> None:
        """Close it; it opens by itself when it is used again."""
        ...
