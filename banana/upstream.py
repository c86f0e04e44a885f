"""The calls to Google: the pool, the deadline, the repeats, the keys. The only module that imports httpx or aiohttp.

One client a worker for life. Whatever goes wrong in it is translated here, once, into the tree of `banana.errors`.
It never repeats a call that may have been paid for: see `banana.repeats`.
"""

import asyncio
import math
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import aiohttp
import httpx
import structlog
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream, map_aiohttp_exceptions

from banana import errors, gemini, metrics
from banana.keys import Key, KeyRing
from banana.repeats import Repeats
from banana.skeleton import Bytes
from banana.slots import Slots

# A connection that takes longer than this is given up, and the call may be sent on another: nothing was sent yet.
CONNECT_SECONDS = 10
# How much of an answer may wait to be read before the socket is left alone for a while.
READ_BYTES = 256 * 1024
# An error's body is a few hundred bytes; of one that is not, this much is read.
MAX_ERROR_BYTES = 64 * 1024
# Below this the pieces of a body are sent as one.
SMALL_BODY_BYTES = 64 * 1024
# Google refuses X-Server-Timeout below this.
MIN_SERVER_TIMEOUT_SECONDS = 10

# What the log should know of a request; the caller of `Upstream` hands in a mapping, and finds it told.
Facts = dict[str, Any]
T = TypeVar("T")
Reader = Callable[[httpx.Response], Awaitable[T]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A call: the model whose quota it counts against, the path below the base URL with its query, and the body."""

    model: str
    path: str
    body: Sequence[Bytes] = ()
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, or a part of one, as it came."""

    status: int
    content_type: str
    chunks: Sequence[Bytes]


class Upstream:
    """Google's image API, as seen by the routes.

    Args:
        base_url: where the API is, with its version, without a slash at the end.
        keys: API keys, at least one.
        max_connections: calls at once; more wait in a line of `max_waiting`.
        max_response_bytes: an answer over this is an InvalidAnswer.
        retries: repeats of one call, at most.
        backoff_seconds: pause before the first repeat, doubled for each; 0 switches the clock off.
        proxy: the HTTP proxy on the way, or None; proxy variables of the environment are not read.
        transport: another network than the real one, for tests.

    """

    def __init__(
        self,
        *,
        base_url: str,
        keys: Sequence[str],
        max_connections: int = 100,
        max_waiting: int = 100,
        max_response_bytes: int = 64 << 20,
        retries: int = 2,
        backoff_seconds: float = 0.5,
        proxy: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.keys = KeyRing(keys)
        self.slots = Slots(max_connections, max_waiting)
        self._url = lru_cache(partial(_joined, base_url.rstrip("/")))
        self._max_response_bytes = max_response_bytes
        self._retries = retries
        self._backoff_seconds = backoff_seconds
        self._client = httpx.AsyncClient(transport=transport or _Transport(proxy), trust_env=False)
        self._client._cookies = _NoCookies()

    async def close(self) -> None:
        """Close the pool."""
        await self._client.aclose()

    async def images(
        self, model: str, request: gemini.ImageRequest, count: int, deadline: float, facts: Facts
    ) -> list[gemini.Image | errors.BananaError]:
        """Make `count` calls at once; return what each became, in the order of the calls.

        `deadline` is in seconds of the event loop's clock; a call that has not ended by then is a DeadlineExceeded.
        `facts` is told what the log should know: attempts, upstream_ms, tokens.
        """
        body = request.body()
        calls = [self._image(model, body, deadline, facts) for _ in range(count)]
        return [await calls[0]] if count == 1 else await asyncio.gather(*calls)

    async def images_as_made(
        self,
        model: str,
        request: gemini.ImageRequest,
        count: int,
        deadline: float,
        facts: Facts,
        silence_seconds: float,
    ) -> AsyncGenerator[tuple[int, gemini.Image | errors.BananaError] | None, None]:
        """Make `count` calls at once; yield each one's index and what it became, as soon as it has.

        After every `silence_seconds` without one, yields None. Closed before its end, it cancels what still runs.
        """
        body = request.body()
        tasks = [asyncio.create_task(self._image(model, body, deadline, facts)) for _ in range(count)]
        pending = set(tasks)
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=silence_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    yield None
                for task in sorted(done, key=tasks.index):
                    yield tasks.index(task), task.result()
        finally:
            for task in pending:
                task.cancel()

    async def forward(self, call: Call, deadline: float, facts: Facts) -> Answer:
        """Make a call of Google's own form; return its answer, held until it is whole. Raises BananaError.

        An error that Google told has its answer, as it came, in `answer`.
        """

        async def read(response: httpx.Response) -> Answer:
            chunks = [chunk async for chunk in self._capped(response)]
            return Answer(response.status_code, response.headers.get("content-type", ""), chunks)

        return await self._made(call, deadline, facts, read)

    async def stream(self, call: Call, deadline: float, facts: Facts) -> AsyncGenerator[Answer, None]:
        """Make a call of Google's own form; yield its answer in parts, each as it arrives. Raises BananaError.

        Before the first part the call is repeated as any other; after it, an error ends the stream.
        """
        # Unbounded but for the cap on an answer: a caller who reads slowly does not let the deadline pass.
        parts: asyncio.Queue[Answer | Exception | None] = asyncio.Queue()

        async def read(response: httpx.Response) -> None:
            content_type = response.headers.get("content-type", "")
            async for chunk in self._capped(response):
                parts.put_nowait(Answer(response.status_code, content_type, [chunk]))

        async def work() -> None:
            try:
                await self._made(call, deadline, facts, read)
            except Exception as error:
                parts.put_nowait(error)
            else:
                parts.put_nowait(None)

        task = asyncio.create_task(work())
        try:
            while (part := await parts.get()) is not None:
                if isinstance(part, Exception):
                    raise part
                yield part
        finally:
            task.cancel()

    async def _image(
        self, model: str, body: Sequence[Bytes], deadline: float, facts: Facts
    ) -> gemini.Image | errors.BananaError:
        """Make one image; return it, or why there is none."""

        async def read(response: httpx.Response) -> gemini.Image:
            answer = gemini.ImageAnswer()
            async for chunk in self._capped(response):
                answer.feed(chunk)
            image = answer.close()
            used = image.usage.get("totalTokenCount")
            if isinstance(used, int):
                facts["tokens"] = facts.get("tokens", 0) + used
                metrics.tokens.inc(max(0, used))
            return image

        try:
            return await self._made(Call(model, f"models/{model}:generateContent", body), deadline, facts, read)
        except errors.BananaError as failure:
            return failure

    async def _made(self, call: Call, deadline: float, facts: Facts, read: Reader[T]) -> T:
        """Make a call within the deadline, and read its answer."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._repeated(call, deadline, facts, read)
        except TimeoutError:
            raise errors.DeadlineExceeded(
                "The deadline passed before Google answered; the call was cancelled."
            ) from None

    async def _repeated(self, call: Call, deadline: float, facts: Facts, read: Reader[T]) -> T:
        """Call until there is an answer, or an error that must not be repeated."""
        repeats = Repeats(self._retries, self._backoff_seconds, deadline)
        tried: set[Key] = set()
        failure: errors.BananaError | None = None
        while True:
            key = self.keys.take(call.model, tried)
            if key is None:
                failure = self.keys.exhausted(call.model, failure)
            else:
                try:
                    async with self.slots:
                        return await self._attempt(repeats.attempt, key, call, deadline, facts, read)
                except (errors.UpstreamQuota, errors.RejectedKey) as error:
                    self.keys.set_aside(key, call.model, error)
                    metrics.keys_resting.set(self.keys.resting())
                    tried.add(key)
                    failure = error
                    continue
                except errors.BananaError as error:
                    failure = error
            await repeats.pause_after(failure)
            tried.clear()

    async def _attempt(self, attempt: int, key: Key, call: Call, deadline: float, facts: Facts, read: Reader[T]) -> T:
        """Send the call once with `key`, and log how it ended."""
        started = time.perf_counter()
        outcome = "cancelled"
        try:
            answer = await self._send(key, call, deadline, read)
            key.refused = False
            outcome = "ok"
            return answer
        except errors.BananaError as failure:
            outcome = failure.code
            raise
        finally:
            seconds = time.perf_counter() - started
            duration_ms = round(seconds * 1000, 1)
            facts["attempts"] = facts.get("attempts", 0) + 1
            facts["upstream_ms"] = round(facts.get("upstream_ms", 0) + duration_ms, 1)
            metrics.upstream_calls.labels(outcome).inc()
            metrics.upstream_seconds.observe(seconds)
            log.info(
                "upstream_attempt",
                attempt=attempt,
                model=call.model,
                key=key.digest,
                outcome=outcome,
                duration_ms=duration_ms,
            )

    async def _send(self, key: Key, call: Call, deadline: float, read: Reader[T]) -> T:
        request = self._request(key, call, deadline)
        with _translated():
            response = await self._client.send(request, stream=True)
            try:
                if response.status_code != 200:
                    raise await self._error(response)
                return await read(response)
            finally:
                await response.aclose()

    async def _error(self, response: httpx.Response) -> errors.BananaError:
        body = self.keys.redact((await _start_of(response)).decode("utf-8", "replace")).encode()
        error = gemini.error_of(response.status_code, body)
        error.answer = (response.status_code, response.headers.get("content-type", ""), body)
        return error

    async def _capped(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        left_bytes = self._max_response_bytes
        async for chunk in response.aiter_bytes():
            left_bytes -= len(chunk)
            if left_bytes < 0:
                raise errors.InvalidAnswer(f"Google's answer is over {self._max_response_bytes} bytes.")
            yield chunk

    def _request(self, key: Key, call: Call, deadline: float) -> httpx.Request:
        size_bytes = sum(map(len, call.body))
        left_seconds = deadline - asyncio.get_running_loop().time()
        headers = {
            "x-goog-api-key": key.secret,
            "Content-Type": "application/json",
            "Content-Length": str(size_bytes),
            "Accept-Encoding": "identity",
            "User-Agent": "banana-service",
            "X-Server-Timeout": str(max(MIN_SERVER_TIMEOUT_SECONDS, math.ceil(left_seconds))),
        }
        extensions = {"timeout": {"connect": CONNECT_SECONDS}}
        url = self._url(call.path)
        if size_bytes < SMALL_BODY_BYTES:
            return httpx.Request(call.method, url, headers=headers, content=b"".join(call.body), extensions=extensions)
        return httpx.Request(call.method, url, headers=headers, stream=_Body(call.body), extensions=extensions)


def _joined(base_url: str, path: str) -> httpx.URL:
    return httpx.URL(f"{base_url}/{path}")


class _NoCookies(httpx.Cookies):
    """Google's API sets none; looking for them costs 4 % of a small request's processor time."""

    def extract_cookies(self, response: httpx.Response) -> None:
        pass


class _Body(httpx.AsyncByteStream):
    """A request's body in pieces, that can be sent again."""

    def __init__(self, pieces: Sequence[Bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[Any]:
        for piece in self._pieces:
            yield piece


class _Transport(AiohttpTransport):
    """The real network: aiohttp's engine behind httpx's interface, with reads of a size that suits pictures."""

    def __init__(self, proxy: str | None) -> None:
        super().__init__(trust_env=False, proxy=httpx.Proxy(proxy) if proxy else None, client=self._session)

    def _session(self) -> aiohttp.ClientSession:
        # No limit here: the slots are the only place where calls wait.
        connector = aiohttp.TCPConnector(limit=0, ssl=self.ssl_context, socket_factory=_socket)
        return aiohttp.ClientSession(
            connector=connector, read_bufsize=READ_BYTES, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, AiohttpResponseStream)
        response.stream = _LargeReads(response.stream._aiohttp_response)
        return response


class _LargeReads(AiohttpResponseStream):
    """A response's body in large chunks; closed before its end, it closes its connection at once."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # What the socket gave, as it is: reads of a fixed size would cut and join it.
        with map_aiohttp_exceptions():
            async for chunk in self._aiohttp_response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        with map_aiohttp_exceptions():
            self._aiohttp_response.close()


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make a socket that notices a peer that is gone without a word, while Google thinks for minutes."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


async def _start_of(response: httpx.Response) -> bytes:
    """Return what there is of an error's body: its status counts even when the words are cut off."""
    taken = bytearray()
    with suppress(httpx.HTTPError, aiohttp.ClientError, OSError):
        async for chunk in response.aiter_bytes():
            taken += chunk
            if len(taken) > MAX_ERROR_BYTES:
                break
    return bytes(taken[:MAX_ERROR_BYTES])


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the network's errors into ours, by whether the request can have reached Google."""
    try:
        yield
    except (httpx.HTTPError, aiohttp.ClientError, OSError) as error:
        # httpx-aiohttp calls a refused connection and a lost one both ConnectTimeout: only aiohttp's class tells.
        cause = error.__cause__ if isinstance(error.__cause__, aiohttp.ClientError) else error
        raise _translation(cause) from error


def _translation(error: BaseException) -> errors.UpstreamError:
    name = type(error).__name__
    match error:
        case (
            aiohttp.ClientConnectorError()
            | aiohttp.ConnectionTimeoutError()
            | httpx.ConnectError()
            | httpx.ConnectTimeout()
        ):
            return errors.NotConnected(f"No connection to Google could be made ({name}); nothing was sent.")
        case aiohttp.ClientPayloadError() | httpx.ReadError():
            return errors.InvalidAnswer("Google's answer was cut short.")
        case aiohttp.ClientResponseError() | httpx.DecodingError() | httpx.RemoteProtocolError():
            return errors.InvalidAnswer(f"Google's answer is not HTTP ({name}).")
    return errors.UpstreamError(f"The connection to Google was lost after the request was sent ({name}).")
