"""The ledger beside the event loop: its decisions wait for the disk, so they are made in a thread."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from banana import errors
from banana.intervals import INTERVALS, Intervals
from banana.ledger.ledger import Ledger, LedgerError

T = TypeVar("T")

log = structlog.get_logger(__name__)


class LedgerThread:
    """Calls `ledger` in a thread of its own, one call after the other.

    One that was given up may be carried out all the same: what is not the same when it is done twice must be waited for.

    Attributes:
        fails: whether the last thing that was to be recorded was not.

    """

    def __init__(self, ledger: Ledger, intervals: Intervals = INTERVALS) -> None:
        self._answer_seconds = intervals.ledger_answer
        self.fails = False
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._failed_at = 0.0

    async def record(self, change: Callable[[Ledger], T], *, to_its_end: bool = False) -> T:
        """Return what `change` returns, when it is recorded; `to_its_end`, however long that takes. Raises LedgerUnavailable."""
        result = await self.look(change, to_its_end=to_its_end)
        if self.fails:
            log.warning("ledger_recovered")
        self.fails = False
        return result

    async def look(self, question: Callable[[Ledger], T], *, to_its_end: bool = False) -> T:
        """Return what `question` returns; `to_its_end`, however long that takes. Raises LedgerUnavailable."""
        asked_at = time.monotonic()
        asking = asyncio.get_running_loop().run_in_executor(self._thread, self._ask, question, asked_at)
        try:
            async with asyncio.timeout(None if to_its_end else self._answer_seconds):
                return await asking
        except (LedgerError, TimeoutError) as error:
            if not self.fails:
                log.error(
                    "ledger_failed",
                    error=str(error) or f"it did not answer within {self._answer_seconds} s",
                    message="Requests with an Idempotency-Key and tasks are refused until it works again.",
                )
            self.fails = True
            raise errors.LedgerUnavailable from error

    def _ask(self, question: Callable[[Ledger], T], asked_at: float) -> T:
        # Whoever stood behind one that failed would wait as long as that one did, one after the other.
        if self._failed_at > asked_at:
            raise LedgerError("it failed for the one before")
        try:
            return question(self._ledger)
        except LedgerError:
            self._failed_at = time.monotonic()
            raise

    async def close(self) -> None:
        """Close the ledger."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._ledger.close)
        self._thread.shutdown()
