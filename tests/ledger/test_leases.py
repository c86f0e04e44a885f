"""Leases: whoever shows the same for too long has died; nobody is judged while nobody can show anything."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from banana import errors
from banana.intervals import INTERVALS, Intervals
from banana.ledger.leases import LATE_SECONDS, Beat, Leases
from banana.ledger.ledger import LedgerError
from banana.ledger.sqlite import SQLiteLedger
from banana.ledger.thread import LedgerThread

pytestmark = pytest.mark.anyio
LOOK = 1.0


class Unsteady(SQLiteLedger):
    """A ledger that cannot be written while it is told so."""

    is_full = False

    def beat(self, owner: str) -> None:
        if self.is_full:
            raise LedgerError("the disk is full")
        super().beat(owner)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ledger() -> Unsteady:
    return Unsteady(Path("ledger.db"))


@pytest.fixture
async def thread(ledger: Unsteady) -> AsyncIterator[LedgerThread]:
    thread = LedgerThread(ledger)
    yield thread
    await thread.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(thread: LedgerThread, clock: Clock) -> Leases:
    return Leases(thread, Beat(thread, "me"), clock)


async def looked_for(leases: Leases, clock: Clock, seconds: float, owners: dict[str, str | None]) -> set[str]:
    """Look again and again; return what has lapsed in the end."""
    lapsed = await leases.lapsed(owners)
    for _ in range(round(seconds / LOOK)):
        clock.now += LOOK
        lapsed = await leases.lapsed(owners)
    return lapsed


async def test_an_owner_lapses_when_its_beat_stands_still_for_a_lease(
    leases: Leases, ledger: Unsteady, clock: Clock
) -> None:
    """By this worker's own clock; whoever beats has as long again; whoever shows nothing lapses too."""
    owners = {"a": "dead", "b": "alive", "c": None}
    assert await looked_for(leases, clock, INTERVALS.lease / 2, owners) == set()
    ledger.beat("alive")

    assert await looked_for(leases, clock, INTERVALS.lease / 2, owners) == {"a", "c"}


async def test_what_is_gone_begins_anew(leases: Leases, clock: Clock) -> None:
    """A thing that was not there in between is another."""
    await looked_for(leases, clock, INTERVALS.lease / 2, {"a": "dead"})
    await leases.lapsed({})

    assert await looked_for(leases, clock, INTERVALS.lease / 2, {"a": "dead"}) == set()


async def test_time_in_which_nobody_looked_does_not_count(leases: Leases, clock: Clock) -> None:
    """Whoever was stopped, or held up, begins anew: others may have been, too."""
    await leases.lapsed({"a": "w"})
    clock.now += 10 * LATE_SECONDS

    assert await leases.lapsed({"a": "w"}) == set()
    assert await looked_for(leases, clock, INTERVALS.lease, {"a": "w"}) == {"a"}


async def test_nobody_is_judged_while_nobody_can_beat(leases: Leases, ledger: Unsteady, clock: Clock) -> None:
    """A full disk: the ledger can be read, but whoever is at something cannot say so; afterwards it has a whole lease."""
    await leases.lapsed({"a": "w"})
    ledger.is_full = True
    for _ in range(round(2 * INTERVALS.lease)):
        clock.now += LOOK
        with pytest.raises(errors.LedgerUnavailable):
            await leases.lapsed({"a": "w"})
    ledger.is_full = False

    assert await leases.lapsed({"a": "w"}) == set()


async def test_a_worker_beats_while_it_has_a_reason(thread: LedgerThread, ledger: Unsteady) -> None:
    """Of several one is enough; a ledger that fails does not end it."""
    is_busy = [False]
    beat = Beat(thread, "me", Intervals(beat=0.01))
    beat.beat_while(lambda: False)
    beat.beat_while(lambda: is_busy[0])
    running = asyncio.create_task(beat.run())
    await asyncio.sleep(0.1)
    assert ledger.beats() == {}
    is_busy[0] = ledger.is_full = True
    await asyncio.sleep(0.1)
    ledger.is_full = False
    async with asyncio.timeout(20):
        while ledger.beats().get("me", 0) < 3:
            await asyncio.sleep(0.01)
    running.cancel()
