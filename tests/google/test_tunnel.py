"""Proxies as they are: whatever one answers to CONNECT, nothing of a request leaves unencrypted, and each gets its own."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from banana import errors
from tests.google.network import Request, body_of, way_to
from tests.google.test_connection import piped
from tests.google.test_transport import OK, listening

pytestmark = pytest.mark.anyio
SECRET = b"the-api-key-and-the-prompt"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@asynccontextmanager
async def echoing(certificate: Path) -> AsyncIterator[int]:
    """A peer that speaks TLS and answers each request with its own body; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().rpartition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                writer.write(OK + b"Content-Length: %d\r\n\r\n" % length + body)

    server = await asyncio.start_server(peer, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


@asynccontextmanager
async def proxy(
    port: int, answer: Callable[[asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy that answers CONNECT in its own way and then connects; its address, and what it read in clear text."""
    read: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read.append(await reader.readuntil(b"\r\n\r\n"))
        await answer(writer)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)

        async def up() -> None:
            with suppress(OSError):
                while data := await reader.read(1 << 16):
                    read.append(data)
                    there_writer.write(data)
            there_writer.close()

        await asyncio.gather(up(), piped(there_reader, writer), return_exceptions=True)

    async with listening(serve) as url:
        yield url, read


def saying(*segments: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """A proxy's answer, in these segments."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for segment in segments:
            writer.write(segment)
            await writer.drain()
            await asyncio.sleep(0)

    return answer


@pytest.mark.parametrize(
    "segments",
    [
        [ESTABLISHED],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"],
        [b"HTTP/1.1 201 Created\r\n\r\n"],
        [b"HTTP/1.1 204 No Content\r\n\r\n"],
        [b"HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.0 200 Connection established\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + ESTABLISHED],
        [bytes([byte]) for byte in ESTABLISHED],
    ],
    ids=["plain", "length 0", "length 5", "chunked", "both", "201", "204", "299", "1.0", "close", "interim", "bytes"],
)
async def test_a_tunnel_is_a_tunnel_whatever_its_head_says(certificate: Path, segments: list[bytes]) -> None:
    """Of twenty requests each gets its own response; the proxy reads CONNECT and TLS, and nothing in clear text."""
    verify = ssl.create_default_context(cafile=certificate)
    async with echoing(certificate) as port, proxy(port, saying(*segments)) as (url, read):
        google = way_to(f"https://localhost:{port}", url, verify=verify)

        async def fetched(number: int) -> bytes:
            return await body_of(await google.send(*Request("POST", "", body=[SECRET, b"%d" % number])))

        for _ in range(2):
            bodies = await asyncio.gather(*map(fetched, range(10)))
            assert bodies == [SECRET + b"%d" % number for number in range(10)]
        await google.aclose()

    assert SECRET not in b"".join(read)


@pytest.mark.parametrize(
    "segments",
    [
        [b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nauth"],
        [b"HTTP/1.1 502 Bad Gateway\r\n\r\n"],
        [b"HTTP/1.1 302 Found\r\nLocation: http://login.test/\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        [ESTABLISHED, b"hello"],
        [b"HTTP/1.1 200 OK\r\nX: ", b"x" * 70_000],
        [b"SSH-2.0-OpenSSH\r\n\r\n"],
        [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"],
        [b"HTTP/1.1 999 Denied\r\n\r\n"],
    ],
    ids=["407", "502", "302", "body", "speaks first", "endless head", "no HTTP", "101", "999"],
)
async def test_what_is_no_tunnel_is_sent_nothing(certificate: Path, segments: list[bytes]) -> None:
    """The request was not sent, and says so; the next one asks for a tunnel of its own."""
    verify = ssl.create_default_context(cafile=certificate)
    async with echoing(certificate) as port, proxy(port, saying(*segments)) as (url, read):
        google = way_to(f"https://localhost:{port}", url, verify=verify)
        for _ in range(2):
            with pytest.raises(errors.NotConnected) as raised:
                await asyncio.wait_for(google.send(*Request("POST", "", body=[SECRET])), 20)
            assert not raised.value.in_doubt
        await google.aclose()

    assert SECRET not in b"".join(read)
    assert sum(b"CONNECT" in data for data in read) == 2


async def test_a_proxy_that_goes_away_was_sent_nothing(certificate: Path) -> None:
    """Before its answer, and in the middle of it."""
    for part in (b"", b"HTTP/1.1 200 Conn"):

        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, part: bytes = part) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(part)

        async with listening(hang_up) as url:
            google = way_to("https://localhost:1", url)
            with pytest.raises(errors.NotConnected, match="it closed the connection"):
                await google.send(*Request("POST", "", body=[SECRET]))
            await google.aclose()
