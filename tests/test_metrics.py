"""Metrics, over all workers."""

import asyncio

import httpx
import pytest

from standin.server import StandIn
from tests.services import Service

pytestmark = pytest.mark.anyio


def value(text: str, series: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(series))


async def test_what_happened_is_counted(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """A picture and a refusal move the counters they should, and no other route's."""
    before = (await client.get("/metrics")).text
    stand_in.plan.extend([None, "image-safety"])
    await client.post("/generate", json={"prompt": "x", "number_of_images": 2})
    after = (await client.get("/metrics")).text

    def grown(series: str) -> float:
        return value(after, series) - value(before, series)

    assert grown('banana_requests_total{route="/generate",status="200"}') == 1
    assert grown("banana_images_total") == 1
    assert grown('banana_upstream_calls_total{outcome="ok"}') == 1
    assert grown('banana_upstream_calls_total{outcome="blocked"}') == 1
    assert grown("banana_tokens_total") == 1353
    assert grown('banana_bytes_total{direction="out"}') > 10_000
    assert grown('banana_bytes_total{direction="in"}') > 10
    assert value(after, "banana_upstream_in_flight") == 0
    assert value(after, "banana_upstream_waiting") == 0


@pytest.mark.slow
async def test_the_metrics_are_the_sum_of_all_workers(demo: Service) -> None:
    """Whichever worker is asked, the counters are those of all of them."""
    for _ in range(20):
        async with httpx.AsyncClient() as client:  # a connection each, so that both workers are met
            await client.get(f"{demo.address}/docs")  # which nobody else asks this service for
    sums: list[float] = []
    async with asyncio.timeout(30):
        while sums[-6:] != [20] * 6:  # a worker counts a request when its response has been sent
            async with httpx.AsyncClient() as client:
                text = (await client.get(f"{demo.address}/metrics")).text
            sums.append(value(text, 'banana_requests_total{route="/docs"'))

    assert max(sums) == 20
