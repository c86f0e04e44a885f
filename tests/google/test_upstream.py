"""The client for the Gemini API: every call is a request of httpx's, over our transport or over its own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from banana import errors
from banana.app import create_app
from banana.google.transport import BlockTransport
from banana.google.upstream import Upstream, open_client, read
from standin.server import StandIn
from tests.conftest import client_of, settings_for
from tests.google.network import GET, body_of, way_to
from tests.google.test_transport import OK, answering, listening

pytestmark = pytest.mark.anyio
BODY = {"contents": [{"role": "user", "parts": [{"text": "a banana"}]}]}
GEMINI = "/v1beta/models/gemini-3-pro-image"


@pytest.mark.parametrize("transport", [httpx.AsyncHTTPTransport, BlockTransport])
async def test_httpxs_own_transport_can_take_the_place_of_ours(stand_in: StandIn, transport: Any) -> None:
    """One argument; images, streams, lists and errors are the same."""
    app = create_app(settings_for(stand_in, retries=0), transport())
    async with client_of(app) as client:
        images = await client.post("/generate", json={"prompt": "a banana", "number_of_images": 2})
        stream = await client.post(f"{GEMINI}:streamGenerateContent?alt=sse", json=BODY)
        models = await client.get("/v1/models")
        stand_in.plan.extend(["503", "reset", "truncated"])
        failures = [await client.post("/generate", json={"prompt": "a banana"}) for _ in range(3)]

    assert (images.status_code, len(images.json()["images"])) == (200, 2)
    assert (stream.status_code, stream.text.startswith("data: ")) == (200, True)
    assert models.json()["data"]
    codes = [(failure.json()["error"]["code"], failure.json()["error"]["may_be_billed"]) for failure in failures]
    assert codes == [("overloaded", False), ("upstream_error", True), ("upstream_invalid", True)]


async def test_every_call_is_sent_by_httpxs_client(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images, native requests, streams and lists: `AsyncClient.send` sees each."""
    sent: list[str] = []
    send = httpx.AsyncClient.send

    async def seen(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        if str(request.url).startswith(stand_in.base_url):
            sent.append(request.method)
        return await send(self, request, **options)

    monkeypatch.setattr(httpx.AsyncClient, "send", seen)
    async with client_of(create_app(settings_for(stand_in))) as client:
        await client.post("/generate", json={"prompt": "a banana"})
        await client.post(f"{GEMINI}:generateContent", json=BODY)
        await client.post(f"{GEMINI}:streamGenerateContent", json=BODY)
        await client.post(f"{GEMINI}:countTokens", json=BODY)
        await client.get("/v1/models")

    assert sent == ["POST"] * 4 + ["GET"]
    assert len(stand_in.calls) == 3  # it keeps no count of tokens


@pytest.mark.parametrize("base", ["/v1beta", "/v1beta/", "/v1beta?x=y", "/v1beta/#z"])
async def test_paths_are_below_the_base_url(base: str) -> None:
    """However its end is written."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200)

    google = Upstream(open_client(httpx.Limits(), transport=httpx.MockTransport(answer)), f"http://google.test{base}")
    await google.send("GET", "models?pageSize=1")

    assert asked == ["http://google.test/v1beta/models?pageSize=1"]


async def test_nothing_is_sent_when_it_is_too_late() -> None:
    """What the caller raises in the last moment is raised, and the connection serves the next request."""
    requests = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            requests += 1
            writer.write(OK + b"Content-Length: 2\r\n\r\nok")

    def late() -> None:
        raise errors.DeadlineExceeded("late")

    async with listening(peer) as url:
        google = way_to(url)
        with pytest.raises(errors.DeadlineExceeded):
            await google.send("POST", "", (), [b"{}"], late)
        assert await body_of(await google.send(*GET)) == b"ok"
        await google.aclose()

    assert requests == 1


async def test_a_deadline_hands_on_what_has_arrived() -> None:
    """Also what does not fill a block: the image may be whole in it."""
    taken: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(OK + b"Content-Length: 9999999\r\n\r\n" + b"x" * 1000)(reader, writer)
        await reader.read()

    async with listening(peer) as url:
        google = way_to(url)
        response = await google.send(*GET)
        with pytest.raises(errors.DeadlineExceeded) as caught:
            await read(response, lambda chunk: taken.append(bytes(chunk)), asyncio.get_running_loop().time() + 0.2)
        await google.aclose()

    assert b"".join(taken) == b"x" * 1000
    assert caught.value.in_doubt


async def test_no_address_is_logged(stand_in: StandIn) -> None:
    """httpx logs the URL of each request, which may hold what a caller sent."""
    async with client_of(create_app(settings_for(stand_in, log_level="DEBUG"))) as client:
        await client.get("/v1beta/models?pageToken=secret")

    log = Path("logs/app.log").read_text(encoding="utf-8")
    assert "upstream_attempt" in log
    assert "secret" not in log


async def test_a_body_that_is_no_list_of_chunks_is_sent_as_well() -> None:
    """The transport takes any request of httpx's."""
    bodies: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        bodies.append(await reader.readexactly(200_000))
        writer.write(OK + b"Content-Length: 2\r\n\r\nok")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    async with listening(peer) as url, httpx.AsyncClient(transport=BlockTransport(), trust_env=False) as client:
        response = await client.post(url, content=chunks(), headers={"Content-Length": "200000"})

    assert (response.content, bodies) == (b"ok", [b"x" * 200_000])
