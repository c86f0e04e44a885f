"""The network to Google: connections that are kept for the next call, and what goes wrong on it, translated once.

It sends what it is given; it follows no redirect, keeps no cookie and reads no proxy from the environment.
"""

import asyncio
import base64
import socket
import ssl
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs
import certifi
from msgspec import Struct
from opentelemetry import trace

from banana import errors
from banana.google.connection import READ_BYTES, Connection, Response, Sink
from banana.payload.pieces import Chunk, Pieces, size_of

# A connection that takes longer than this is given up, and the call may be sent on another: nothing was sent yet.
CONNECT_SECONDS = 10
# Of several addresses of one name the next is tried after this (RFC 8305).
NEXT_ADDRESS_SECONDS = 0.25
# A dead peer is detected within a minute, while Google takes minutes for an answer.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
# What is unpacked at once: a small response may stand for gigabytes, and is counted on the way.
_UNPACKED_BYTES = 256 * 1024


class Request(Struct, frozen=True):
    """A request, without what belongs to the connection: `Host`, `Content-Length` and the credentials of a proxy.

    Attributes:
        method: of HTTP.
        path: below the base URL, with its query.
        headers: as they are sent.
        body: in pieces.

    """

    method: str
    path: str
    headers: Iterable[tuple[str, str]] = ()
    body: Pieces = ()


class HttpResponse(Protocol):
    """A response whose head is there: what `Response` is, or another in tests."""

    status: int

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, by its name in lower case; empty when there is none."""
        ...

    async def read(self, sink: Sink, *, as_it_comes: bool = False) -> None:
        """Give `sink` the body, in blocks, or each part `as_it_comes`; return at its end."""
        ...

    def close(self) -> None:
        """Want no more of it."""
        ...


class Transport(Protocol):
    """A network, as the client sees it: the real one below, or another in tests."""

    async def send(self, request: Request) -> HttpResponse:
        """Send `request`; return its response when the head is there."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class HttpTransport:
    """HTTP/1.1 over connections of our own; raises NotConnected, ConnectionLost, CutResponse and InvalidResponse.

    Args:
        base_url: what every request is below.
        proxy_url: the HTTP proxy on the way, or None.
        idle_seconds: how long an unused connection is kept. A call that meets a connection as the peer closes it fails,
            and is not sent again: that it was not carried out could not be known. So it is to be shorter than any peer's.

    """

    def __init__(self, base_url: str, proxy_url: str | None = None, idle_seconds: float = 4) -> None:
        self._origin = _Origin.of(base_url)
        self._proxy = _Origin.of(proxy_url) if proxy_url else None
        self._idle_seconds = idle_seconds
        # The last one used is the first to be used again; those that are not needed any more grow old.
        self._free: list[tuple[float, Connection]] = []
        self._all: set[Connection] = set()
        self._scratch = bytearray(READ_BYTES)
        self._sweep: asyncio.TimerHandle | None = None
        self._tracer = _tracer()

    async def send(self, request: Request) -> HttpResponse:
        """Send `request`; return its response when the head is there.

        A request that changes nothing, a GET without a body, is sent again when its connection was closed meanwhile.
        """
        head = self._head(request)
        with self._span(request):
            connection = self._kept() or await self._connected()
            try:
                response = await connection.send(head, request.body)
            except errors.ConnectionLost:
                if not (connection.was_used and request.method == "GET"):
                    raise
                response = await (await self._connected()).send(head, request.body)
        return _unpacked(response)

    async def close(self) -> None:
        """Close all connections."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._all):
            connection.close()
        self._all.clear()
        self._free.clear()

    def _head(self, request: Request) -> bytes:
        """Return the request line and the headers."""
        is_through = self._proxy is not None and not self._origin.is_tls
        target = f"{self._origin.base if is_through else self._origin.path}/{request.path}".rstrip("/")
        lines = [f"{request.method} {target or '/'} HTTP/1.1", f"Host: {self._origin.host_header}"]
        lines += [f"{name}: {value}" for name, value in request.headers]
        if self._proxy is not None and is_through:
            lines += self._proxy.authorization()
        lines.append(f"Content-Length: {size_of(request.body)}\r\n\r\n")
        return "\r\n".join(lines).encode("latin-1")

    def _kept(self) -> Connection | None:
        """Return a kept connection that is still good."""
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        while self._free:
            since, connection = self._free.pop()
            if since > oldest and connection.is_open:
                return connection
            self._drop(connection)
        return None

    def _keep(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        loop = asyncio.get_running_loop()
        self._free.append((loop.time(), connection))
        if self._sweep is None:
            self._sweep = loop.call_later(self._idle_seconds, self._drop_old)

    def _drop_old(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._idle_seconds
        for _, connection in [kept for kept in self._free if kept[0] <= oldest or not kept[1].is_open]:
            self._drop(connection)
        self._free = [kept for kept in self._free if kept[1] in self._all]
        left_seconds = self._free[0][0] - oldest if self._free else 0
        self._sweep = loop.call_later(left_seconds, self._drop_old) if self._free else None

    def _drop(self, connection: Connection) -> None:
        self._all.discard(connection)
        connection.close()

    async def _connected(self) -> Connection:
        """Return a new connection. Raises NotConnected."""
        connection = Connection(self._scratch)
        connection.on_free = self._keep
        connection.on_close = self._all.discard
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connect(connection)
        except (OSError, ssl.SSLError) as error:  # a TimeoutError is an OSError
            connection.close()
            name = type(error).__name__
            raise errors.NotConnected(f"Could not connect to Google ({name}); nothing was sent.") from error
        except BaseException:
            connection.close()
            raise
        self._all.add(connection)
        return connection

    async def _connect(self, connection: Connection) -> None:
        if self._proxy is None:
            await _open(connection, self._origin)
            return
        await _open(connection, self._proxy)
        if not self._origin.is_tls:
            return
        target = f"{self._origin.host_header if ':' in self._origin.host_header else self._origin.host_header + ':443'}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *self._proxy.authorization(), "\r\n"]
        try:
            status = await connection.open_tunnel("\r\n".join(lines).encode("latin-1"))
        except errors.UpstreamError as error:
            raise errors.NotConnected(f"The proxy could not connect to Google: {error.message}") from error
        if status != 200:
            raise errors.NotConnected(f"The proxy refused the connection ({status}); nothing was sent.")
        await connection.start_tls(ssl_context(), self._origin.host)

    def _span(self, request: Request) -> AbstractContextManager[Any]:
        """Return a span of a trace, where traces are collected."""
        if self._tracer is None:
            return nullcontext()
        attributes = {"http.request.method": request.method, "server.address": self._origin.host}
        return self._tracer.start_as_current_span(request.method, kind=trace.SpanKind.CLIENT, attributes=attributes)


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where requests go: an HTTP address, taken apart."""

    is_tls: bool
    host: str
    port: int
    host_header: str
    path: str
    credentials: str

    @classmethod
    def of(cls, url: str) -> "_Origin":
        parts = urlsplit(url)
        is_tls, host = parts.scheme == "https", parts.hostname or ""
        name = f"[{host}]" if ":" in host else host
        default_port = 443 if is_tls else 80
        port = parts.port or default_port
        header = name if port == default_port else f"{name}:{port}"
        pair = ":".join(unquote(part) for part in (parts.username, parts.password or "") if part is not None)
        credentials = base64.b64encode(pair.encode()).decode() if parts.username else ""
        return cls(is_tls, host, port, header, parts.path.rstrip("/"), credentials)

    @property
    def base(self) -> str:
        """The address, without credentials."""
        return f"{'https' if self.is_tls else 'http'}://{self.host_header}{self.path}"

    def authorization(self) -> list[str]:
        """Return the header by which a proxy knows us, where it has credentials."""
        return [f"Proxy-Authorization: Basic {self.credentials}"] if self.credentials else []


