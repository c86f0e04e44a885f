"""The network: httpx' requests and responses over aiohttp's public interface, which costs a third of httpcore's time.

It sends what it is given and keeps connections for the next request; it follows no redirect, keeps no cookie and reads
no proxy from the environment. What goes wrong is translated here, once, by whether the request can have reached Google.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cache

import aiohttp
import httpx

from banana import errors
from banana.payload.pieces import Bytes, Pieces

# A network, as the client sees it: the real one below, or another in tests.
Transport = httpx.AsyncBaseTransport
# A connection that takes longer than this is given up, and the call may be sent on another: nothing was sent yet.
CONNECT_SECONDS = 10
# How much of a response may wait to be read before the socket is left alone for a while.
READ_BYTES = 256 * 1024
# A dead peer is detected within a minute, while Google takes minutes for an answer.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class AiohttpTransport(httpx.AsyncBaseTransport):
    """An httpx transport; raises NotConnected, ConnectionLost, CutResponse and InvalidResponse of `banana.errors`.

    Args:
        proxy_url: the HTTP proxy on the way, or None.
        idle_seconds: how long an unused connection is kept. A call that meets a connection as the peer closes it fails,
            and is not sent again: that it was not carried out could not be known. So it is to be shorter than any peer's.

    """

    def __init__(self, proxy_url: str | None = None, idle_seconds: float = 4) -> None:
        self._proxy_url = proxy_url
        self._idle_seconds = idle_seconds
        self._ssl_context = ssl_context()
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; return the response when its head is there. Its body is read by `chunks_of`."""
        try:
            with translate_errors():
                response = await self._get_session().request(
                    request.method,
                    str(request.url),
                    headers=request.headers,
                    data=_data_of(request),
                    allow_redirects=False,
                    proxy=self._proxy_url,
                )
        except errors.ConnectionLost as error:
            if _was_cut(request):
                raise errors.NotConnected(
                    "The connection to Google was lost before the request was sent whole; it was not carried out."
                ) from error
            raise
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response))

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _get_session(self) -> aiohttp.ClientSession:
        """Return the session, which can only be made inside a running event loop."""
        if self._session is None:
            # No limit here: the slots are the only place where calls wait.
            connector = aiohttp.TCPConnector(
                limit=0,
                ssl=self._ssl_context,
                socket_factory=keepalive_socket,
                keepalive_timeout=self._idle_seconds,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=READ_BYTES,
                timeout=aiohttp.ClientTimeout(connect=CONNECT_SECONDS),
                auto_decompress=False,  # httpx does that, by the response's headers
            )
        return self._session


@cache
def ssl_context() -> ssl.SSLContext:
    """Return the one context of the process; reading the certificates of all authorities takes 40 ms."""
    return httpx.create_ssl_context(trust_env=False)


def _data_of(request: httpx.Request) -> bytes | httpx.AsyncByteStream | httpx.SyncByteStream | None:
    """Return what aiohttp should send; only a request without a body is sent again on a connection that was stale."""
    if isinstance(request.stream, PiecesStream):
        return request.stream
    return request.content or None


def _was_cut(request: httpx.Request) -> bool:
    """Return whether a part of the body was never handed to the connection: Google cannot have carried it out."""
    return isinstance(request.stream, PiecesStream) and not request.stream.was_sent


class PiecesStream(httpx.AsyncByteStream):
    """The body of a request in pieces; it can be sent again.

    Attributes:
        was_sent: whether all of it was handed to a connection.

    """

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self.was_sent = False

    async def __aiter__(self) -> AsyncIterator[Bytes]:  # type: ignore[override] # aiohttp takes memoryviews as well
        for piece in self._pieces:
            # What Google has already answered is read before more is sent: an early 400 or 413 is followed by a reset,
            # and the failed write would hide it.
            await asyncio.sleep(0)
            yield piece
        self.was_sent = True


class _Body(httpx.AsyncByteStream):
    """The body of a response as it arrives; closed before its end, it closes its connection at once."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # What the socket gave, as it is: reads of a fixed size would cut and join it.
        async for chunk in self._response.content.iter_any():
            yield chunk

    async def aclose(self) -> None:
        self._response.close()


async def chunks_of(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the response's body as it arrives, decoded. Raises what the transport raises."""
    with translate_errors():
        async for chunk in response.aiter_bytes():
            yield chunk


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn the network's errors into ours."""
    try:
        yield
    except (aiohttp.ClientError, httpx.DecodingError, OSError) as error:
        raise _translation(error) from error


def _translation(error: Exception) -> errors.UpstreamError:
    name = type(error).__name__
    match error:
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return errors.NotConnected(f"No connection to Google could be made ({name}); nothing was sent.")
        case aiohttp.ClientHttpProxyError():
            return errors.NotConnected(f"The proxy refused the connection ({error.status}); nothing was sent.")
        case aiohttp.ClientPayloadError():
            return errors.CutResponse("Google's response was cut short.")
        case aiohttp.ClientResponseError():
            return errors.CutResponse(f"Google's response is not HTTP ({name}).")
        case httpx.DecodingError():
            return errors.InvalidResponse(f"Google's response cannot be decompressed ({name}).")
    return errors.ConnectionLost(f"The connection to Google was lost after the request was sent ({name}).")


def keepalive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a new socket with TCP keepalive, as aiohttp asks for one."""
    family, kind, protocol, _, _ = address
    tcp_socket = socket.socket(family=family, type=kind, proto=protocol)
    tcp_socket.setblocking(False)
    tcp_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # not on every system
            tcp_socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return tcp_socket
