"""The transport behind httpx's client: connections of our own to the Gemini API, kept for the next request.

httpx's stock transport works in its place. This one is there because it passes megabytes on in the blocks they were read
into, hands nobody another request's response, and reads an early refusal while a body is still being sent.
"""

import asyncio
import base64
import socket
import ssl
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

import aiohappyeyeballs
import certifi
import httpx

from banana.google.connection import READ_BYTES, Connection, ResponseStream
from banana.google.decoding import MAX_CODINGS, DecodedStream, UndecodableStream, codings_of
from banana.google.tunnel import Tunnel

# Of several addresses of one name the next is tried after this (RFC 8305).
NEXT_ADDRESS_SECONDS = 0.25
# A dead peer is detected within a minute, while Google takes minutes for an answer.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
# Of the headers of a response: the body is decoded, and a redirect is a response like any other.
_LEFT_OUT = (b"content-encoding", b"location")
DEFAULT_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=4)


class BlockTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 for `httpx.AsyncClient`, as far as it is needed here: no HEAD, no upgrades.

    `verify`, `limits` and `proxy` are what they are to `httpx.AsyncHTTPTransport`; without `verify` the certificates are certifi's.
    Nothing queues in it: whoever sends bounds the number of requests at once to `limits.max_connections`, as `Slots` does
    (https://github.com/encode/httpcore/issues/1093). `limits.keepalive_expiry` is how long an unused connection is kept. A
    request that meets a connection as the peer closes it fails and is not sent again, because it may have been carried out:
    so it is to be shorter than any peer's.

    A request may have the extension `in_blocks`: if false, no part of the response's body waits for a block to be full. A
    response has the extension `unread`, which returns the chunks of the body that have arrived and were not read.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | None = None,
        limits: httpx.Limits = DEFAULT_LIMITS,
        proxy: httpx.Proxy | None = None,
    ) -> None:
        self._verify = verify
        self._limits = limits
        self._proxy = proxy
        # Since when each is idle. The last one used is the first to be used again; the others grow old.
        self._idle: dict[Connection, float] = {}
        self._all: set[Connection] = set()
        self._scratch = bytearray(READ_BYTES)
        self._sweep: asyncio.TimerHandle | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; return its response when the head is there.

        Raises httpx.TransportError. A GET is sent again if its connection was closed meanwhile.
        """
        origin = _Origin.of(request.url)
        connection = self._kept(origin) or await self._connected(origin, request)
        try:
            stream = await self._send(request, origin, connection)
        except httpx.ReadError:
            if not (connection.was_used and request.method == "GET"):
                raise
            stream = await self._send(request, origin, await self._connected(origin, request))
        return _response(stream)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._all):
            connection.close()
        self._all.clear()
        self._idle.clear()

    async def _send(self, request: httpx.Request, origin: "_Origin", connection: Connection) -> ResponseStream:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        in_blocks = request.extensions.get("in_blocks", True)
        return await connection.send(self._head(request, origin), request.stream, in_blocks=in_blocks)

    def _head(self, request: httpx.Request, origin: "_Origin") -> bytes:
        """Return the request line and the headers."""
        is_forwarded = self._proxy is not None and not origin.is_tls
        scheme_and_host = b"http://" + request.url.netloc if is_forwarded else b""
        lines = [b"%s %s%s HTTP/1.1" % (request.method.encode(), scheme_and_host, request.url.raw_path)]
        lines += [b"%s: %s" % header for header in request.headers.raw]
        if is_forwarded:
            lines += self._proxy_headers()
        return b"\r\n".join([*lines, b"", b""])

    def _proxy_headers(self) -> list[bytes]:
        """Return the header by which a proxy knows us, if it has credentials."""
        if self._proxy is None or self._proxy.raw_auth is None:
            return []
        return [b"Proxy-Authorization: Basic " + base64.b64encode(b":".join(self._proxy.raw_auth))]

    def _kept(self, origin: "_Origin") -> Connection | None:
        """Return a kept connection that is still good."""
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        for connection, since in reversed(list(self._idle.items())):
            if connection.origin != origin:
                continue
            del self._idle[connection]
            if since > oldest and connection.is_reusable:
                return connection
            self._drop(connection)
        return None

    @property
    def _idle_seconds(self) -> float:
        expiry = self._limits.keepalive_expiry
        return float("inf") if expiry is None else expiry

    def _keep(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        loop = asyncio.get_running_loop()
        self._idle[connection] = loop.time()
        if self._sweep is None and self._limits.keepalive_expiry is not None:
            self._sweep = loop.call_later(self._limits.keepalive_expiry, self._drop_old)

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

    async def _connected(self, origin: "_Origin", request: httpx.Request) -> Connection:
        """Return a new connection. Raises httpx.ConnectError, httpx.ConnectTimeout and httpx.ProxyError."""
        seconds = request.extensions.get("timeout", {}).get("connect")
        connection = Connection(self._scratch, origin)
        connection.on_free = self._keep
        connection.on_close = self._all.discard
        try:
            async with asyncio.timeout(seconds):
                connection.open(await self._connect(connection, origin))
        except (OSError, httpx.ProxyError) as error:  # a TimeoutError is an OSError
            connection.close()
            raise self._translated(error, origin, seconds) from error
        except BaseException:
            connection.close()
            raise
        self._all.add(connection)
        return connection

    def _translated(
        self, error: OSError | httpx.ProxyError, origin: "_Origin", seconds: float | None
    ) -> httpx.TransportError:
        """Return httpx's error for what went wrong while connecting, which names the peer."""
        peer = origin.host
        if self._proxy is not None:
            peer = f"the proxy {_Origin.of(self._proxy.url).host_and_port} (UPSTREAM_PROXY)"
        if isinstance(error, httpx.ProxyError):
            return httpx.ProxyError(f"{peer} {error}")
        if isinstance(error, TimeoutError):
            return httpx.ConnectTimeout(f"{peer} did not answer within {seconds} s")
        return httpx.ConnectError(f"{peer} {why_not_connected(error)}")

    async def _connect(self, connection: Connection, origin: "_Origin") -> asyncio.Transport:
        """Return the transport of `connection`, connected to `origin`: directly or through the proxy, encrypted or not."""
        if self._proxy is None:
            return await self._open(lambda: connection, origin)
        proxy = _Origin.of(self._proxy.url)
        if not origin.is_tls:
            return await self._open(lambda: connection, proxy)
        tunnel = Tunnel()
        transport = await self._open(lambda: tunnel, proxy)
        try:
            await tunnel.connect(origin.host_and_port, self._proxy_headers())
            loop = asyncio.get_running_loop()
            encrypted = await loop.start_tls(transport, connection, self._tls(), server_hostname=origin.host)
        except BaseException:
            transport.abort()
            raise
        return cast(asyncio.Transport, encrypted)

    async def _open(self, make_protocol: Callable[[], asyncio.BaseProtocol], origin: "_Origin") -> asyncio.Transport:
        """Connect to the first of the origin's addresses that takes the connection; return its transport. Raises OSError."""
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        opened = await aiohappyeyeballs.start_connection(
            addresses,
            happy_eyeballs_delay=NEXT_ADDRESS_SECONDS,
            interleave=1,
            socket_factory=keepalive_socket,
            loop=loop,
        )
        tls: dict[str, Any] = {"ssl": self._tls(), "server_hostname": origin.host} if origin.is_tls else {}
        transport, _ = await loop.create_connection(make_protocol, sock=opened, **tls)
        return transport

    def _tls(self) -> ssl.SSLContext:
        return self._verify or default_context()


