"""Waiting for what another worker carries out."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from banana.ledger.ledger import Entry, Ledger, State
from banana.ledger.sqlite import SQLiteLedger
from banana.ledger.thread import LedgerThread
from banana.results.watch import LOOK_SECONDS, Watch
from tests.ledger.entries import ENTRY, LATER

pytestmark = pytest.mark.anyio


class Counting(SQLiteLedger):
    looks = 0

    def get(self, ids: object) -> list[Entry]:
        self.looks += 1
        return super().get(ids)  # type: ignore[arg-type]


async def test_all_who_wait_share_each_look() -> None:
    """And nobody looks when nobody waits."""
    ledger = Counting(Path("ledger.db"))
    ids = [f"{number:032x}" for number in range(20)]
    for number in ids:
        ledger.begin(replace(ENTRY, id=number, key=number))
    thread = LedgerThread(ledger)
    watch = Watch(thread)
    began = time.monotonic()
    waiting = [asyncio.create_task(watch.until_ended(number)) for number in ids for _ in range(2)]
    await asyncio.sleep(0.25)
    assert not any(task.done() for task in waiting)
    for number in ids:
        await thread.record(settled(number))

    found = await asyncio.gather(*waiting)
    looks, most = ledger.looks, (time.monotonic() - began) / LOOK_SECONDS + 2
    await asyncio.sleep(0.25)

    assert [entry.id for entry in found if entry] == [number for number in ids for _ in range(2)]
    assert ledger.looks - looks <= 1
    assert looks <= most
    await thread.close()


def settled(number: str) -> Callable[[Ledger], bool]:
    def settle(ledger: Ledger) -> bool:
        return ledger.settle(number, "w1", State.COMPLETED, b"[]", LATER)

    return settle


async def test_what_is_forgotten_has_ended_too() -> None:
    """Whoever waits may claim it again."""
    ledger = SQLiteLedger(Path("ledger.db"))
    ledger.begin(ENTRY)
    thread = LedgerThread(ledger)
    waiting = asyncio.create_task(Watch(thread).until_ended(ENTRY.id))
    await asyncio.sleep(0.05)
    await thread.record(lambda ledger: ledger.discard(ENTRY.id, "w1"))

    assert await waiting is None
    await thread.close()


async def test_a_ledger_that_fails_for_a_while_is_waited_for() -> None:
    """Whoever waits has a deadline of its own."""

    class Failing(SQLiteLedger):
        failures = 2

        def get(self, ids: object) -> list[Entry]:
            from banana.ledger.ledger import LedgerError

            if self.failures:
                self.failures -= 1
                raise LedgerError("not now")
            return super().get(ids)  # type: ignore[arg-type]

    ledger = Failing(Path("ledger.db"))
    ledger.begin(ENTRY)
    ledger.settle(ENTRY.id, "w1", State.COMPLETED, b"[]", LATER)
    thread = LedgerThread(ledger)

    found = await asyncio.wait_for(Watch(thread).until_ended(ENTRY.id), 20)

    assert found is not None
    await thread.close()
