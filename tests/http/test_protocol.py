"""HTTP over a real socket: a retiring worker answers every request that reached it. Restarts under load: test_restarts."""

import asyncio

import httpx
import pytest

from banana.app import create_app
from banana.http.protocol import DrainingProtocol
from standin.server import StandIn
from tests.conftest import served, settings_for

pytestmark = pytest.mark.anyio
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_what_is_not_http_is_told_in_our_shape(stand_in: StandIn) -> None:
    """400 with the shape of every error, and the connection is closed."""
    async with served(create_app(settings_for(stand_in)), http=DrainingProtocol) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        writer.write(b"nonsense\r\n\r\n")
        response = await asyncio.wait_for(reader.read(), 5)
        writer.close()

    assert response.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b'{"error":{"code":"invalid_request"' in response


async def test_an_idle_connection_of_a_retiring_worker_is_still_answered(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that was already on its way when the worker began to retire gets its response, and no further one."""
    monkeypatch.setattr(DrainingProtocol, "draining", False)
    address_told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()

    async def serve() -> None:
        async with served(create_app(settings_for(stand_in)), http=DrainingProtocol) as address:
            address_told.set_result(address)
            await stop.wait()

    server = asyncio.create_task(serve())
    reader, writer = await asyncio.open_connection("127.0.0.1", int((await address_told).rpartition(":")[2]))
    writer.write(HEALTH)
    first = await reader.readuntil(b"}")
    stop.set()
    while not DrainingProtocol.draining:
        await asyncio.sleep(0.01)
    writer.write(HEALTH)
    second = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await server

    assert b"connection: close" not in first.lower()
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in second.lower()


async def test_a_worker_that_serves_keeps_its_connections(stand_in: StandIn) -> None:
    """Several requests go over one connection."""
    async with (
        served(create_app(settings_for(stand_in)), http=DrainingProtocol) as address,
        httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as client,
    ):
        statuses = [(await client.get(f"{address}/health")).status_code for _ in range(5)]

    assert statuses == [200] * 5
