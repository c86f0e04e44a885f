"""HTTP over a real socket: a retiring worker answers every request that reached it. Restarts under load: test_restarts."""

import asyncio
import json
import socket
from pathlib import Path

import httpx
import pytest

from banana.app import create_app
from banana.server import protocol
from banana.server.protocol import Connections, ServerProtocol
from standin import faults
from standin.server import StandIn
from tests.conftest import served, settings_for
from tests.patience import soon

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BODY = b'{"prompt":"a banana"}'


async def connected(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))


async def exchanged(address: str, *segments: bytes) -> bytes:
    """Send each segment by itself; return all that comes until the connection ends."""
    reader, writer = await connected(address)
    for segment in segments:
        writer.write(segment)
        await writer.drain()
        await asyncio.sleep(0.05)
    received = await asyncio.wait_for(reader.read(), 10)
    writer.transport.abort()
    return received


async def asked_for_health(address: str) -> None:
    """Ask for /health on a new connection: it answers."""
    reader, writer = await connected(address)
    writer.write(HEALTH)
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 200")
    writer.transport.abort()


async def is_healthy(address: str, seconds: float = 0.3) -> bool:
    """Whether /health answers on a new connection, within so many seconds."""
    asking = asyncio.create_task(asked_for_health(address))
    await soon(asking.done, seconds)
    await asking
    return True


async def test_what_is_not_http_is_told_in_our_shape(stand_in: StandIn) -> None:
    """400 with the shape of every error, and the connection is closed."""
    async with served(create_app(settings_for(stand_in))) as address:
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
    monkeypatch.setattr(ServerProtocol, "draining", False)
    address_told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()

    async def serve() -> None:
        async with served(create_app(settings_for(stand_in))) as address:
            address_told.set_result(address)
            await stop.wait()

    server = asyncio.create_task(serve())
    reader, writer = await asyncio.open_connection("127.0.0.1", int((await address_told).rpartition(":")[2]))
    writer.write(HEALTH)
    first = await reader.readuntil(b"}")
    stop.set()
    while not ServerProtocol.draining:
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
        served(create_app(settings_for(stand_in))) as address,
        httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as client,
    ):
        statuses = [(await client.get(f"{address}/health")).status_code for _ in range(5)]

    assert statuses == [200] * 5


