"""The stand-in's faults: each is what its name says, on the wire."""

import asyncio

import httpx
import pytest

from standin.faults import FAULTS
from standin.server import StandIn
from tests.patience import soon

pytestmark = pytest.mark.anyio
BODY = {"contents": [{"parts": [{"text": "x"}]}]}
BROKEN = {"reset", "hang-up", "reset-inside", "truncated", "not-http"}
ENDLESS = {"hang", "hang-inside", "drip"}


async def ask(stand_in: StandIn, fault: str, timeout: float = 5) -> httpx.Response:
    stand_in.plan.append(fault)
    async with httpx.AsyncClient(timeout=timeout) as client:
        return await client.post(f"{stand_in.base_url}/models/gemini-3-pro-image:generateContent", json=BODY)


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - BROKEN - ENDLESS))
async def test_a_fault_is_answered_with_its_status(stand_in: StandIn, fault: str) -> None:
    """A number is that status in Google's shape; everything else comes as 200."""
    response = await ask(stand_in, fault)

    if fault[:3].isdecimal():
        assert response.status_code == response.json()["error"]["code"] == int(fault[:3])
    else:
        assert response.status_code == 200


@pytest.mark.parametrize("fault", sorted(BROKEN))
async def test_a_broken_connection_is_one(stand_in: StandIn, fault: str) -> None:
    """No whole response comes."""
    with pytest.raises(httpx.TransportError):
        await ask(stand_in, fault)


@pytest.mark.parametrize("fault", sorted(ENDLESS))
async def test_what_never_ends_is_ended_by_who_leaves(stand_in: StandIn, fault: str) -> None:
    """A caller who gives up is noticed."""
    task = asyncio.create_task(ask(stand_in, fault))
    while not stand_in.calls:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await soon(lambda: stand_in.calls[0].aborted, 5)
