"""The network: what goes wrong on it is translated once, by whether the request can have reached Google."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from banana import errors
from banana.google.transport import keepalive_socket
from tests.google.network import GET, Request, body_of, fetched, way_to
from tests.services import free_port

pytestmark = pytest.mark.anyio
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[str]:
    """A peer on a real socket; its address."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await peer(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's streams would report it
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def answering(response: bytes) -> Peer:
    """A peer that reads a request's head and answers with these bytes."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()

    return peer


async def test_a_response_comes_as_it_was_sent() -> None:
    """Status, headers and body are the peer's."""
    async with listening(answering(OK + b"Content-Length: 5\r\n\r\nhello")) as url:
        response, content = await fetched(url)

    assert (response.status_code, response.headers["content-type"], content) == (200, "text/plain", b"hello")


PACKED = gzip.compress(b"hello" * 100, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", PACKED),
        ("gzip, gzip", gzip.compress(PACKED, mtime=0)),
        ("gzip", PACKED + b"trailing"),
        ("br", b"hello" * 100),
        ("odd", b"hello" * 100),
    ],
)
async def test_what_was_packed_on_the_way_is_given_unpacked(encoding: str, body: bytes) -> None:
    """A peer that compresses although it was not asked to, or only says so, is understood."""
    head = OK + f"Content-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with listening(answering(head + body)) as url:
        _, content = await fetched(url)

    assert content == b"hello" * 100


async def test_what_cannot_be_unpacked_is_no_response_of_googles() -> None:
    """The error is one of ours."""
    async with listening(answering(OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello")) as url:
        with pytest.raises(errors.InvalidResponse):
            await fetched(url)


async def test_a_stale_connection_costs_a_list_of_models_nothing() -> None:
    """A GET without a body is sent again when the peer closed the kept connection in the meantime."""
    connections = 0

    async def once_a_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(OK + b"Content-Length: 2\r\n\r\nhi")(reader, writer)
        await reader.read(4096)  # the second request is taken, and the connection closed without a word

    async with listening(once_a_connection) as url:
        google = way_to(url)
        statuses = []
        for _ in range(2):
            response = await google.send(*GET)
            await body_of(response)
            statuses.append(response.status_code)
        await google.aclose()

    assert (statuses, connections) == ([200, 200], 2)


@pytest.mark.parametrize("body", [[b"{}"], [b"x" * 100_000] * 2], ids=["small", "large"])
async def test_a_call_is_never_sent_twice_on_a_stale_connection(body: list[bytes]) -> None:
    """A POST may have been billed, however the connection ended: the transport itself repeats none."""
    requests = 0

    async def closes_at_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        for response in (OK + b"Content-Length: 2\r\n\r\nhi", b""):
            if not await reader.readuntil(b"\r\n\r\n"):
                return
            await reader.readexactly(sum(map(len, body)))
            requests += 1
            writer.write(response)

    async with listening(closes_at_the_second) as url:
        google = way_to(url)
        await body_of(await google.send(*Request("POST", "", body=body)))
        with pytest.raises(errors.ConnectionLost):
            await google.send(*Request("POST", "", body=body))
        await google.aclose()

    assert requests == 2


async def test_a_proxy_that_refuses_was_sent_nothing() -> None:
    """A refused CONNECT is no answer of Google's: nothing was billed."""
    async with listening(answering(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")) as url:
        with pytest.raises(
            errors.NotConnected, match=r"\(UPSTREAM_PROXY\) refused the connection \(407\); nothing was sent"
        ):
            await fetched("", way_to("https://google.invalid/v1beta", url))


async def test_redirects_are_not_followed_and_cookies_not_kept() -> None:
    """A redirect is a response like any other; a cookie is not sent back."""
    heads = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    async with listening(peer) as url:
        google = way_to(url)
        statuses = []
        for _ in range(2):
            response = await google.send(*GET)
            await body_of(response)
            statuses.append(response.status_code)
        await google.aclose()

    assert statuses == [302, 302]
    assert b"cookie" not in heads[1].lower()


async def test_nobody_listens() -> None:
    """Nothing was sent: the call may be made again."""
    with pytest.raises(errors.NotConnected, match="nothing was sent"):
        await fetched(f"http://127.0.0.1:{free_port()}")


async def test_a_name_that_is_not_known() -> None:
    """Nothing was sent either."""
    with pytest.raises(errors.NotConnected):
        await fetched("http://nowhere.invalid")


async def test_a_peer_that_closes_without_a_word() -> None:
    """The request was sent: it may have been billed."""
    async with listening(answering(b"")) as url:
        with pytest.raises(errors.UpstreamError, match="after the request was sent") as caught:
            await fetched(url)

    assert not isinstance(caught.value, errors.NotConnected | errors.InvalidResponse)


@pytest.mark.parametrize(
    "response",
    [OK + b"Content-Length: 50\r\n\r\nhalf", OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf"],
    ids=["length", "chunked"],
)
async def test_a_response_that_is_cut_short(response: bytes) -> None:
    """What came is not passed off as whole."""
    async with listening(answering(response)) as url:
        with pytest.raises(errors.InvalidResponse, match="cut short"):
            await fetched(url)


async def test_what_is_not_http() -> None:
    """Another protocol is said to be one."""
    async with listening(answering(b"SSH-2.0-OpenSSH\r\n\r\n")) as url:
        with pytest.raises(errors.InvalidResponse, match="not HTTP"):
            await fetched(url)


async def test_a_body_that_is_closed_early_closes_its_connection() -> None:
    """Who does not want the rest does not wait for it, nor leaves it to the next request."""
    gone = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(OK + b"Content-Length: 50\r\n\r\nhalf")(reader, writer)
        await reader.read()
        gone.set()

    async with listening(peer) as url:
        google = way_to(url)
        response = await google.send(*GET)
        await response.aclose()
        await asyncio.wait_for(gone.wait(), 5)
        await google.aclose()


def test_the_socket_notices_a_peer_that_is_gone() -> None:
    """TCP keepalive is on while Google thinks for minutes."""
    with keepalive_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not made.getblocking()


async def test_a_proxy_is_used_when_it_is_named() -> None:
    """The request goes to the proxy, with the whole address in its first line."""
    lines = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.extend((await reader.readuntil(b"\r\n\r\n")).splitlines())
        writer.write(OK + b"Content-Length: 2\r\n\r\nhi")

    async with listening(proxy) as url:
        _, content = await fetched(
            "",
            way_to("http://google.invalid/v1beta", url.replace("//", "//me:s%20t@")),
            Request("POST", "models"),
        )

    assert (content, lines[0]) == (b"hi", b"POST http://google.invalid/v1beta/models HTTP/1.1")
    assert b"Host: google.invalid" in lines
    assert b"Proxy-Authorization: Basic bWU6cyB0" in lines


async def test_an_unused_connection_is_closed_before_the_peer_does() -> None:
    """After `idle_seconds` the next request goes over a new connection."""
    connections: list[str] = []
    closed = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append("new")
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK + b"Content-Length: 2\r\n\r\nok")
        closed.set()

    async with listening(peer) as url:
        google = way_to(url, idle_seconds=1)
        for _ in range(2):
            assert await body_of(await google.send(*GET)) == b"ok"
        await asyncio.wait_for(closed.wait(), 30)
        assert await body_of(await google.send(*GET)) == b"ok"
        await google.aclose()

    assert connections == ["new", "new"]
