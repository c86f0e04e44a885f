"""Health, readiness and metrics: never rate limited, never a call to Google."""

import httpx
import pytest

from banana.app import create_app
from banana.server.protocol import ServerProtocol
from standin.server import StandIn
from tests.conftest import client_of, settings_for

pytestmark = pytest.mark.anyio


async def test_health_is_exactly_that(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """GET /health answers the README's bytes and calls nobody; HEAD does for probes that use it."""
    response = await client.get("/health")

    assert (response.status_code, response.text) == (200, '{"status":"healthy","version":"1.0.0"}')
    assert (await client.head("/health")).status_code == 200
    assert not stand_in.calls


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
async def test_they_are_not_rate_limited(stand_in: StandIn, path: str) -> None:
    """Probes come as often as they like, and say nothing of the rate limit."""
    async with client_of(create_app(settings_for(stand_in, rate_limit_per_minute=1))) as client:
        responses = [await client.get(path) for _ in range(5)]

    assert [response.status_code for response in responses] == [200] * 5
    assert "x-ratelimit-limit" not in responses[0].headers


async def test_readiness_names_a_refused_key_and_a_retiring_worker(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with the reason when no key is usable or the worker retires; 200 else."""
    stand_in.plan.append("401")
    async with client_of(create_app(settings_for(stand_in))) as client:
        good = await client.get("/ready")
        await client.post("/generate", json={"prompt": "x"})
        no_key = await client.get("/ready")
        monkeypatch.setattr(ServerProtocol, "draining", True)
        draining = await client.get("/ready")

    assert (good.status_code, good.json()["status"]) == (200, "ready")
    assert (no_key.status_code, no_key.json()["reasons"]) == (503, ["Google refused every API key"])
    assert draining.json()["reasons"] == ["draining", "Google refused every API key"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"Authorization": "Bearer wrong"}, 401), ({"x-api-key": "m"}, 401), ({"Authorization": "Bearer m"}, 200)],
)  # fmt: skip
async def test_metrics_may_have_a_token_of_their_own(stand_in: StandIn, headers: dict[str, str], status: int) -> None:
    """METRICS_TOKEN opens /metrics and nothing else; the callers' tokens do not."""
    app = create_app(settings_for(stand_in, metrics_token="m", access_tokens=("wrong",)))
    async with client_of(app) as client:
        assert (await client.get("/metrics", headers=headers)).status_code == status
        assert (await client.get("/health")).status_code == 200
        assert (await client.post("/generate", json={}, headers={"x-api-key": "m"})).status_code == 401
