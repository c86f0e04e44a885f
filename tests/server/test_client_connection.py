"""A caller's connection over a real socket: how it ends, for callers who never read, never end, or only stop sending."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from banana.app import create_app
from banana.server.client_connection import Linger
from banana.server.protocol import Connections
from standin import faults
from standin.server import StandIn
from tests.conftest import served, settings_for
from tests.patience import eventually, logged, soon

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
HOST = "Host: 127.0.0.1\r\n"
CHUNKED = f"POST /generate HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n".encode()


def generate(body: dict[str, object], more: str = "", version: str = "1.1") -> bytes:
    content = json.dumps({"prompt": "a banana"} | body).encode()
    return f"POST /generate HTTP/{version}\r\n{HOST}{more}Content-Length: {len(content)}\r\n\r\n".encode() + content


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def large(size_bytes: int) -> faults.Fault:
    """Google's answer with a picture of so many characters of base64."""
    picture = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgoA" + "A" * size_bytes}}
    return faults.says({"candidates": [{"content": {"parts": [picture]}, "finishReason": "STOP"}]})


def state_of(tcp_socket: socket.socket) -> int:
    """The kernel's state of a connection; 7 is closed (TCP_CLOSE)."""
    return tcp_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


@pytest.mark.parametrize("behind", [b"", generate({})], ids=["nothing", "another request"])
@pytest.mark.parametrize("head", ["", "Accept: text/event-stream\r\n"], ids=["whole", "events"])
async def test_a_client_that_stops_sending_has_left(stand_in: StandIn, head: str, behind: bytes) -> None:
    """The end of its stream is a disconnect: the call is cancelled at once, and nothing is sent to find out."""
    stand_in.plan.append("hang")
    async with served(create_app(settings_for(stand_in))) as address, connected(address) as (reader, writer):
        writer.write(generate({}, head) + behind)
        while not stand_in.calls:
            await asyncio.sleep(0.01)
        writer.write_eof()
        received = await asyncio.wait_for(reader.read(), 10)
        await soon(lambda: stand_in.calls[0].aborted, 5)

    assert received == b""
    assert len(stand_in.calls) == 1


async def test_a_client_that_stops_sending_while_it_is_answered_gets_its_response(stand_in: StandIn) -> None:
    """A response whose length was sent is whole, and paid for."""
    stand_in.plan.append(large(12 << 20))
    async with served(create_app(settings_for(stand_in))) as address, connected(address) as (reader, writer):
        writer.write(generate({}))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.write_eof()
        body = await asyncio.wait_for(reader.read(), 10)

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body.endswith(b'"metadata":null}')


async def test_a_client_that_stops_sending_and_never_reads_is_let_go(stand_in: StandIn) -> None:
    """What waits to be sent to it is watched as any other response."""
    stand_in.plan.append(large(12 << 20))
    async with served(create_app(settings_for(stand_in, idle_seconds=1)), http=Connections(idle_seconds=1)) as address:
        client = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(generate({}))
        while not stand_in.calls or not stand_in.calls[0].ended:
            await asyncio.sleep(0.01)
        client.shutdown(socket.SHUT_WR)
        await eventually(lambda: state_of(client) == 7, 20)
        client.close()


async def test_half_a_request_that_ends_is_a_caller_who_left(stand_in: StandIn) -> None:
    """The connection ends in the middle of a body: there is nothing to answer, and nothing is asked of Google."""
    async with served(create_app(settings_for(stand_in))) as address, connected(address) as (reader, writer):
        writer.write(generate({})[:-5])
        writer.write_eof()
        response = await asyncio.wait_for(reader.read(), 10)

    assert (response, stand_in.calls) == (b"", [])


async def test_an_early_error_reaches_a_caller_who_goes_on_sending(stand_in: StandIn) -> None:
    """It says that the connection ends, and what is sent after it is passed over."""
    settings = settings_for(stand_in, max_request_bytes=2000)
    async with served(create_app(settings)) as address, connected(address) as (reader, writer):
        writer.write(CHUNKED + b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n0\r\n\r\n" + generate({}))
        writer.write_eof()
        rest = await asyncio.wait_for(reader.read(), 10)

    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head.lower()
    assert b"HTTP/1.1" not in rest  # what came afterwards is no request
    assert not stand_in.calls


async def write_for_ever(writer: asyncio.StreamWriter, pause_seconds: float) -> None:
    for _ in range(10_000):
        writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(pause_seconds)


@pytest.mark.parametrize("bound", ["bytes", "seconds"])
async def test_a_body_without_end_ends(stand_in: StandIn, bound: str) -> None:
    """After an early error, a caller who never stops sending is cut: by some megabytes, and by some seconds."""
    linger = Linger(max_bytes=1) if bound == "bytes" else Linger(seconds=0.2)
    app = create_app(settings_for(stand_in, access_tokens=("t",)))
    async with served(app, Connections(linger=linger)) as address, connected(address) as (reader, writer):
        writer.write(CHUNKED)
        status = await asyncio.wait_for(reader.readline(), 10)
        with pytest.raises(ConnectionError):
            await write_for_ever(writer, 0 if bound == "bytes" else 0.01)

    assert status.startswith(b"HTTP/1.1 401 ")


NATIVE = b"/v1beta/models/gemini-3-pro-image:generateContent HTTP/1.1"
NATIVE_BODY = b'{"contents":[{"parts":[{"text":"x"}]}]}'
NATIVE_REQUEST = b"POST %s\r\n%sContent-Length: %d\r\n\r\n%s" % (NATIVE, HOST.encode(), len(NATIVE_BODY), NATIVE_BODY)


@pytest.mark.parametrize(
    "request_bytes",
    [generate({}), generate({"number_of_images": 2}), generate({}, "Accept: text/event-stream\r\n"), NATIVE_REQUEST,
     NATIVE_REQUEST.replace(b":generate", b":streamGenerate")],
    ids=["one", "two", "events", "native", "native-stream"],
)  # fmt: skip
async def test_a_caller_who_never_reads_is_aborted(stand_in: StandIn, request_bytes: bytes) -> None:
    """After IDLE_SECONDS without one byte the response is given up, and nothing of it is held any more."""
    stand_in.plan.extend([large(20 << 20)] * 2)
    app = create_app(settings_for(stand_in, request_timeout_seconds=20))
    async with served(app, http=Connections(idle_seconds=0.5)) as address:
        caller = socket.socket()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(("127.0.0.1", int(address.rpartition(":")[2])))
        caller.sendall(request_bytes)
        await eventually(lambda: state_of(caller) == 7)
        caller.close()
        lines = await logged(lambda line: line["event"] == "request")

    assert [line["status"] for line in lines] == [499]
    assert lines[0]["duration_ms"] >= 500


async def test_a_caller_who_reads_slowly_gets_everything(stand_in: StandIn) -> None:
    """Some bytes now and then are progress: nothing is aborted."""
    stand_in.plan.append(large(8 << 20))
    app = create_app(settings_for(stand_in))
    async with served(app, http=Connections(idle_seconds=1)) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]), limit=1 << 16)
        writer.write(generate({}, "Connection: close\r\n"))
        received = 0
        while chunk := await reader.read(1 << 18):
            received += len(chunk)
            await asyncio.sleep(0.05)
        writer.close()

    assert received > 8 << 20
