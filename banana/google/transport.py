"""The network to Google: connections that are kept for the next call, and what goes wrong on it, translated once.

It sends what it is given; it follows no redirect, keeps no cookie and reads no proxy from the environment.
"""

import asyncio
import base64
import socket
import ssl
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs
import certifi
from msgspec import Struct
from opentelemetry import trace

from banana import errors
from banana.google.connection import READ_BYTES, Connection, Response, Sink
from banana.google.tunnel import Tunnel
from banana.payload.pieces import Chunk, Pieces, size_of

# A connection that takes longer than this is given up, and the call may be sent on another: nothing was sent yet.
CONNECT_SECONDS = 10
# Of several addresses of one name the next is tried after this (RFC 8305).
NEXT_ADDRESS_SECONDS = 0.25
# A dead peer is detected within a minute, while Google takes minutes for an answer.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
# More of Content-Encoding than a server and a proxy each apply.
MAX_CODINGS = 2
_GZIP_MAGIC = b"\x1f\x8b"
# What is unpacked at once: a small response may stand for gigabytes, and is counted on the way.
_UNPACKED_BYTES = 256 * 1024


class Request(Struct, frozen=True):
    """A request, without what belongs to the connection: `Host`, `Content-Length` and the credentials of a proxy.

    Attributes:
        method: of HTTP.
        path: below the base URL, with its query.
        headers: as they are sent.
        body: in pieces.
        before_send: called in the last moment before its first byte is written; what it raises is raised instead.

    """

    method: str
    path: str
    headers: Iterable[tuple[str, str]] = ()
    body: Pieces = ()
    before_send: Callable[[], object] = lambda: None


class HttpResponse(Protocol):
    """A response whose head is there: what `Response` is, or another in tests."""

    status: int

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, by its name in lower case; empty when there is none."""
        ...

    async def read(self, sink: Sink, *, as_it_comes: bool = False, deadline: float | None = None) -> None:
        """Give `sink` the body, in blocks, or each part `as_it_comes`; return at its end. Raises as `Response.read`."""
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
        # Since when each is idle. The last one used is the first to be used again; the others grow old.
        self._idle: dict[Connection, float] = {}
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
                request.before_send()
            except BaseException:
                self._keep(connection)
                raise
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
        self._idle.clear()

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
        while self._idle:
            connection, since = self._idle.popitem()
            if since > oldest and connection.is_idle:
                return connection
            self._drop(connection)
        return None

    def _keep(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        loop = asyncio.get_running_loop()
        self._idle[connection] = loop.time()
        if self._sweep is None:
            self._sweep = loop.call_later(self._idle_seconds, self._drop_old)

    def _drop_old(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._idle_seconds
        for connection in [kept for kept, since in self._idle.items() if since <= oldest or not kept.is_idle]:
            del self._idle[connection]
            self._drop(connection)
        since = next(iter(self._idle.values()), None)
        self._sweep = None if since is None else loop.call_later(since - oldest, self._drop_old)

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
                connection.open(await self._connect(connection))
        except (OSError, ssl.SSLError) as error:  # a TimeoutError is an OSError
            connection.close()
            raise errors.NotConnected(f"{self._peer} {why_not_connected(error)}; nothing was sent.") from error
        except BaseException:
            connection.close()
            raise
        self._all.add(connection)
        return connection

    @property
    def _peer(self) -> str:
        """Who a connection is made to first, in words."""
        if self._proxy is not None:
            return f"Could not connect to Google: the proxy {self._proxy.host_and_port} (UPSTREAM_PROXY)"
        return f"Could not connect to Google: {self._origin.host}"

    async def _connect(self, connection: Connection) -> asyncio.Transport:
        """Return the transport of `connection`, connected to the API: directly or through the proxy, encrypted or not."""
        if self._proxy is None:
            return await _open(lambda: connection, self._origin)
        if not self._origin.is_tls:
            return await _open(lambda: connection, self._proxy)
        tunnel = Tunnel()
        transport = await _open(lambda: tunnel, self._proxy)
        try:
            await tunnel.connect(self._origin.host_and_port, self._proxy.authorization())
            loop = asyncio.get_running_loop()
            encrypted = await loop.start_tls(transport, connection, ssl_context(), server_hostname=self._origin.host)
        except BaseException:
            transport.abort()
            raise
        return cast(asyncio.Transport, encrypted)

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
    def host_and_port(self) -> str:
        """Both, as CONNECT names them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def base(self) -> str:
        """The address, without credentials."""
        return f"{'https' if self.is_tls else 'http'}://{self.host_header}{self.path}"

    def authorization(self) -> list[str]:
        """Return the header by which a proxy knows us, where it has credentials."""
        return [f"Proxy-Authorization: Basic {self.credentials}"] if self.credentials else []


