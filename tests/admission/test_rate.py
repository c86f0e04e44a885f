"""One rate limit, whatever becomes of its store."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from banana.app import create_app
from standin.server import StandIn
from tests.conftest import client_of, error_of, settings_for
from tests.redis_server import RedisServer
from tests.services import free_port, needs

pytestmark = pytest.mark.anyio


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.go_on()
    server.kill()


async def statuses(client: httpx.AsyncClient, count: int) -> list[int]:
    return [(await client.post("/generate", json={})).status_code for _ in range(count)]


def events(name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in Path("logs/app.log").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["event"] == name]


@needs("redis-server")
async def test_two_services_on_one_redis_share_the_rate_limit(stand_in: StandIn, redis: RedisServer) -> None:
    """Sixty of seventy requests over two services pass, as over one."""
    async with (
        client_of(create_app(settings_for(stand_in, store_url=redis.url))) as one,
        client_of(create_app(settings_for(stand_in, store_url=redis.url))) as other,
    ):
        answers = await statuses(one, 35) + await statuses(other, 35)

    assert answers.count(422) == 60
    assert answers[-10:] == [429] * 10


@needs("redis-server")
async def test_a_redis_that_hangs_costs_nobody_half_a_second(stand_in: StandIn, redis: RedisServer) -> None:
    """Stopped and continued: requests go on under this worker's share, readiness tells, and the store is taken up again."""
    app = create_app(settings_for(stand_in, store_url=redis.url, rate_limit_per_minute=40, workers=2))
    slowest = 0.0
    async with client_of(app) as client:
        await statuses(client, 5)
        redis.pause()
        answers = []
        for _ in range(25):
            started = time.monotonic()
            answers.append((await client.post("/generate", json={})).status_code)
            slowest = max(slowest, time.monotonic() - started)
        degraded = (await client.get("/ready")).json()
        redis.go_on()
        deadline = time.monotonic() + 60
        while (await client.get("/ready")).json()["degraded"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
            await client.post("/generate", json={})

    assert answers == [422] * 20 + [429] * 5
    assert slowest < 0.3
    assert degraded == {"status": "ready", "reasons": [], "degraded": ["store"]}
    assert len(events("store_failed")) == 1
    assert len(events("store_recovered")) == 1


async def test_a_locked_sqlite_file_costs_nobody_half_a_second(stand_in: StandIn) -> None:
    """A file that somebody holds: requests go on under this worker's share, and none is a 500."""
    async with client_of(create_app(settings_for(stand_in, rate_limit_per_minute=10, workers=2))) as client:
        await statuses(client, 1)
        holder = sqlite3.connect(".state/banana.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        first = await statuses(client, 1)
        taken = time.monotonic() - started
        rest = await statuses(client, 5)
        holder.close()

    assert first + rest == [422] * 5 + [429]
    assert taken < 0.45


async def test_a_redis_that_is_not_there_is_no_reason_not_to_start(stand_in: StandIn) -> None:
    """A store that is down as the service starts: requests are served under this worker's share."""
    url = f"redis://127.0.0.1:{free_port()}"
    async with client_of(create_app(settings_for(stand_in, store_url=url, rate_limit_per_minute=3))) as client:
        response = await client.post("/generate", json={})

    assert response.status_code == 422
    assert response.headers["x-ratelimit-limit"] == "3"


async def test_retry_after_is_at_least_one_second(stand_in: StandIn) -> None:
    """Whoever waits as long as Retry-After says is let in."""
    async with client_of(create_app(settings_for(stand_in, rate_limit_per_minute=1))) as client:
        await statuses(client, 1)
        refused = await client.post("/generate", json={})

    assert 59 <= int(refused.headers["retry-after"]) <= 60
    assert error_of(refused)["retry_after"] == int(refused.headers["retry-after"])
    assert refused.headers["x-ratelimit-remaining"] == "0"


async def test_slowapis_own_switch_in_the_environment_does_nothing(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RATELIMIT_ENABLED=false is no setting of this service."""
    monkeypatch.setenv("RATELIMIT_ENABLED", "false")
    async with client_of(create_app(settings_for(stand_in, rate_limit_per_minute=1))) as client:
        assert await statuses(client, 2) == [422, 429]


async def test_each_caller_reads_its_own_decision(stand_in: StandIn) -> None:
    """Two callers at the same time: each response has what is left of its own limit."""
    app = create_app(settings_for(stand_in, access_tokens=("a:one", "b:two"), rate_limit_per_minute=50))
    async with client_of(app) as client:

        async def ask(token: str) -> int:
            response = await client.post("/generate", json={}, headers={"x-api-key": token})
            return int(response.headers["x-ratelimit-remaining"])

        left = await asyncio.gather(*(ask(token) for _ in range(20) for token in ("one", "two", "two")))

    assert sorted(left[0::3]) == list(range(30, 50))
    assert sorted(left[1::3] + left[2::3]) == list(range(10, 50))