LONG = b"a" * (70 << 10)
GET = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "head",
    [GET + b"X-Long: " + LONG + b"\r\n\r\n", GET + b"X-Long: " + LONG, b"GET /" + LONG, GET + b"A: b\r\n" * 15_000,
     GET + b"X-Long: " + LONG * 100],
    ids=["whole", "one header", "request line", "many headers", "seven megabytes"],
)  # fmt: skip
@pytest.mark.parametrize("segments", [1, 7])
async def test_a_head_over_64_kb_is_431(stand_in: StandIn, head: bytes, segments: int) -> None:
    """Counted as it arrives, whole or not, and answered so that the caller can read it."""
    async with served(create_app(settings_for(stand_in))) as address:
        reader, writer = await connected(address)
        for number in range(segments):
            writer.write(head[number * len(head) // segments : (number + 1) * len(head) // segments])
            await asyncio.sleep(0.01)
        response = await asyncio.wait_for(reader.read(), 10)
        writer.transport.abort()

    start, _, body = response.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["error"]["code"] == "too_large"


async def test_a_head_of_almost_64_kb_is_served(stand_in: StandIn) -> None:
    """The limit is on the head alone: what comes behind it in the same segment does not count."""
    body = b"{" + b" " * (100 << 10) + b'"prompt":"x"}'
    head = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\nX: " % len(body)
    filler = b"a" * ((64 << 10) - len(head) - 4)
    async with served(create_app(settings_for(stand_in))) as address:
        response = await exchanged(address, head + filler + b"\r\n\r\n" + body)

    assert response.startswith(b"HTTP/1.1 200 ")


async def test_trailers_are_no_headers_and_have_an_end(stand_in: StandIn) -> None:
    """A token in a trailer is none, and a trailer without end is refused."""
    chunked = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    body = b"\r\n%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    async with served(create_app(settings_for(stand_in, access_tokens=("t",)))) as address:
        with_token = await exchanged(address, chunked + b"Connection: close\r\n" + body + b"X-API-Key: t\r\n\r\n")
        endless = await exchanged(address, chunked + b"X-API-Key: t\r\n" + body[:-3], b"0\r\nX: " + LONG)

    assert with_token.startswith(b"HTTP/1.1 401 ")
    assert b"HTTP/1.1 431 " in endless


@pytest.mark.parametrize(
    "sent", [b"", b"GET /health HT", GET + b"X: y", b"\r\n"], ids=["nothing", "line", "head", "blank"]
)
async def test_a_head_that_does_not_come_is_not_waited_for(stand_in: StandIn, sent: bytes) -> None:
    """After the seconds for a head the connection is closed: silent from the start, or stuck in the head."""
    async with served(create_app(settings_for(stand_in)), Connections(head_seconds=0.3)) as address:
        assert await exchanged(address, sent) == b""
        reader, writer = await connected(address)
        writer.write(HEALTH)
        await reader.readuntil(b"}")
        if sent:
            writer.write(sent)
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.transport.abort()


async def test_a_head_in_drips_is_not_waited_for(stand_in: StandIn) -> None:
    """A byte now and then does not make the time longer."""
    async with served(create_app(settings_for(stand_in)), Connections(head_seconds=0.3)) as address:
        reader, writer = await connected(address)
        for byte in b"\r\n\r\n" + HEALTH:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
            if reader.at_eof() or writer.is_closing():  # a byte after the close may be answered with a reset
                break
        else:
            pytest.fail("the connection was never closed")
        writer.transport.abort()


async def test_silent_connections_make_room(stand_in: StandIn) -> None:
    """Beyond the limit the one that has been silent longest goes, so that the newest is served at once."""
    async with served(create_app(settings_for(stand_in)), http=protocol.Connections(max_requests=5)) as address:
        silent = [await connected(address) for _ in range(200)]
        assert await is_healthy(address)
        closed = [reader.at_eof() or reader.exception() is not None for reader, _ in silent]
        for _, writer in silent:
            writer.transport.abort()

    assert closed == [True] * sum(closed) + [False] * (200 - sum(closed))
    assert 200 - sum(closed) <= 5 + 32


async def test_requests_beyond_the_limit_are_refused_but_health_is_not(stand_in: StandIn) -> None:
    """With as many requests as may be served at once, another is 503, and /health is 200."""
    stand_in.plan.extend(["hang"] * 5)
    app = create_app(settings_for(stand_in, max_requests=5))
    async with served(app, http=protocol.Connections(max_requests=5)) as address, httpx.AsyncClient() as client:
        waiting = [asyncio.create_task(client.post(f"{address}/generate", json={"prompt": "x"})) for _ in range(5)]
        while len(stand_in.calls) < 5:
            await asyncio.sleep(0.01)
        refused = await client.post(f"{address}/generate", json={"prompt": "x"})
        assert await is_healthy(address)
        for task in waiting:
            task.cancel()

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"] == "5"


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "foo", "h2c, websocket"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_an_upgrade_is_ignored(stand_in: StandIn, upgrade: str, framing: str) -> None:
    """The body is the body, also in a second segment; what comes behind it is the next request."""
    body = b'{"prompt":"GET /ready HTTP/1.1"}'
    length = b"Content-Length: %d\r\n" % len(body) if framing == "length" else b"Transfer-Encoding: chunked\r\n"
    head = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\n%s\r\n"
    if framing == "chunks":
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    async with served(create_app(settings_for(stand_in))) as address:
        last = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        in_two = await exchanged(address, head % (upgrade.encode(), length), body, last)
        in_one = await exchanged(address, head % (upgrade.encode(), length) + body + last)

    for received in (in_two, in_one):
        assert received.count(b"HTTP/1.1 200 OK\r\n") == received.count(b"HTTP/1.1 ") == 2
        assert received.endswith(b'{"status":"healthy","version":"1.0.0"}')
    assert len(stand_in.calls) == 2


async def test_connect_is_refused(stand_in: StandIn) -> None:
    """The service is no proxy."""
    async with served(create_app(settings_for(stand_in))) as address:
        received = await exchanged(address, b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")

    assert received.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_http_1_0_gets_no_chunks(stand_in: StandIn, accept: str) -> None:
    """What has no length ends with the connection."""
    head = b"POST /generate HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: %s\r\nContent-Length: %d\r\n\r\n"
    async with served(create_app(settings_for(stand_in))) as address:
        received = await exchanged(address, head % (accept.encode(), len(BODY)) + BODY)

    start, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in start.lower()
    assert body.startswith(b"event: image\ndata: {" if "event" in accept else b'{"images":["')
    assert body.endswith(b'"cost_usd":0.137116}\n\n' if "event" in accept else b'"metadata":null}')


@pytest.mark.parametrize(
    "behind", [b"nonsense\r\n\r\n", GET + b"X: " + LONG, b"\0" * 100], ids=["nonsense", "long head", "zeros"]
)
async def test_what_comes_behind_a_whole_request_does_not_cost_its_picture(stand_in: StandIn, behind: bytes) -> None:
    """The request is answered first; what is refused comes after it, or not at all."""
    head = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    async with served(create_app(settings_for(stand_in))) as address:
        received = await exchanged(address, head + BODY + behind, behind)

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.count(b"HTTP/1.1 200 ") == 1
    assert b'"images":["' in received


CHUNKED = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("route", [b"/generate", b"/v1/images/edits", b"/v1beta/models/m:generateContent", b"/nowhere"])
@pytest.mark.parametrize(
    ("broken", "status"),
    [
        (b"no chunk\r\n", b"400"),
        (b"5\r\nhelloXX", b"400"),
        (b"FFFFFFFFFFFFFFFFFF\r\n", b"400"),
        (b"1;" + 3 * LONG, b"431"),
    ],
    ids=["no chunk", "no end", "overflow", "long extension"],
)
@pytest.mark.parametrize("segments", ["one", "first", "three"])
async def test_a_body_that_breaks_is_refused_and_is_no_defect(
    stand_in: StandIn, route: bytes, broken: bytes, status: bytes, segments: str
) -> None:
    """Chunks that are none, however they are sent: nothing is asked of Google, and no traceback."""
    head, good = CHUNKED.replace(b"/generate", route), b"5\r\nhello\r\n"
    sent = {"one": [head + good + broken], "first": [head + broken], "three": [head, good, broken]}[segments]
    async with served(create_app(settings_for(stand_in))) as address:
        received = await asyncio.wait_for(exchanged(address, *sent), 20)

    if route != b"/nowhere":  # that one is refused before its body
        assert received.startswith(b"HTTP/1.1 " + status)
    assert received.count(b"HTTP/1.1 ") == 1
    assert not stand_in.calls
    assert "internal_error" not in Path("logs/app.log").read_text(encoding="utf-8")


POST = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


@pytest.mark.parametrize(
    "behind", [CHUNKED + b"ZZZ\r\n", CHUNKED + b"1;" + LONG], ids=["broken chunk", "long extension"]
)
async def test_a_broken_request_behind_one_that_is_answered_waits(stand_in: StandIn, behind: bytes) -> None:
    """The picture goes to the request that asked for it; the broken one ends the connection."""
    stand_in.latency_seconds = 0.4
    async with served(create_app(settings_for(stand_in))) as address:
        received = await exchanged(address, POST, behind)

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"images":["' in received
    assert received.count(b"HTTP/1.1 ") == 1
    assert "internal_error" not in Path("logs/app.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("behind", [HEALTH, POST])
async def test_a_caller_who_leaves_with_a_request_waiting_has_left(stand_in: StandIn, behind: bytes) -> None:
    """The call is cancelled at once, and what waited behind it is not begun."""
    stand_in.plan.append("hang")
    async with served(create_app(settings_for(stand_in))) as address:
        _, writer = await connected(address)
        writer.write(POST)
        while not stand_in.calls:
            await asyncio.sleep(0.01)
        writer.write(behind)
        await asyncio.sleep(0.1)
        writer.close()
        await soon(lambda: stand_in.calls[0].aborted, 5)

    assert len(stand_in.calls) == 1


async def test_refused_callers_who_go_on_sending_make_room(stand_in: StandIn) -> None:
    """Sixty unfinished uploads that were refused: /health is answered on a new connection, every time."""
    async with served(create_app(settings_for(stand_in)), http=protocol.Connections(max_requests=5)) as address:
        refused = [await connected(address) for _ in range(60)]
        for _, writer in refused:
            writer.write(b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nxx")
        await asyncio.sleep(0.2)
        for _ in range(10):
            await asked_for_health(address)
        for _, writer in refused:
            writer.transport.abort()


def read_to_the_end(connection: socket.socket) -> bytes:
    """All that comes, until the end of the JSON."""
    connection.settimeout(10)
    received = b""
    while not received.endswith(b'"metadata":null}') and (chunk := connection.recv(65536)):
        received += chunk
    return received


async def test_a_picture_in_delivery_is_not_reset_for_idle_connections(stand_in: StandIn) -> None:
    """A caller who reads slowly gets it all, whoever else connects meanwhile."""
    stand_in.plan.append(
        faults.says(
            {
                "candidates": [
                    {
                        "content": {
                            "parts": [
                                {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgoA" + "A" * (1 << 20)}}
                            ]
                        }
                    }
                ]
            }
        )
    )
    async with served(create_app(settings_for(stand_in)), http=protocol.Connections(max_requests=5)) as address:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.connect(("127.0.0.1", int(address.rpartition(":")[2])))
        slow.sendall(POST)
        while not stand_in.calls or not stand_in.calls[0].ended:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        silent = [await connected(address) for _ in range(60)]
        await asyncio.sleep(0.1)
        received = await asyncio.to_thread(read_to_the_end, slow)
        for _, writer in silent:
            writer.transport.abort()
        slow.close()

    assert received.endswith(b'"metadata":null}')