async def _open(make_protocol: Callable[[], asyncio.BaseProtocol], origin: _Origin) -> asyncio.Transport:
    """Connect to the first of the origin's addresses that takes the connection; return its transport. Raises OSError."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    opened = await aiohappyeyeballs.start_connection(
        addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1, socket_factory=keepalive_socket, loop=loop
    )
    tls: dict[str, Any] = {"ssl": ssl_context(), "server_hostname": origin.host} if origin.is_tls else {}
    transport, _ = await loop.create_connection(make_protocol, sock=opened, **tls)
    return transport


def why_not_connected(error: Exception) -> str:
    """Return why there is no connection, in words that follow the name of the peer."""
    match error:
        case socket.gaierror():
            return "cannot be resolved (check DNS, and the network of this machine)"
        case ConnectionRefusedError():
            return "refuses the connection"
        case TimeoutError():
            return f"did not answer within {CONNECT_SECONDS} s"
        case ssl.SSLCertVerificationError():
            return f"has a certificate that is not trusted ({error.verify_message})"
        case ssl.SSLError():
            return f"does not speak TLS as it should ({error.reason or 'connection closed'})"
        case OSError():
            return f"cannot be reached ({error.strerror or type(error).__name__})"
    return f"cannot be reached ({type(error).__name__})"


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
    """Return a response that hands on what it holds as it was before it was packed on the way, although nobody asked.

    Raises InvalidResponse for more codings than anybody applies.
    """
    listed = b",".join(value for name, value in response.headers if name == b"content-encoding").lower()
    codings = [name for coding in listed.split(b",") if (name := coding.strip())]
    if len(codings) > MAX_CODINGS:
        response.close()
        raise errors.InvalidResponse(f"Google's response has more than {MAX_CODINGS} content codings.")
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

    async def read(self, sink: Sink, *, as_it_comes: bool = False, deadline: float | None = None) -> None:
        """Give `sink` the body, with every member of a gzip file (RFC 1952); what else stands behind it is left out.

        Raises InvalidResponse, and CutResponse when the packed data has no end.
        """
        unpacker = _Unpacker(sink)
        try:
            await self._response.read(unpacker.feed, as_it_comes=as_it_comes, deadline=deadline)
        except errors.BananaError:
            unpacker.flush()  # everything that came
            raise
        unpacker.flush()
        if not unpacker.is_whole:
            raise errors.CutResponse("Google's response was cut short.")


class _Unpacker:
    """Gives `sink` what it is fed, unpacked: gzip, or zlib's format."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._is_begun = False
        self._behind = b""  # the last member, of what may be the beginning of another

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing of what has begun."""
        return self._member.eof or not self._is_begun

    def feed(self, chunk: Chunk) -> None:
        """Take the next bytes. Raises InvalidResponse."""
        try:
            while chunk:
                if self._member.eof and not (chunk := self._next_member(chunk)):
                    return
                self._is_begun = True
                unpacked = self._member.decompress(chunk, _UNPACKED_BYTES)
                chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
                if unpacked:
                    self._sink(unpacked)
        except zlib.error:
            raise errors.InvalidResponse("Google's response cannot be decompressed.") from None

    def flush(self) -> None:
        """Give what is left of what has come."""
        if rest := self._member.flush():
            self._sink(rest)

    def _next_member(self, chunk: Chunk) -> bytes:
        """Return what is to be unpacked by a new member, if any."""
        self._behind = (self._behind + chunk) if len(self._behind) < len(_GZIP_MAGIC) else self._behind[:2]
        if self._behind[: len(_GZIP_MAGIC)] != _GZIP_MAGIC:
            return b""
        started, self._behind = self._behind, b""
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        return started
