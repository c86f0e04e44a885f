"""The ledger beside the event loop."""

import asyncio
import threading
from pathlib import Path

import pytest

from banana import errors
from banana.ledger.ledger import Ledger, LedgerError
from banana.ledger.sqlite import SQLiteLedger
from banana.ledger.thread import LedgerThread

pytestmark = pytest.mark.anyio


def fail(ledger: Ledger) -> None:
    raise LedgerError("the disk is full")


async def test_the_event_loop_does_not_wait() -> None:
    """A decision that takes its time lets everything else go on; one comes after the other."""
    thread = LedgerThread(SQLiteLedger(Path("ledger.db")))
    gate = threading.Event()
    slow = asyncio.create_task(thread.look(lambda _: gate.wait(20)))
    after = asyncio.create_task(thread.record(lambda ledger: ledger.count_tasks()))
    await asyncio.sleep(0.05)
    assert not slow.done()
    assert not after.done()
    gate.set()

    assert await slow
    assert await after == {}
    await thread.close()


async def test_what_fails_is_a_503_until_something_is_recorded() -> None:
    """Reading is no proof that it can be written."""
    thread = LedgerThread(SQLiteLedger(Path("ledger.db")))
    with pytest.raises(errors.LedgerUnavailable) as refusal:
        await thread.record(fail)
    assert (refusal.value.status, refusal.value.code, thread.fails) == (503, "overloaded", True)
    is_failing = [thread.fails]
    await thread.look(lambda ledger: ledger.count_tasks())
    is_failing.append(thread.fails)
    await thread.record(lambda ledger: ledger.beat("w"))

    assert [*is_failing, thread.fails] == [True, True, False]
    await thread.close()


async def test_those_who_wait_behind_one_that_fails_do_not_wait_again() -> None:
    """A server that is silent for two seconds costs two, and not two for each; who comes later asks it again."""
    thread = LedgerThread(SQLiteLedger(Path("ledger.db")))
    gate = threading.Event()
    asked = 0

    def fail_late(ledger: Ledger) -> None:
        nonlocal asked
        asked += 1
        gate.wait(20)
        fail(ledger)

    waiting = [asyncio.create_task(thread.look(fail_late)) for _ in range(5)]
    await asyncio.sleep(0.05)
    gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(error) for error in found] == [errors.LedgerUnavailable] * 5
    assert asked == 1
    assert await thread.look(lambda ledger: ledger.count_tasks()) == {}
    await thread.close()
