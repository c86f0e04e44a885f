"""Waiting for entries that another worker carries out: one look at the ledger for all of them, ten times a second."""

import asyncio
from contextlib import suppress

from banana import errors
from banana.ledger.ledger import Entry
from banana.ledger.thread import LedgerThread

LOOK_SECONDS = 0.1


class Watch:
    """Looks at the ledger for whoever waits, and only then."""

    def __init__(self, ledger: LedgerThread) -> None:
        self._ledger = ledger
        self._waiting: dict[str, set[asyncio.Future[Entry | None]]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def until_ended(self, entry_id: str) -> Entry | None:
        """Return the entry when it has ended; None when there is none, or it was forgotten."""
        future: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(entry_id, set()).add(future)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            return await future
        finally:
            self._waiting[entry_id].discard(future)
            if not self._waiting[entry_id]:
                del self._waiting[entry_id]

    async def _look(self) -> None:
        while self._waiting:
            with suppress(errors.LedgerUnavailable):  # whoever waits has a deadline
                await self._look_at(list(self._waiting))
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_at(self, ids: list[str]) -> None:
        found = {entry.id: entry for entry in await self._ledger.look(lambda ledger: ledger.get(ids))}
        for entry_id in ids:
            self._notify(entry_id, found.get(entry_id))

    def _notify(self, entry_id: str, entry: Entry | None) -> None:
        if entry is not None and entry.state.is_active:
            return
        for future in self._waiting.get(entry_id, ()):
            if not future.done():
                future.set_result(entry)
