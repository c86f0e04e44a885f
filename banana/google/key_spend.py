"""How much each API key may spend: Google lets a key's project spend only so much in any ten minutes.

What a call may cost is taken from its key's room before it is sent, over all workers, and settled by what it cost. A ledger
that cannot be used lets calls pass: Google's own limit holds then.
"""

import asyncio
import secrets
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

import structlog

from banana import errors
from banana.intervals import INTERVALS, Intervals
from banana.ledger.leases import Beat
from banana.ledger.spend import KEY_WINDOW_SECONDS
from banana.ledger.thread import LedgerThread
from banana.money import nanodollars

CLOSE_SECONDS = 2
# No call waits longer for a ledger that says nothing; it passes then.
TAKE_SECONDS = 0.5

log = structlog.get_logger(__name__)


class KeySpend(Protocol):
    """The room of every key."""

    async def take(self, key: str, limit: Callable[[], Decimal | None]) -> str | None:
        """Take what a call may cost (USD) from the room of the key with this digest; return by what it is settled.

        Raises KeySpent when there is no room, with the time until there is.
        """
        ...

    def settle(self, room_id: str | None, amount: Decimal) -> None:
        """Count `amount` as spent instead."""
        ...

    async def close(self) -> None:
        """Return when everything is settled."""
        ...


class UnlimitedKeySpend:
    """Stands for `LimitedKeySpend` where KEY_SPEND_PER_10_MINUTES is not set."""

    async def take(self, key: str, limit: Callable[[], Decimal | None]) -> str | None:
        """Return None."""
        return None

    def settle(self, room_id: str | None, amount: Decimal) -> None:
        """Return: nothing was taken."""

    async def close(self) -> None:
        """Return."""


class LimitedKeySpend:
    """Keeps every key below `limit` (USD) in any ten minutes, over all workers; `owner` is this worker, `beat` its own."""

    def __init__(
        self, limit: Decimal, ledger: LedgerThread, beat: Beat, owner: str, intervals: Intervals = INTERVALS
    ) -> None:
        self._retry_seconds = intervals.retry
        self._limit = limit
        self._ledger = ledger
        self._owner = owner
        self._open: set[str] = set()
        self._settling: set[asyncio.Task[None]] = set()
        beat.beat_while(lambda: bool(self._open))
        self._knows_every_price = True

    async def take(self, key: str, limit: Callable[[], Decimal | None]) -> str | None:
        """Take what a call may cost from the room of the key with this digest. Raises KeySpent."""
        amount = limit()
        if amount is None:
            self._warn_of_unknown_price()
            return None
        if amount > self._limit:
            raise errors.KeySpent(
                f"This call may cost {amount:.6f} USD, more than KEY_SPEND_PER_10_MINUTES={self._limit} lets any key spend;"
                " nothing was sent to Google.",
                per_day=True,
            )
        if self._settling:
            await asyncio.sleep(0)  # what was settled before is recorded before
        room_id = secrets.token_hex(16)
        taken, most = nanodollars(amount), nanodollars(self._limit)
        self._open.add(room_id)
        try:
            async with asyncio.timeout(TAKE_SECONDS):
                wait_seconds = await self._ledger.record(
                    lambda ledger: ledger.spend.take_room(room_id, self._owner, key, taken, most)
                )
        except BaseException as error:
            self.settle(room_id, Decimal(0))  # whether it was recorded is not known
            if isinstance(error, errors.LedgerUnavailable | TimeoutError):
                return None
            raise
        if wait_seconds:
            self._open.discard(room_id)
            raise errors.KeySpent(
                f"Every API key has spent what KEY_SPEND_PER_10_MINUTES={self._limit} USD lets it spend in"
                f" {KEY_WINDOW_SECONDS // 60} minutes. Nothing was sent to Google.",
                retry_after_seconds=wait_seconds,
            )
        return room_id

    def settle(self, room_id: str | None, amount: Decimal) -> None:
        """Count `amount` as spent instead, as soon as that can be recorded."""
        if room_id is not None:
            task = asyncio.create_task(self._settled(room_id, nanodollars(amount)))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def close(self) -> None:
        """Return when everything is settled, or cannot be: another worker settles it then, as it was taken."""
        if self._settling:
            _, late = await asyncio.wait(self._settling, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()

    async def _settled(self, room_id: str, amount: int) -> None:
        while True:
            try:
                await self._ledger.record(lambda ledger: ledger.spend.settle_room(room_id, amount))
                break
            except errors.LedgerUnavailable:
                await asyncio.sleep(self._retry_seconds)
        self._open.discard(room_id)

    def _warn_of_unknown_price(self) -> None:
        if self._knows_every_price:
            self._knows_every_price = False
            log.warning(
                "price_unknown", message="Calls of models without a price are not counted. Set their prices in PRICES."
            )