class _Origin(NamedTuple):
    """The scheme, host and port of a URL."""

    is_tls: bool
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> "_Origin":
        is_tls = url.scheme == "https"
        return cls(is_tls, url.raw_host.decode("ascii").strip("[]"), url.port or (443 if is_tls else 80))

    @property
    def host_and_port(self) -> str:
        """Both, as CONNECT names them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _response(stream: ResponseStream) -> httpx.Response:
    """Return httpx's response, whose body is decoded as it is read."""
    decoded: ResponseStream | DecodedStream | UndecodableStream = stream
    codings = codings_of(stream.headers)
    if len(codings) > MAX_CODINGS:
        decoded, codings = UndecodableStream(stream), []
    for coding in reversed(codings):
        if coding in (b"gzip", b"x-gzip", b"deflate"):
            decoded = DecodedStream(decoded, decoded.unread)
    headers = [header for header in stream.headers if header[0] not in _LEFT_OUT]
    return httpx.Response(stream.status, headers=headers, stream=decoded, extensions={"unread": decoded.unread})


def why_not_connected(error: OSError) -> str:
    """Return why there is no connection, in words that follow the name of the peer."""
    match error:
        case socket.gaierror():
            return "cannot be resolved (check DNS, and the network of this machine)"
        case ConnectionRefusedError():
            return "refuses the connection"
        case ssl.SSLCertVerificationError():
            return f"has a certificate that is not trusted ({error.verify_message})"
        case ssl.SSLError():
            return f"does not speak TLS as it should ({error.reason or 'connection closed'})"
    return f"cannot be reached ({error.strerror or type(error).__name__})"


@cache
def default_context() -> ssl.SSLContext:
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