async def _open(connection: Connection, origin: _Origin) -> None:
    """Connect to the first of the origin's addresses that takes the connection. Raises OSError."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    opened = await aiohappyeyeballs.start_connection(
        addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1, socket_factory=keepalive_socket, loop=loop
    )
    tls: dict[str, Any] = {"ssl": ssl_context(), "server_hostname": origin.host} if origin.is_tls else {}
    await loop.create_connection(lambda: connection, sock=opened, **tls)


@cache
def ssl_context() -> ssl.SSLContext:
    """Return the one context of the process; reading the certificates of all authorities takes 40 ms."""
    return ssl.create_default_context(cafile=certifi.where())


def keepalive_socket(address: Any) -> socket.socket:
    """Return a new socket with TCP keepalive, for one of the addresses of `getaddrinfo`."""
    family, kind, protocol, _, _ = address
    tcp_socket = socket.socket(family=family, type=kind, proto=protocol)
    tcp_socket.setblocking(False)
    tcp_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    tcp_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # not on every system
            tcp_socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return tcp_socket


def _tracer() -> trace.Tracer | None:
    """Return what makes spans; None where nothing collects them."""
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider.get_tracer("banana")


def _unpacked(response: Response) -> HttpResponse:
    """Return a response that hands on what it holds as it was before it was packed on the way, although nobody asked."""
    codings = [coding.strip() for coding in response.header(b"content-encoding").lower().split(b",")]
    for coding in reversed(codings):
        if coding in (b"gzip", b"x-gzip", b"deflate"):
            response = _Unpacked(response)  # type: ignore[assignment]
    return response


class _Unpacked:
    """A response, unpacked; an encoding that is only said to be there is passed over."""

    def __init__(self, response: HttpResponse) -> None:
        self._response = response
        self.status = response.status
        self.header = response.header
        self.close = response.close

    async def read(self, sink: Sink, *, as_it_comes: bool = False) -> None:
        """Give `sink` the body; what stands behind the packed data is left out. Raises InvalidResponse."""
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)

        def unpack(chunk: Chunk) -> None:
            try:
                while chunk and not unpacker.eof:
                    sink(unpacker.decompress(chunk, _UNPACKED_BYTES))
                    chunk = unpacker.unconsumed_tail
            except zlib.error:
                raise errors.InvalidResponse("Google's response cannot be decompressed.") from None

        await self._response.read(unpack, as_it_comes=as_it_comes)
        if rest := unpacker.flush():
            sink(rest)
