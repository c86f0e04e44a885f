"""HTTP/1.1 as peers speak it, well and badly: what is whole is handed on, and what is not is never passed off as whole."""

import asyncio
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from banana import errors
from banana.google.connection import BLOCK_BYTES, MAX_HEAD_BYTES, MAX_UNREAD_BYTES, READ_BYTES, Connection
from banana.google.upstream import Body, read
from banana.payload.pieces import Chunk
from tests.google.network import GET, POST, Request, body_of, fetched, way_to
from tests.google.test_transport import OK, answering, listening
from tests.patience import eventually

pytestmark = pytest.mark.anyio
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX-Trailer: 1\r\n\r\n"


@pytest.mark.parametrize(
    "response",
    [
        HELLO,
        CHUNKED,
        OK + b"\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO,
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + CHUNKED,
        HELLO.replace(b"Content-Type", b"X-Empty:\r\ncontent-TYPE"),
    ],
    ids=["length", "chunked", "until close", "HTTP/1.0", "100", "103", "case"],
)
@pytest.mark.parametrize("is_slow", [False, True], ids=["at once", "byte by byte"])
async def test_every_form_of_a_body_is_read(response: bytes, is_slow: bool) -> None:
    """With a length, in chunks, until the end of the connection; behind interim responses; however TCP cuts it."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for start in range(0, len(response), 1 if is_slow else len(response)):
            writer.write(response[start : start + 1] if is_slow else response)
            await writer.drain()
            await asyncio.sleep(0)

    async with listening(peer) as url:
        found, content = await fetched(url)

    assert (found.status_code, found.headers["content-type"], content) == (200, "text/plain", b"hello")


@pytest.mark.parametrize(
    "response",
    [
        OK + b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
        OK + b"X: " + b"x" * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        OK + b"Content-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"<html>\r\n\r\n",
    ],
)
async def test_a_head_that_cannot_be_trusted_is_none(response: bytes) -> None:
    """Too long, without its end, contradicting itself: said at once, before the peer closes."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(response)(reader, writer)
        await reader.read()

    async with listening(peer) as url:
        with pytest.raises(errors.CutResponse, match="not HTTP"):
            await asyncio.wait_for(fetched(url), 10)


