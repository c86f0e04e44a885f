"""The Gemini API through `httpx.AsyncClient`: requests out, chunks of responses in, and httpx's errors as ours, in one table.

Every call of this service to Google is one that an `Upstream` sends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache

import httpx

from banana import errors, tracing
from banana.google.transport import BlockTransport
from banana.payload.pieces import Chunk, Pieces, size_of

# A connection that takes longer than this is given up, and the call may be sent on another: nothing was sent yet.
CONNECT_SECONDS = 10
# URLs that are parsed once: there are as many as models and methods.
_URLS = 256


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        """Take none: a jar that refuses them would be handed each response as one of urllib's."""


_NO_COOKIES = _NoCookies()


class _Client(httpx.AsyncClient):
    @property
    def cookies(self) -> httpx.Cookies:
        """None. httpx's own property makes a jar of whatever it is given."""
        return _NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        raise AttributeError("this client has no cookies")


def open_client(
    limits: httpx.Limits, proxy: str | None = None, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """Return the client of a worker: no redirects, no cookies, and nothing read from the environment.

    Time limits are the caller's (`asyncio.timeout_at`), but for that of connecting. httpx does not read `limits` if it is
    given a transport, so the transport is given them too; `Slots` sees to it that `max_connections` is never exceeded.
    `httpx.AsyncHTTPTransport(limits=limits, trust_env=False)` works as `transport` as well. Raises ValueError for a transport and
    a proxy, which is the transport's own.
    """
    if transport is not None and proxy is not None:
        raise ValueError("a transport has its proxy from whoever made it")
    client = _Client(
        transport=transport or BlockTransport(limits=limits, proxy=httpx.Proxy(proxy) if proxy else None),
        limits=limits,
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        follow_redirects=False,
        trust_env=False,
        auth=httpx.Auth(),  # none, whatever the URL says
    )
    if tracing.is_collecting() and not isinstance(transport, httpx.AsyncHTTPTransport):
        _let_trace(client)
    return client


def _let_trace(client: httpx.AsyncClient) -> None:
    """Let OpenTelemetry see each request, if its instrumentation of httpx is installed: by itself it sees stock transports."""
    with suppress(ModuleNotFoundError):
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

        HTTPXClientInstrumentor.instrument_client(client)


class Body(httpx.AsyncByteStream):
    """A request's body, in chunks.

    `before_send` is called in the last moment before its first byte goes out, or that of its headers: what it raises is raised
    instead, and nothing is sent whole.
    """

    def __init__(self, chunks: Pieces, before_send: Callable[[], object]) -> None:
        self._chunks = chunks
        self._before_send = before_send

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the chunks."""
        self._before_send()
        for chunk in self._chunks:
            yield chunk  # type: ignore[misc] # bytes, or what a transport may read as bytes


class Upstream:
    """An API at `base_url`, called over `client`."""

    def __init__(self, client: httpx.AsyncClient, base_url: str) -> None:
        self._client = client
        base = httpx.URL(base_url).copy_with(query=None, fragment=None)
        self._base_url = str(base).rstrip("/")
        self._host = base.netloc

    async def send(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: Pieces = (),
        before_send: Callable[[], object] = lambda: None,
        *,
        in_blocks: bool = True,
    ) -> httpx.Response:
        """Send a request; return its response when the head is there.

        `path` is below the base URL, with its query. Unless `in_blocks`, each part of the response's body is read as it
        arrives. Raises NotConnected, ConnectionLost, InvalidResponse, CutResponse and what `before_send` raises.
        """
        own = ((b"Host", self._host), *headers, (b"Content-Length", b"%d" % size_of(body)))
        stream, extensions = Body(body, before_send), {"in_blocks": in_blocks}
        if not body:  # which other transports do not read before the request is whole
            before_send()
        try:
            url = _url(self._base_url, path)
            request = httpx.Request(method, url, headers=own, stream=stream, extensions=extensions)
            return await self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _sending_failed(error) from None

    async def aclose(self) -> None:
        """Close the client, and with it all connections."""
        await self._client.aclose()


async def read(response: httpx.Response, sink: Callable[[Chunk], object], deadline: float | None = None) -> None:
    """Give `sink` the body chunk by chunk, and close the response.

    Raises CutResponse and InvalidResponse, DeadlineExceeded at `deadline` (in seconds of the event loop's clock), all of them
    when `sink` has everything that arrived, and what `sink` raises.
    """
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in response.aiter_bytes():
                sink(chunk)
    except TimeoutError:
        unread: Callable[[], Iterable[Chunk]] = response.extensions.get("unread", list)
        for rest in unread():
            sink(rest)
        error = errors.DeadlineExceeded("Google's response was not whole before the deadline; the call was cancelled.")
        error.in_doubt = True
        raise error from None
    except httpx.HTTPError as error:
        raise _reading_failed(error) from None
    finally:
        await close(response)


async def close(response: httpx.Response) -> None:
    """Close a response; the connection of one that was not read to its end is closed."""
    await response.aclose()
    # httpx's own stream and the response hold each other, and the request's body, until the garbage collector runs.
    response.stream = httpx.ByteStream(b"")


def _sending_failed(error: Exception) -> errors.UpstreamError:
    """Return what an error of httpx means while no response has begun.

    ============================================================ ================ ================
    httpx                                                        the request was  ours
    ============================================================ ================ ================
    ConnectError, ConnectTimeout, PoolTimeout, ProxyError,       not sent         NotConnected
    LocalProtocolError, UnsupportedProtocol, InvalidURL
    WriteError, WriteTimeout                                     not sent whole   NotConnected
    RemoteProtocolError                                          sent             CutResponse
    DecodingError                                                answered         InvalidResponse
    ReadError, ReadTimeout, and whatever there may be beside     sent             ConnectionLost
    ============================================================ ================ ================
    """
    match error:
        case (
            httpx.ConnectError()
            | httpx.ConnectTimeout()
            | httpx.PoolTimeout()
            | httpx.ProxyError()
            | httpx.LocalProtocolError()
            | httpx.UnsupportedProtocol()
            | httpx.InvalidURL()
        ):
            return errors.NotConnected(f"Could not connect to Google: {error}; nothing was sent.")
        case httpx.WriteError() | httpx.WriteTimeout():
            return errors.NotConnected(
                "The connection to Google was lost before the whole request was sent; it was not processed."
            )
        case httpx.RemoteProtocolError():
            return errors.CutResponse(f"Google's response was cut short, or is not HTTP ({error}).")
        case httpx.DecodingError():
            return errors.InvalidResponse(f"Google's response cannot be decompressed ({error}).")
    why = str(error) or type(error).__name__
    return errors.ConnectionLost(f"The connection to Google was lost after the request was sent ({why}).")


def _reading_failed(error: httpx.HTTPError) -> errors.UpstreamError:
    """Return what an error of httpx means after a response has begun: it was cut, or cannot be decompressed."""
    if isinstance(error, httpx.DecodingError):
        return errors.InvalidResponse(f"Google's response cannot be decompressed ({error}).")
    return errors.CutResponse("Google's response was cut short.")


@lru_cache(_URLS)
def _url(base_url: str, path: str) -> httpx.URL:
    return httpx.URL(f"{base_url}/{path}".rstrip("/"))
