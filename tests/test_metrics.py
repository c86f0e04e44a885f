"""Metrics and readiness."""

import httpx
import pytest

from banana.app import create_app
from banana.http.protocol import DrainingProtocol
from standin.server import StandIn
from tests.conftest import client_of, settings_for
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
    assert grown("banana_tokens_total") == 1128
    assert grown('banana_bytes_total{direction="out"}') > 10_000
    assert grown('banana_bytes_total{direction="in"}') > 10
    assert value(after, "banana_upstream_in_flight") == 0
    assert value(after, "banana_upstream_waiting") == 0


async def test_readiness_tells_a_refused_key_and_a_retiring_worker(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with the reason when no key is usable or the worker retires; 200 else."""
    stand_in.plan.append("401")
    async with client_of(create_app(settings_for(stand_in))) as client:
        good = await client.get("/ready")
        await client.post("/generate", json={"prompt": "x"})
        no_key = await client.get("/ready")
        monkeypatch.setattr(DrainingProtocol, "draining", True)
        draining = await client.get("/ready")

    assert (good.status_code, good.json()["status"]) == (200, "ready")
    assert (no_key.status_code, no_key.json()["reasons"]) == (503, ["every API key was refused"])
    assert draining.json()["reasons"] == ["draining", "every API key was refused"]


@pytest.mark.slow
async def test_the_metrics_are_the_sum_of_all_workers(demo: Service) -> None:
    """Whichever worker is asked, the counters are those of all of them."""
    async with httpx.AsyncClient() as client:
        before = value((await client.get(f"{demo.address}/metrics")).text, 'banana_requests_total{route="/health"')
    for _ in range(20):
        async with httpx.AsyncClient() as client:  # a connection each, so that both workers are met
            await client.get(f"{demo.address}/health")
    sums = []
    for _ in range(6):
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"{demo.address}/metrics")).text
        sums.append(value(text, 'banana_requests_total{route="/health"'))

    assert sums == [before + 20] * 6
