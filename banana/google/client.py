"""The calls to Google: within the deadline, in a slot, with a key, retried only when nothing can have been billed.

One client a worker for life.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

import httpx
import structlog
from msgspec import Struct
from msgspec.structs import replace

from banana import errors, metrics
from banana.errors import UpstreamResponse
from banana.exchange import LEAST_SECONDS, Exchange, unknown_limit
from banana.google import upstream, wire
from banana.google.contents import CostBasis, tier_of
from banana.google.key_spend import KeySpend
from banana.google.keys import Key, KeyRing
from banana.google.models import ModelNames
from banana.google.prices import Prices
from banana.google.retries import RetryPolicy
from banana.google.slots import Slots
from banana.google.upstream import Upstream
from banana.google.usage import Usage, UsageFinder
from banana.payload.beside import beside
from banana.payload.lazyjson import InvalidJson, LazyJsonParser
from banana.payload.memory import Buffers
from banana.payload.pieces import Chunk, Pieces, size_of

# An error's body is a few hundred bytes; of one that is not, this much is read.
MAX_ERROR_BYTES = 64 * 1024
# RFC 9110, section 15: a status is from 100 to 599.
MAX_STATUS = 599
NO_CONTENT = 204
FLEX = "flex"
_FLEX_IS_SHED = (
    "Google sheds calls of the service tier flex first when it is busy; nothing was billed. Repeat the request later, or as a"
    " task, or with service_tier default at twice the price."
)

T = TypeVar("T")
Sink = Callable[[Chunk], object]
Reader = Callable[[httpx.Response, "_Sending"], Awaitable[T]]

log = structlog.get_logger(__name__)


class Call(Struct, frozen=True):
    """A call to Google's API.

    Attributes:
        model: as the log has it; empty where it is no model's.
        path: below the API's address, with its query.
        body: in pieces; they are sent again when the call is retried.
        method: of HTTP.
        in_blocks: whether a response with a length is read in blocks, and not as it arrives.
        other_quota: what it is, where it does not count against the model's quota of images.
        limit: returns what it may cost at the most, in USD; None where that is not known.
        tier: returns the service tier that it asks for, where Google does not say which one served it.
        signed_anew: returns the call with the value that stands for a signature on every part of the model's; None where it
            has none, or is not this service's to change.
        for_model: returns the call to another model; None where there is none.

    """

    model: str
    path: str
    body: Pieces = ()
    method: str = "POST"
    other_quota: str = ""
    limit: Callable[[], Decimal | None] = lambda: None
    tier: Callable[[], str] = lambda: ""
    signed_anew: "Callable[[], Call] | None" = None
    for_model: "Callable[[str], Call] | None" = None
    in_blocks: bool = True

    @property
    def is_billed(self) -> bool:
        """Whether it makes something that is paid for."""
        return bool(self.model) and not self.other_quota

    @property
    def quota(self) -> str:
        """The quota that it counts against: a key at its end rests for this one alone."""
        return self.model + self.other_quota


class GeminiClient:
    """Google's image API.

    Args:
        google: Google's API, over the worker's `httpx.AsyncClient`.
        keys: the API keys of this worker.
        slots: room for calls.
        retry_policy: when a call is retried.
        max_response_bytes: a longer response is an InvalidResponse.
        buffers: where responses are counted while they are in memory.
        models: their names, and which have been shut down.
        prices: of what Google answers.
        key_spend: how much each key may spend.

    """

    def __init__(
        self,
        *,
        google: Upstream,
        keys: KeyRing,
        slots: Slots,
        retry_policy: RetryPolicy,
        max_response_bytes: int,
        buffers: Buffers,
        models: ModelNames,
        prices: Prices,
        key_spend: KeySpend,
    ) -> None:
        self._models = models
        self._prices = prices
        self._key_spend = key_spend
        self._buffers = buffers
        self._google = google
        self._keys = keys
        self._slots = slots
        self._retry_policy = retry_policy
        self._max_response_bytes = max_response_bytes

    async def close(self) -> None:
        """Close all connections."""
        await self._google.aclose()
        await self._key_spend.close()

    def check_room(self) -> None:
        """Return when there is room for one more call. Raises Overloaded."""
        self._slots.check()

    def limit_of(self, model: str, basis: Callable[[], CostBasis]) -> Callable[[], Decimal | None]:
        """Return a function that returns what a call of `generateContent` may cost at the most, in USD."""
        return lambda: self._prices.limit(model, basis())

    async def image(self, call: Call, exchange: Exchange, *, takes_words: bool = False) -> wire.Image | wire.Words:
        """Make a call of `generateContent` once; return its image, or words where they count. Raises BananaError."""

        async def read(response: httpx.Response, sending: _Sending) -> wire.Image | wire.Words:
            parser = wire.ImageParser(takes_words=takes_words)
            try:
                await upstream.read(response, self._counted(parser.feed, exchange), exchange.deadline)
                image = await beside(parser.laborious_bytes, parser.close)
            except _CUT as cut:
                image = await beside(parser.laborious_bytes, _whole_image, parser, cut)
            finally:
                answered = _Answered(parser.model, parser.searches, _tier_header(response))
                tokens = self._read_usage(parser.usage, answered, call, exchange, sending)
            if isinstance(image, wire.Image) and not (tokens and tokens.output):
                sending.cost_usd = None  # nothing that was made is no count for an image
            return replace(image, cost_usd=sending.cost_usd or None, model=parser.model or call.model)

        return await self._call(call, exchange, read)

    async def forward(self, call: Call, exchange: Exchange) -> UpstreamResponse:
        """Make `call`; return the response, held until it is whole. Raises BananaError.

        An error that Google answered holds its response, as it came, in `upstream_response`.
        """

        async def read(response: httpx.Response, sending: _Sending) -> UpstreamResponse:
            finder = UsageFinder()
            pieces: list[Chunk] = []

            def take(chunk: Chunk) -> None:
                finder.feed(chunk)
                pieces.append(chunk)

            try:
                await upstream.read(response, self._counted(take, exchange), exchange.deadline)
            except _CUT as cut:
                if not await _is_whole(pieces):
                    raise
                log.warning("response_cut_behind_its_end", error=cut.message)
            else:
                if not _says_its_length(response) and "json" in _content_type(response) and not await _is_whole(pieces):
                    raise errors.CutResponse("Google's response was cut short.")
            answered = _Answered(finder.model, finder.searches, _tier_header(response))
            self._read_usage(finder.close(), answered, call, exchange, sending)
            return UpstreamResponse(200, _content_type(response), pieces, sending.cost_usd or None)

        return await self._call(call, exchange, read)

    async def stream(self, call: Call, exchange: Exchange) -> AsyncGenerator[UpstreamResponse, None]:
        """Make `call`; yield the response in parts, each as it arrives. Raises BananaError.

        Before the first part the call is retried as any other; after it, an error ends the stream.
        """
        # Unbounded but for the limit of a response: a caller who reads slowly does not let the deadline pass.
        parts: asyncio.Queue[UpstreamResponse | Exception | None] = asyncio.Queue()

        async def read(response: httpx.Response, sending: _Sending) -> None:
            finder, content_type = UsageFinder(), _content_type(response)

            def take(chunk: Chunk) -> None:
                finder.feed(chunk)
                parts.put_nowait(UpstreamResponse(200, content_type, [chunk]))

            try:
                await upstream.read(response, self._counted(take, exchange), exchange.deadline)
            except _CUT as cut:
                if not finder.is_last_event:
                    raise
                log.warning("response_cut_behind_its_end", error=cut.message)
            answered = _Answered(finder.model, finder.searches, _tier_header(response))
            self._read_usage(finder.close(), answered, call, exchange, sending)

        async def work() -> None:
            end: Exception | None = errors.UpstreamError("The call was cancelled.")
            try:
                await self._call(call, exchange, read)
                end = None
            except Exception as error:
                end = error
            finally:
                parts.put_nowait(end)

        task = asyncio.create_task(work())
        try:
            while (part := await parts.get()) is not None:
                if isinstance(part, Exception):
                    raise part
                yield part
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _call(self, call: Call, exchange: Exchange, read: Reader[T]) -> T:
        """Make `call` within the deadline; return what `read` makes of the response."""
        exchange.call_limit = call.limit
        exchange.open_calls += 1
        send_by = min(exchange.send_by, exchange.deadline) if call.is_billed else exchange.deadline
        try:
            async with asyncio.timeout_at(send_by) as timer:
                sending = _Sending(timer, send_by, exchange.deadline)
                return await self._with_retries(call, exchange, read, sending)
        except TimeoutError:
            raise sending.late() from None
        finally:
            exchange.open_calls -= 1
            if not exchange.open_calls:
                exchange.call_limit = unknown_limit  # it holds the caller's body

    async def _with_retries(self, call: Call, exchange: Exchange, read: Reader[T], sending: "_Sending") -> T:
        """Attempt `call` until there is a response, or an error after which it must not be retried."""
        retry = self._retry_policy.begin(sending.send_by)
        tried: dict[Key, errors.BananaError] = {}
        last: Key | None = None  # that answered without an image, unbilled: another is tried first
        while True:
            failure: errors.BananaError
            key = None if tried and sending.is_late else self._keys.take(call.quota, tried, last)
            if key is None:
                failure = self._keys.exhausted_error(call.quota, list(tried.values()))
            else:
                room = None
                try:
                    async with self._slots:
                        if call.is_billed:
                            await exchange.before_sending()
                            room = await self._key_spend.take(key.digest, call.limit)
                        try:
                            with _LoggedAttempt(retry.attempt, key, call, exchange), sending:
                                return await self._attempt(key, call, exchange, read, sending)
                        finally:
                            if call.is_billed:
                                self._key_spend.settle(room, _charged(key, call, exchange, sending))
                except errors.KeySpent as error:
                    tried[key] = error
                    continue
                except (errors.UpstreamQuota, errors.RejectedKey) as error:
                    failure = error
                    if not _is_contention(error):
                        self._set_aside(key, call.quota, error)
                        tried[key] = error
                        continue
                except errors.BananaError as error:
                    failure = error
                    failure.cost_usd = sending.cost_usd or None
                    self._keys.ask_again(key)
                    if (other := self._mended(call, error)) is not None and not sending.is_late:
                        call = other
                        exchange.model, exchange.call_limit = call.model, call.limit
                        continue
                    last = key if error.is_unbilled else None
            await retry.pause_after(failure)
            tried.clear()

    def _mended(self, call: Call, failure: errors.BananaError) -> Call | None:
        """Return the call that may succeed where `call` was refused for nothing; None where there is none."""
        if isinstance(failure, errors.SignatureRefused) and call.signed_anew is not None:
            return call.signed_anew()
        if isinstance(failure, errors.ModelNotFound) and call.for_model is not None and call.is_billed:
            successor = self._models.retire(call.model)
            if successor is not None:
                log.warning("model_retired", model=call.model, successor=successor)
                return call.for_model(successor)
        return None

    def _read_usage(
        self, usage: dict[str, Any] | None, answered: "_Answered", call: Call, exchange: Exchange, sending: "_Sending"
    ) -> Usage | None:
        """Count the tokens of a response, and what they cost by the model that answered; return them, if they are known."""
        if call.is_billed:
            exchange.answered_model = answered.model or call.model
        if usage is None:
            return None
        tokens = Usage.of(usage)
        exchange.tokens += tokens.total
        metrics.tokens.inc(tokens.total)
        model = answered.model if self._prices.of(answered.model) else call.model
        said = answered.tier or usage.get("serviceTier") or usage.get("trafficType")
        tier = tier_of(said) if said else call.tier()
        sending.cost_usd = self._prices.cost(model, tokens, tier=tier, searches=answered.searches)
        return tokens

    def _set_aside(self, key: Key, quota: str, failure: errors.UpstreamQuota | errors.RejectedKey) -> None:
        """Set `key` aside, and count the keys that are, now and again when this one is not."""
        had_money = not key.is_out_of_money
        seconds = self._keys.set_aside(key, quota, failure)
        if key.is_out_of_money and had_money:
            log.error("key_out_of_money", key=key.digest, message=failure.message)
        self._count_keys()
        # A little later than exactly then, so that it is not any more.
        asyncio.get_running_loop().call_later(seconds + 0.1, self._count_keys)

    def _count_keys(self) -> None:
        metrics.keys_resting.set(self._keys.cooling_count())
        metrics.keys_refused.set(self._keys.refused_count())
        metrics.keys_out_of_money.set(self._keys.out_of_money_count())

    async def _attempt(self, key: Key, call: Call, exchange: Exchange, read: Reader[T], sending: "_Sending") -> T:
        """Send `call` once with `key`."""
        response = await self._google.send(
            call.method,
            call.path,
            _headers(key, exchange.deadline),
            call.body,
            sending.before_send,
            in_blocks=call.in_blocks,
        )
        try:
            if not 200 <= response.status_code < 300:
                sending.in_doubt = False
                raise await self._error(response, call)
            sending.is_answered = True
            if self._keys.accepted(key):  # whatever the answer says: Google serves this key
                log.info("key_accepted", key=key.digest)
                self._count_keys()
            if response.status_code == NO_CONTENT:
                raise errors.InvalidResponse("Google answered 204, without a body.")
            sending.end_at(None)  # what the reader has at the deadline may be whole: it decides
            result = await read(response, sending)
            sending.is_unbilled = isinstance(result, wire.Words) and result.is_unbilled
            if not (isinstance(result, wire.Words) and result.is_refusal):
                sending.made_image = True
                # No tokens at all for what was made are no count.
                sending.cost_usd = sending.cost_usd or None
        finally:
            await upstream.close(response)
        return result

    async def _error(self, response: httpx.Response, call: Call) -> errors.BananaError:
        status = response.status_code
        if status > MAX_STATUS:
            return errors.InvalidResponse(f"Google's response has status {status}, which HTTP does not have.")
        body = self._keys.redact((await _read_error_body(response)).decode("utf-8", "replace")).encode()
        error = wire.error_of(status, body)
        if isinstance(error, errors.UpstreamOverloaded) and call.tier() == FLEX:
            error.message += f" {_FLEX_IS_SHED}"
        error.upstream_response = UpstreamResponse(status, _content_type(response), [body])
        return error

    def _counted(self, sink: Sink, exchange: Exchange) -> Sink:
        """Return `sink`, counting what it is given, which raises InvalidResponse when that is too much."""
        left_bytes = self._max_response_bytes

        def take(chunk: Chunk) -> None:
            nonlocal left_bytes
            self._buffers.hold(exchange, len(chunk))
            left_bytes -= len(chunk)
            if left_bytes < 0:
                raise errors.InvalidResponse(
                    f"Google's response has more than {self._max_response_bytes} bytes (MAX_RESPONSE_BYTES)."
                )
            sink(chunk)

        return take


class _Answered(NamedTuple):
    """Who answered a call, and what beside tokens it costs: the model and the tier as Google says, and searches."""

    model: str
    searches: int
    tier: str


def _tier_header(response: httpx.Response) -> str:
    return str(response.headers.get("x-gemini-service-tier", ""))


def _is_contention(error: errors.BananaError) -> bool:
    return isinstance(error, errors.UpstreamQuota) and error.kind is errors.QuotaKind.CONTENTION


class _Sending(Struct):
    """What is known of the last attempt of a call; a context manager around each.

    Attributes:
        timer: ends the call: at `send_by` while nothing is sent, then at `deadline`.
        send_by, deadline: in seconds of the event loop's clock.
        is_sent: whether its first byte was.
        in_doubt: whether it was sent and its response has not come: what the deadline ends then may have been billed.
        is_answered: whether Google answered it with 200.
        is_unbilled: whether that response is certainly free.
        made_image: whether the response was what the caller wants.
        cost_usd: what it cost, where that is known.

    """

    timer: asyncio.Timeout
    send_by: float
    deadline: float
    is_sent: bool = False
    in_doubt: bool = False
    is_answered: bool = False
    is_unbilled: bool = False
    made_image: bool = False
    cost_usd: Decimal | None = None

    @property
    def is_late(self) -> bool:
        """Whether too little time is left to send anything."""
        return asyncio.get_running_loop().time() >= self.send_by

    def before_send(self) -> None:
        """Mark the call as sent: from here on it may be billed. Raises DeadlineExceeded when too little time is left."""
        if self.is_late:
            raise self.late()
        self.is_sent = self.in_doubt = True
        self.end_at(self.deadline)

    def end_at(self, when: float | None) -> None:
        """Let the timer end the call then, unless it is just doing so."""
        if not self.timer.expired():
            self.timer.reschedule(when)

    def late(self) -> errors.DeadlineExceeded:
        """Return the error of a call whose time is over."""
        if not self.is_sent:
            return errors.DeadlineExceeded("Too little time was left to make an image. Nothing was sent to Google.")
        error = errors.DeadlineExceeded("Google did not answer before the deadline; the call was cancelled.")
        error.in_doubt = self.in_doubt
        return error

    @property
    def may_be_billed(self) -> bool:
        """Whether it may have been billed, known or not."""
        return self.in_doubt or (self.is_answered and not self.is_unbilled)

    def __enter__(self) -> None:
        """Begin an attempt, of which nothing is sent."""
        self.is_sent = self.in_doubt = self.is_answered = self.is_unbilled = self.made_image = False
        self.cost_usd = None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End it; what is cancelled stays in doubt."""
        if error is None:
            self.in_doubt = False
        elif isinstance(error, errors.BananaError):
            self.in_doubt, self.is_unbilled = error.in_doubt, error.is_unbilled
            if not error.in_doubt:
                self.end_at(self.send_by)