async def test_a_chunk_that_is_none_cuts_the_response() -> None:
    """What came before it is handed on, and not as the whole."""
    taken: list[Chunk] = []
    async with listening(answering(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\nzz\r\n")) as url:
        google = way_to(url)
        response = await google.send(*POST)
        with pytest.raises(errors.CutResponse):
            await read(response, taken.append)
        await google.aclose()

    assert taken == [b"hel"]


@pytest.mark.parametrize("length", [1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 7])
@pytest.mark.parametrize("step", [1000, 100_000, 10**9])
@pytest.mark.parametrize("in_blocks", [True, False])
async def test_a_body_is_read_whole_whatever_its_length(length: int, step: int, in_blocks: bool) -> None:
    """In blocks, or in the parts that came; the connection serves the next request."""
    content = bytes(number % 251 for number in range(length))
    response = OK + b"Content-Length: %d\r\n\r\n" % length + content

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            for start in range(0, len(response), step):
                writer.write(response[start : start + step])
                await writer.drain()

    async with listening(peer) as url:
        google = way_to(url)
        for _ in range(2):
            taken: list[Chunk] = []
            await read(await google.send(*GET, in_blocks=in_blocks), taken.append)
            assert b"".join(taken) == content
        await google.aclose()


@pytest.mark.parametrize("in_blocks", [True, False])
async def test_what_came_before_a_cut_is_handed_on(in_blocks: bool) -> None:
    """Also what does not fill a block: the image may be whole in it."""
    taken: list[Chunk] = []
    start = b"x" * (BLOCK_BYTES + 5)
    async with listening(answering(OK + b"Content-Length: 9999999\r\n\r\n" + start)) as url:
        google = way_to(url)
        response = await google.send(*POST)
        with pytest.raises(errors.CutResponse):
            await read(response, taken.append)
        await google.aclose()

    assert b"".join(taken) == start


async def test_nothing_is_handed_to_a_reader_who_has_gone() -> None:
    """What there is of a block when its reader is cancelled is nobody's: what it held has been given back."""
    taken: list[Chunk] = []
    gone = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 9999999\r\n\r\n" + b"x" * 100_000)
        await reader.read()
        gone.set()

    async with listening(peer) as url:
        google = way_to(url)
        response = await google.send(*GET)
        reading = asyncio.create_task(read(response, taken.append))
        await asyncio.sleep(0.05)  # some of it is there, or none: nothing of it may come
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await asyncio.wait_for(gone.wait(), 10)
        await asyncio.sleep(0)
        await google.aclose()

    assert taken == []


async def test_a_peer_that_speaks_first_is_closed_quietly() -> None:
    """A banner, a 408 on an idle connection: nobody asked for it."""
    connection = Connection(bytearray(READ_BYTES))
    transport = Silent()
    connection.connection_made(transport)
    connection.get_buffer(-1)[: len(HELLO)] = HELLO
    connection.buffer_updated(len(HELLO))

    assert transport.is_aborted


async def test_a_response_that_is_whole_leaves_its_connection_alone() -> None:
    """Read late, as it comes, while the next request is under way on it: that one goes on in blocks."""
    connection = Connection(bytearray(READ_BYTES))
    connection.on_free = lambda _: None
    connection.open(Silent())

    async def received(data: bytes) -> Any:
        sending = asyncio.create_task(connection.send(b"GET / HTTP/1.1\r\n\r\n", Body((), lambda: None)))
        await asyncio.sleep(0)
        connection.get_buffer(-1)[: len(data)] = data
        connection.buffer_updated(len(data))
        return await sending

    first = await received(HELLO)
    second = await received(OK + b"Content-Length: %d\r\n\r\nxyz" % (2 * BLOCK_BYTES))
    first_body = b"".join([chunk async for chunk in first])

    assert first_body == b"hello"
    assert len(connection.get_buffer(-1)) == BLOCK_BYTES - 3
    await second.aclose()


async def test_a_part_of_a_stream_does_not_wait_for_a_block() -> None:
    """It is handed on when it comes, also what came before anybody read."""
    arrived = asyncio.Event()
    ends = asyncio.Event()
    taken: list[Chunk] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 10\r\n\r\nhel")
        await arrived.wait()
        writer.write(b"lo")
        await ends.wait()
        writer.write(b"world")

    def take(chunk: Chunk) -> None:
        taken.append(chunk)
        arrived.set()
        if b"".join(taken) == b"hello":
            ends.set()

    async with listening(peer) as url:
        google = way_to(url)
        response = await google.send(*POST, in_blocks=False)
        await asyncio.wait_for(read(response, take), 10)
        await google.aclose()

    assert b"".join(taken) == b"helloworld"


async def test_a_length_that_is_only_announced_takes_no_memory() -> None:
    """Blocks are made when there is something to read."""
    connection = Connection(bytearray(READ_BYTES))
    connection.open(Silent())
    task = asyncio.create_task(connection.send(b"GET / HTTP/1.1\r\n\r\n", Body((), lambda: None)))
    await asyncio.sleep(0)
    head = OK + b"Content-Length: 999999999999999999\r\n\r\n"
    connection.get_buffer(-1)[: len(head)] = head
    tracemalloc.start()
    try:
        connection.buffer_updated(len(head))
        await task
        announced_bytes = tracemalloc.get_traced_memory()[0]
        connection.get_buffer(-1)
        read_bytes = tracemalloc.get_traced_memory()[0] - announced_bytes
    finally:
        tracemalloc.stop()

    assert announced_bytes < BLOCK_BYTES / 10
    assert BLOCK_BYTES <= read_bytes < 2 * BLOCK_BYTES


async def test_what_came_while_the_loop_was_busy_is_nobodys_response() -> None:
    """It lies in the system's buffer when the connection is looked at: another is made."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HELLO)
            await writer.drain()
            await asyncio.to_thread(surplus.wait)
            with suppress(ConnectionError):
                writer.write(HELLO.replace(b"hello", b"evil!"))
                await writer.drain()
            sent.set()

    surplus, sent, done = threading.Event(), threading.Event(), threading.Event()
    ready: list[str] = []

    def serve() -> None:  # in a loop of its own, because ours is busy
        async def run() -> None:
            async with listening(peer) as url:
                ready.append(url)
                await asyncio.to_thread(done.wait)

        asyncio.run(run())

    thread = threading.Thread(target=serve)
    thread.start()
    await eventually(lambda: ready)
    google = way_to(ready[0])
    first = await body_of(await google.send(*GET))
    surplus.set()
    sent.wait(10)
    time.sleep(0.05)  # noqa: ASYNC251 # the loop is busy, and sees nothing of it
    second = await google.send(*GET)
    contents = [first, await body_of(second)]
    await google.aclose()
    done.set()
    thread.join(10)

    assert contents == [b"hello", b"hello"]


@pytest.mark.parametrize("surplus", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"])
@pytest.mark.parametrize("first", [HELLO, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "later"])
async def test_what_nobody_asked_for_is_nobodys_response(first: bytes, surplus: bytes, is_late: bool) -> None:
    """A peer that sends two responses for a request: the next request goes over another connection."""
    connections, closed = 0, 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, closed
        connections += 1
        with suppress(ConnectionError):
            while await reader.readline():
                await reader.readuntil(b"\r\n\r\n")
                writer.write(first if is_late else first + surplus)
                await asyncio.sleep(0.05)
                if is_late:
                    writer.write(surplus)
        closed += 1

    async with listening(peer) as url:
        google = way_to(url)
        contents = []
        for number in range(3):
            contents.append(await body_of(await google.send(*GET)))
            await eventually(lambda number=number: closed > number)  # type: ignore[misc]
        await google.aclose()

    assert contents == [b"hello"] * 3
    assert connections == 3


async def test_a_response_that_is_read_late_is_still_its_requests() -> None:
    """Its connection serves the next request meanwhile."""
    connections = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while line := await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK + b"Content-Length: 6\r\n\r\n" + line.split()[1][-6:])

    async with listening(peer) as url:
        google = way_to(url)
        first = await google.send(*Request("GET", "number-1"))
        await asyncio.sleep(0.1)
        second = await google.send(*Request("GET", "number-2"))
        contents = [await body_of(second), await body_of(first)]
        await google.aclose()

    assert (contents, connections) == ([b"mber-2", b"mber-1"], 1)


async def test_a_body_that_nobody_reads_is_not_taken_into_memory() -> None:
    """The peer is left to wait, and the rest comes when somebody reads."""
    sent_bytes, size_bytes = 0, 64 << 20

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % size_bytes)
        for _ in range(size_bytes >> 20):
            writer.write(bytes(1 << 20))
            await writer.drain()
            sent_bytes += 1 << 20

    async with listening(peer) as url:
        google = way_to(url)
        response = await google.send(*GET)
        await asyncio.sleep(0.3)
        waiting_bytes = sent_bytes
        content = await body_of(response)
        await google.aclose()

    assert waiting_bytes < size_bytes / 2  # the system's own buffers take some
    assert size_bytes / 8 > MAX_UNREAD_BYTES
    assert len(content) == size_bytes


async def test_an_early_refusal_is_read_while_the_body_is_still_sent() -> None:
    """413 in the middle of a large body is the response, though the peer reads no further and resets."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        await asyncio.sleep(0.1)

    async with listening(peer) as url:
        google = way_to(url)
        response = await google.send(*Request("POST", "", body=[bytes(100_000)] * 500))
        assert (response.status_code, await body_of(response)) == (413, b"big")
        await google.aclose()


async def test_a_peer_that_hangs_up_inside_the_body_was_not_asked() -> None:
    """A request that was never handed over whole was not carried out, and may be sent again."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with listening(peer) as url:
        with pytest.raises(errors.NotConnected, match="before the whole request was sent"):
            await fetched(url, request=Request("POST", "", body=[bytes(1 << 20)] * 100))


async def test_a_cancelled_request_takes_its_connection_with_it() -> None:
    """What comes for it must never be the next one's."""
    there, gone = asyncio.Event(), asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        there.set()
        await reader.read()
        gone.set()

    async with listening(peer) as url:
        google = way_to(url)
        sending = asyncio.create_task(google.send(*POST))
        await asyncio.wait_for(there.wait(), 30)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.wait_for(gone.wait(), 5)
        await google.aclose()


async def test_who_is_cancelled_as_the_response_ends_leaves_the_connection_to_the_next() -> None:
    """It is free by then, and may be under another request already: closing it would cost that one its picture."""
    free: list[Connection] = []
    connection = Connection(bytearray(READ_BYTES))
    connection.on_free = free.append
    connection.open(Silent())
    task = asyncio.create_task(connection.send(b"GET / HTTP/1.1\r\n\r\n", Body((), lambda: None)))
    await asyncio.sleep(0)
    connection.get_buffer(-1)[: len(HELLO)] = HELLO
    connection.buffer_updated(len(HELLO))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert free == [connection]
    assert connection.is_idle


async def test_a_connection_is_read_a_block_in_a_turn() -> None:
    """Of many at once each gets its share of the event loop, however wide the kernel has opened its window."""
    transport = Silent()
    connection = Connection(bytearray(READ_BYTES))
    connection.open(transport)
    sending = asyncio.create_task(connection.send(b"GET / HTTP/1.1\r\n\r\n", Body((), lambda: None)))
    await asyncio.sleep(0)
    head = OK + b"Content-Length: %d\r\n\r\n" % (3 * BLOCK_BYTES)
    connection.get_buffer(-1)[: len(head)] = head
    connection.buffer_updated(len(head))
    await sending
    reads = []
    for _ in range(2):
        connection.buffer_updated(len(connection.get_buffer(-1)))
        reads.append(transport.is_paused)
        await asyncio.sleep(0)
        reads.append(transport.is_paused)

    assert reads == [True, False, True, False]


class Silent(asyncio.Transport):
    """A transport on which nothing arrives; it counts what is written."""

    is_aborted = False
    is_paused = False

    def pause_reading(self) -> None:
        self.is_paused = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


@pytest.mark.parametrize("size_bytes", [1_400_000, 3_000_000])
async def test_a_response_is_whole_whose_encrypted_connection_is_closed_behind_it(
    certificate: Path, size_bytes: int
) -> None:
    """Proxies and servers that say `Connection: close` end so: what was sent before the end is not lost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    times = 20

    def serve(listener: socket.socket) -> None:
        for _ in range(times):
            with context.wrap_socket(listener.accept()[0], server_side=True) as peer:
                request = b""
                while not request.endswith(b"{}"):
                    request += peer.recv(65536)
                peer.sendall(OK + b"Content-Length: %d\r\n\r\n" % size_bytes + b"x" * size_bytes)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)  # of a request that fails no other follows
        url = f"https://localhost:{listener.getsockname()[1]}"
        serving = asyncio.create_task(asyncio.to_thread(serve, listener))
        lengths = []
        for _ in range(times):  # a connection each: the peer closes it, and says nothing before
            google = way_to(url, None, verify=ssl.create_default_context(cafile=certificate))
            lengths.append(len(await body_of(await google.send(*POST))))
            await google.aclose()
        await serving

    assert lengths == [size_bytes] * times


@asynccontextmanager
async def encrypted(certificate: Path) -> AsyncIterator[int]:
    """A peer that speaks TLS and sends three megabytes; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            writer.write(OK + b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)

    server = await asyncio.start_server(peer, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.mark.parametrize("through_proxy", [False, True], ids=["direct", "proxy"])
async def test_it_speaks_tls(certificate: Path, through_proxy: bool) -> None:
    """With the peer itself, also behind a proxy, which is asked for a tunnel; a certificate that is not trusted ends it."""
    asked: list[bytes] = []

    async with encrypted(certificate) as port:

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append((await reader.readuntil(b"\r\n\r\n")).splitlines()[0])
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(piped(reader, there_writer), piped(there_reader, writer))

        async with listening(proxy) as proxy_url:
            url, way = f"https://localhost:{port}", proxy_url if through_proxy else None
            with pytest.raises(errors.NotConnected, match="nothing was sent"):
                await fetched("", way_to(url, way))
            google = way_to(url, way, verify=ssl.create_default_context(cafile=certificate))
            contents = [await body_of(await google.send(*POST)) for _ in range(3)]
            await google.aclose()

    assert contents == [b"x" * 3_000_000] * 3
    assert asked == ([b"CONNECT localhost:%d HTTP/1.1" % port] * 2 if through_proxy else [])


async def piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()
