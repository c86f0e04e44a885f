"""Who lives: each worker shows it by a number that grows, its beat; whose beat stands still for a lease has died.

Time is this worker's own: no clock of the machine is compared with another, nor believed. A worker judges others only while it can
show itself that it lives: where the ledger cannot be written, nobody's beat grows.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from banana import errors
from banana.intervals import INTERVALS, Intervals
from banana.ledger.thread import LedgerThread

# Whoever looks later than this has seen too little to judge by.
LATE_SECONDS = 4


class Beat:
    """The beat of this worker, `owner`, while it has something that another would take over."""

    def __init__(self, ledger: LedgerThread, owner: str, intervals: Intervals = INTERVALS) -> None:
        self._beat_seconds = intervals.beat
        self._ledger = ledger
        self._owner = owner
        self._reasons: list[Callable[[], bool]] = []

    def beat_while(self, has_something: Callable[[], bool]) -> None:
        """Beat while `has_something` returns true."""
        self._reasons.append(has_something)

    async def run(self) -> None:
        """Beat until cancelled; nothing else that this worker does holds it up."""
        while True:
            if any(has_something() for has_something in self._reasons):
                with suppress(errors.LedgerUnavailable):
                    await self.once()
            await asyncio.sleep(self._beat_seconds)

    async def once(self) -> None:
        """Show that this worker lives. Raises LedgerUnavailable."""
        await self._ledger.record(lambda ledger: ledger.beat(self._owner))


class Leases:
    """Of things that have an owner. `clock` is in seconds and never goes back."""

    def __init__(
        self,
        ledger: LedgerThread,
        beat: Beat,
        clock: Callable[[], float] = time.monotonic,
        intervals: Intervals = INTERVALS,
    ) -> None:
        self._lease_seconds = intervals.lease
        self._ledger = ledger
        self._beat = beat
        self._clock = clock
        # What each thing's owner last showed, and since when; and when that was looked at.
        self._shown: dict[str, tuple[object, float]] = {}
        self._looked_at = 0.0

    async def lapsed(self, owners: Mapping[str, str | None]) -> set[str]:
        """Return the things whose owner has shown nothing for a lease; `owners` are those of all things there are.

        None is an owner that shows nothing. Raises LedgerUnavailable.
        """
        before, self._shown = self._shown, {}
        if not owners:
            return set()
        await self._beat.once()
        beats = await self._ledger.look(lambda ledger: ledger.beats())
        now = self._clock()
        if now - self._looked_at > LATE_SECONDS:  # this worker was held up: others may have been, too
            before = {}
        self._looked_at = now
        for thing, owner in owners.items():
            shown = (owner, None if owner is None else beats.get(owner))
            last = before.get(thing)
            self._shown[thing] = last if last is not None and last[0] == shown else (shown, now)
        return {thing for thing, (_, since) in self._shown.items() if now - since >= self._lease_seconds}
