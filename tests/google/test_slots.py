"""Room for calls."""

import asyncio

import pytest

from banana import errors
from banana.google.slots import Slots

pytestmark = pytest.mark.anyio


async def test_who_came_first_is_served_first() -> None:
    """Calls in line get their slot in the order in which they came."""
    slots, served = Slots(1, 3), []

    async def call(number: int) -> None:
        async with slots:
            served.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(call(number) for number in range(4)))

    assert served == [0, 1, 2, 3]
    assert slots.waiting == 0


async def test_beyond_the_line_a_call_is_refused_at_once() -> None:
    """The message says how full it is, and when to come again."""
    slots = Slots(1, 0)
    async with slots:
        with pytest.raises(errors.Overloaded, match="All 1 connections are busy") as caught:
            await slots.__aenter__()

    assert caught.value.headers["Retry-After"] == "5"


async def test_who_leaves_the_line_takes_no_slot() -> None:
    """A call cancelled while it waits frees its place, and the slot goes to the next."""
    slots = Slots(1, 1)

    async def call() -> None:
        async with slots:
            pass

    async with slots:
        waiting = asyncio.create_task(call())
        await asyncio.sleep(0)
        assert slots.waiting == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert slots.waiting == 0
    await asyncio.wait_for(call(), 1)
