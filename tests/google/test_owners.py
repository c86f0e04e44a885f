"""Who owns a connection: one request, the pool or nobody, whatever comes on it and in whatever moment."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import hypothesis.strategies as st
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings

from banana import errors
from banana.google.connection import READ_BYTES, Connection, State
from banana.google.upstream import Body
from tests.google.network import Request, body_of, way_to
from tests.google.test_connection import Silent
from tests.google.test_transport import OK
from tests.google.test_tunnel import ESTABLISHED, SECRET, proxy, saying

pytestmark = pytest.mark.anyio
DAMAGE = [
    b"\0",
    b"hello",
    b"HTTP/1.1 200 OK\r\n\r\n",
    OK + b"Content-Length: 3\r\n\r\nodd",
    b"\x15\x03\x03\x00\x02\x01\x00",
]
STEPS = st.one_of(
    st.sampled_from(["open", "send", "answer", "turn", "eof", "lost", "cancel", "cut", "close"]),
    st.sampled_from(DAMAGE),
    st.binary(min_size=1, max_size=12),
)


class Watched(Silent):
    """A transport that keeps what is written on it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def pause_reading(self) -> None:
        pass


class Owners:
    """A connection, those who send on it, and what the rules are."""

    def __init__(self) -> None:
        self.transport = Watched()
        self.connection = Connection(bytearray(READ_BYTES))
        self.connection.on_free = self.free
        self.connection.connection_made(self.transport)
        self.sending: list[asyncio.Task[tuple[int, bytes]]] = []
        self.given_back = 0
        self.was_lost = False

    def free(self, connection: Connection) -> None:
        assert connection.state is State.IDLE
        self.given_back += 1
        assert self.given_back <= len(self.sending)

    async def send(self) -> None:
        before, state, number = self.transport.written, self.connection.state, len(self.sending)

        async def whole() -> tuple[int, bytes]:
            response = await self.connection.send(b"POST /%d HTTP/1.1\r\n\r\n" % number, Body((), lambda: None))
            return response.status, b"".join([chunk async for chunk in response])

        task = asyncio.create_task(whole())
        await asyncio.sleep(0)
        if state is State.IDLE and not self.transport.is_aborted:
            self.sending.append(task)
            return
        with pytest.raises(httpx.ConnectError):
            await task
        assert self.transport.written == before

    def receive(self, data: bytes) -> None:
        while data and not self.transport.is_aborted and not self.was_lost:
            buffer = self.connection.get_buffer(-1)
            part = data[: len(buffer)]
            buffer[: len(part)] = part
            self.connection.buffer_updated(len(part))
            data = data[len(part) :]

    async def act(self, step: str | bytes) -> None:
        last = self.sending[-1] if self.sending else None
        match step:
            case bytes():
                self.receive(step)
            case "open":
                self.connection.open(self.transport)
            case "send":
                await self.send()
            case "answer" if last:
                body = b"for %d" % (len(self.sending) - 1)
                self.receive(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            case "turn":
                await asyncio.sleep(0)
            case "eof":
                self.connection.eof_received()
            case "lost" if not self.was_lost:
                self.was_lost = True
                self.connection.connection_lost(None)
            case "cancel" if last:
                last.cancel()
            case "close":
                self.connection.close()

    def has_written_too_early(self) -> bool:
        return self.connection.state is State.CONNECTING and bool(self.transport.written)


@given(st.lists(STEPS, max_size=40))
@settings(max_examples=80, deadline=None)
def test_a_connection_has_one_owner_at_a_time(steps: list[str | bytes]) -> None:
    """Nothing is written before it is open; who is not its owner cannot send; what is answered whole is the owner's own."""

    async def drive() -> None:
        owners = Owners()
        for step in steps:
            await owners.act(step)
            assert not owners.has_written_too_early()
        owners.connection.close()
        if not owners.was_lost:
            owners.connection.connection_lost(None)
        for number, task in enumerate(owners.sending):
            with suppress(httpx.TransportError, asyncio.CancelledError):
                status, body = await task
                # What was damaged on its way may be anything; another request's response it is never.
                others = [b"for %d" % other for other in range(len(owners.sending)) if other != number]
                assert status
                assert not any(other in body for other in others)

    asyncio.run(drive())


PEER = st.fixed_dictionaries(
    {
        "form": st.sampled_from(["length", "chunked", "until close", "interim"]),
        "cuts": st.integers(1, 40),
        "behind": st.sampled_from([b"", b"", b"", *DAMAGE]),
        "closes": st.booleans(),
        "hangs": st.booleans(),
    }
)


async def answer(writer: asyncio.StreamWriter, body: bytes, how: dict[str, Any]) -> bool:
    """Answer a request in this way; return whether the connection goes on."""
    match how["form"]:
        case "chunked":
            response = OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        case "until close":
            response = OK + b"\r\n" + body
        case form:
            interim = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 if form == "interim" else b""
            response = interim + OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    step = -(-len(response) // how["cuts"])
    behind = b"" if how["form"] == "until close" else how["behind"]
    for start in range(0, len(response), step):
        if how["hangs"] and start >= len(response) // 2:
            await asyncio.sleep(0.2)
            writer.transport.abort()  # a proper end would make a body until the close whole
            return False
        # What comes too much comes with the end: once another request was sent, nothing could tell it from its response.
        writer.write(response[start : start + step] + (behind if start + step >= len(response) else b""))
        await writer.drain()
        await asyncio.sleep(0)
    return not how["closes"] and how["form"] != "until close"


@given(
    st.lists(PEER, min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=4, max_size=16),
    st.booleans(),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_response_reaches_its_own_request(
    certificate: Path,
    peers: list[dict[str, Any]],
    requests: list[tuple[int, bool]],
    through_proxy: bool,
) -> None:
    """Over TLS and through a proxy, whatever peers and callers do: what is whole is the request's own, and all is encrypted."""
    verify = ssl.create_default_context(cafile=certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    left = iter(peers * (2 * len(requests)))

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            goes_on = True
            while goes_on:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().rpartition(b"content-length:")[2].split(b"\r\n")[0])
                goes_on = await answer(writer, await reader.readexactly(length), next(left))
        writer.close()

    async def drive() -> None:
        server = await asyncio.start_server(peer, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        async with proxy(port, saying(ESTABLISHED)) as (url, read):
            google = way_to(f"https://localhost:{port}", url if through_proxy else None, verify=verify)

            async def fetch(number: int, turns: int, leaves: bool) -> None:
                body = SECRET + b" of %d." % number
                with suppress(errors.BananaError, TimeoutError):
                    async with asyncio.timeout(0.001 * turns if leaves else 10):
                        assert await body_of(await google.send(*Request("POST", "", body=[body]))) == body

            half = len(requests) // 2
            try:
                for batch in (requests[:half], requests[half:]):
                    await asyncio.gather(*(fetch(number, *request) for number, request in enumerate(batch)))
                assert SECRET not in b"".join(read)
            finally:
                await google.aclose()
                server.close()
        if peers_left := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(peers_left)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the loop that ships
        runner.run(drive())