def _charged(key: Key, call: Call, exchange: Exchange, sending: _Sending) -> Decimal:
    """Count what an attempt cost, and return it, in USD: where that was not learnt, the most it may."""
    if not sending.may_be_billed:
        return Decimal(0)
    exchange.add_cost(sending.cost_usd, made_image=sending.made_image)
    cost = sending.cost_usd if sending.cost_usd is not None else call.limit() or Decimal(0)
    metrics.key_cost_usd.labels(key.digest).inc(float(cost))
    return cost


class _LoggedAttempt:
    """A context manager around one attempt, which counts it and logs how it ended."""

    __slots__ = ("_exchange", "_fields", "_started_at")

    def __init__(self, number: int, key: Key, call: Call, exchange: Exchange) -> None:
        self._fields: dict[str, object] = {"attempt": number, "model": call.model, "key": key.digest}
        self._exchange = exchange

    def __enter__(self) -> None:
        """Begin."""
        self._started_at = time.perf_counter()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End."""
        seconds = time.perf_counter() - self._started_at
        outcome = _outcome_of(error)
        self._exchange.count_attempt(seconds)
        metrics.upstream_calls.labels(outcome).inc()
        metrics.upstream_seconds.observe(seconds)
        self._fields |= {"outcome": outcome, "duration_ms": round(seconds * 1000, 1)}
        log.info("upstream_attempt", **self._fields)


def _outcome_of(error: BaseException | None) -> str:
    """Return how an attempt ended, for log and metrics."""
    if error is None:
        return "ok"
    if isinstance(error, errors.BananaError):
        return error.code
    return errors.Internal.code if isinstance(error, Exception) else "cancelled"


# What ends the reading of a response of which everything may have come.
_CUT = (errors.UpstreamError, errors.DeadlineExceeded)


def _says_its_length(response: httpx.Response) -> bool:
    """Return whether a response that was cut is known by its length; one without ends with its connection."""
    return "content-length" in response.headers or "transfer-encoding" in response.headers


async def _is_whole(pieces: Pieces) -> bool:
    """Return whether a response whose end was lost is whole all the same: JSON says where it ends."""

    def parse() -> bool:
        parser = LazyJsonParser(lenient=True)
        try:
            for piece in pieces:
                parser.feed(bytes(piece))
            parser.close()
        except InvalidJson:
            return False
        return True

    return await beside(size_of(pieces), parse)


def _whole_image(parser: wire.ImageParser, cut: errors.BananaError) -> wire.Image | wire.Words:
    """Return the image of a response whose end was lost, when that was only the connection's. Raises `cut`."""
    try:
        image = parser.close()
    except errors.BananaError:
        raise cut from None
    log.warning("response_cut_behind_its_end", error=cut.message)
    return image


def _headers(key: Key, deadline: float) -> tuple[tuple[bytes, bytes], ...]:
    left_seconds = deadline - asyncio.get_running_loop().time()
    return (
        (b"x-goog-api-key", key.secret.encode()),
        (b"Content-Type", b"application/json"),
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", b"banana-service"),
        (b"X-Server-Timeout", b"%d" % max(LEAST_SECONDS, math.ceil(left_seconds))),
    )


def _content_type(response: httpx.Response) -> str:
    content_type = (response.headers.get_list("content-type") or [""])[-1]
    return content_type if content_type.isascii() and content_type.isprintable() else "application/octet-stream"


class _EnoughError(Exception):
    """As much was read as is wanted."""


async def _read_error_body(response: httpx.Response) -> bytes:
    """Return what there is of an error's body: its status counts even when the body is cut short."""
    start = bytearray()

    def take(chunk: Chunk) -> None:
        start.extend(chunk)
        if len(start) > MAX_ERROR_BYTES:
            raise _EnoughError

    with suppress(errors.UpstreamError, _EnoughError):
        await upstream.read(response, take)  # one that stalls says enough by then
    return bytes(start[:MAX_ERROR_BYTES])
