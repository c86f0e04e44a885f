"""The calls to Google: retries, keys, slots, and what becomes of a call whose caller has gone."""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal

import httpx
import pytest
from msgspec.structs import replace

from banana import errors, metrics
from banana.exchange import Exchange, unknown_limit
from banana.google import wire
from banana.google.client import Call, GeminiClient
from banana.google.contents import GenerateContentRequest, user_turn
from banana.google.key_spend import KeySpend, UnlimitedKeySpend
from banana.google.keys import KeyRing
from banana.google.models import ModelNames
from banana.google.prices import Prices
from banana.google.retries import RetryPolicy
from banana.google.slots import Slots
from banana.google.upstream import Upstream, open_client
from banana.payload.memory import Buffers
from standin import faults
from standin.server import StandIn
from tests.gemini import Gemini
from tests.patience import eventually, soon

pytestmark = pytest.mark.anyio
MODEL = "gemini-3-pro-image"
BODY = GenerateContentRequest([user_turn("a banana")]).body()
UNLIMITED = UnlimitedKeySpend()
CALL = Call(MODEL, f"models/{MODEL}:generateContent", BODY, limit=lambda: Decimal("0.2"))


@dataclass
class Wired:
    """A client with the parts it was given."""

    client: GeminiClient
    keys: KeyRing
    slots: Slots


@asynccontextmanager
async def wired(
    stand_in: StandIn,
    *,
    keys: tuple[str, ...] = ("key-a",),
    slots: tuple[int, int] = (100, 100),
    backoff_seconds: float = 0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    retries: int = 2,
    transport: httpx.AsyncBaseTransport | None = None,
    key_spend: KeySpend = UNLIMITED,
) -> AsyncIterator[Wired]:
    ring, room = KeyRing(keys), Slots(*slots)
    client = GeminiClient(
        google=Upstream(open_client(httpx.Limits(), transport=transport), stand_in.base_url),
        keys=ring,
        slots=room,
        retry_policy=RetryPolicy(retries, backoff_seconds, sleep),
        max_response_bytes=64 << 20,
        models=ModelNames(MODEL, {}),
        prices=Prices(),
        key_spend=key_spend,
        buffers=Buffers(1 << 30),
    )
    try:
        yield Wired(client, ring, room)
    finally:
        await client.close()


def exchange(seconds: float = 5) -> Exchange:
    return Exchange(deadline=asyncio.get_running_loop().time() + seconds)


async def one(wired: Wired, seconds: float = 5) -> wire.Image | wire.Words | BaseException:
    """One image, or what was raised."""
    (outcome,) = await several(wired, 1, seconds)
    return outcome


async def several(wired: Wired, count: int, seconds: float = 5) -> list[wire.Image | wire.Words | BaseException]:
    calls = [wired.client.image(CALL, exchange(seconds)) for _ in range(count)]
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_an_overload_is_repeated_until_it_is_over(stand_in: StandIn) -> None:
    """503 twice, then an image: three calls, one image."""
    stand_in.plan.extend(["503", "503"])
    async with wired(stand_in) as google:
        assert isinstance(await one(google), wire.Image)

    assert len(stand_in.calls) == 3


async def test_the_pause_doubles_and_never_passes_the_deadline(stand_in: StandIn) -> None:
    """With a pause of 0.2 s two repeats wait between 0.3 and 0.6 s; a pause beyond the deadline is not begun."""
    stand_in.plan.extend(["503"] * 6)
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async with wired(stand_in, backoff_seconds=0.2, sleep=pause) as google:
        await one(google)
    async with wired(stand_in, backoff_seconds=60, sleep=pause) as google:
        hurried = await one(google)

    assert 0.3 <= sum(pauses) <= 0.6
    assert isinstance(hurried, errors.UpstreamOverloaded)
    assert len(stand_in.calls) == 4


async def test_a_short_quota_delay_is_waited_for(stand_in: StandIn) -> None:
    """429 with a RetryInfo that fits the deadline is repeated after it."""
    stand_in.plan.append("429-short")
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(seconds)  # for so long the key is not taken

    async with wired(stand_in, sleep=pause) as google:
        assert isinstance(await one(google), wire.Image)

    assert len(pauses) == 1
    assert pauses[0] >= 0.2
    assert len(stand_in.calls) == 2


async def test_a_delay_beyond_the_deadline_is_told_and_later_calls_are_not_sent(stand_in: StandIn) -> None:
    """A long rest is the caller's to wait for; while the only key rests, nobody asks Google."""
    stand_in.plan.append(faults.quota("45.83s"))
    async with wired(stand_in) as google:
        first, second = await one(google), await one(google)

    assert isinstance(first, errors.UpstreamQuota)
    assert first.headers["Retry-After"] == "46"
    assert isinstance(second, errors.UpstreamQuota)
    assert second.headers["Retry-After"] == "46"
    assert len(stand_in.calls) == 1


async def test_one_bad_key_among_three_costs_no_request(stand_in: StandIn) -> None:
    """A refused key is set aside: nine requests, nine images, one wasted call."""
    stand_in.bad_keys = {"key-b"}
    async with wired(stand_in, keys=("key-a", "key-b", "key-c")) as google:
        outcomes = [await one(google) for _ in range(9)]

    assert all(isinstance(outcome, wire.Image) for outcome in outcomes)
    assert [call.key for call in stand_in.calls].count("key-b") == 1


async def test_a_key_at_its_quota_hands_over_to_the_next(stand_in: StandIn) -> None:
    """429 on one key: the request goes on with the other at once."""
    stand_in.plan.append("429-long")
    async with wired(stand_in, keys=("key-a", "key-b")) as google:
        assert isinstance(await one(google), wire.Image)
        assert isinstance(await one(google), wire.Image)

    assert [call.key for call in stand_in.calls] == ["key-a", "key-b", "key-b"]


async def test_a_mended_key_serves_again(stand_in: StandIn) -> None:
    """The only key, refused once, is asked again: a refusal costs nothing."""
    stand_in.plan.append("401")
    async with wired(stand_in) as google:
        assert isinstance(await one(google), errors.RejectedKey)
        assert not google.keys.has_usable_key()
        assert isinstance(await one(google), wire.Image)
        assert google.keys.has_usable_key()


async def test_googles_words_never_hold_a_key(stand_in: StandIn) -> None:
    """Google quotes keys in its messages; callers see a digest."""
    stand_in.plan.append(faults.fails(400, "INVALID_ARGUMENT", "Consumer 'api_key:key-a' is odd."))
    async with wired(stand_in) as google:
        failure = await one(google)

    assert isinstance(failure, errors.InvalidRequest)
    assert "key-a" not in failure.message


async def test_a_refused_connection_is_tried_again_and_told(stand_in: StandIn) -> None:
    """Nobody listens: nothing was sent, so it is repeated; in the end it is a 502 that says so."""
    await stand_in.stop()
    async with wired(stand_in) as google:
        failure = await one(google)

    assert isinstance(failure, errors.NotConnected)
    assert "nothing was sent" in failure.message


@pytest.mark.parametrize(
    ("error", "ours", "requests"),
    [
        (httpx.ConnectError, errors.NotConnected, 3),
        (httpx.ConnectTimeout, errors.NotConnected, 3),
        (httpx.PoolTimeout, errors.NotConnected, 3),
        (httpx.ProxyError, errors.NotConnected, 3),
        (httpx.WriteError, errors.NotConnected, 3),
        (httpx.ReadError, errors.ConnectionLost, 1),
        (httpx.ReadTimeout, errors.ConnectionLost, 1),
        (httpx.CloseError, errors.ConnectionLost, 1),
        (httpx.RemoteProtocolError, errors.CutResponse, 1),
        (httpx.DecodingError, errors.InvalidResponse, 1),
    ],
)
async def test_only_what_was_not_sent_is_repeated(
    stand_in: StandIn, error: type[httpx.RequestError], ours: type[errors.BananaError], requests: int
) -> None:
    """httpx's errors by what they mean for money: a call that was not sent is repeated, one that was lost never is."""
    google = Gemini(*[error("x")] * 3)
    async with wired(stand_in, transport=google.transport) as given:
        assert type(await one(given)) is ours

    assert len(google.requests) == requests


async def test_a_cancelled_stream_ends_its_call(stand_in: StandIn) -> None:
    """Whoever stops reading a stream closes the call to Google, and its slot is free."""
    stand_in.plan.append("hang-inside")
    async with wired(stand_in, slots=(1, 0)) as google:
        call = Call(MODEL, f"models/{MODEL}:streamGenerateContent", BODY)
        parts = google.client.stream(call, exchange())
        await anext(parts)
        await parts.aclose()
        assert isinstance(await one(google), wire.Image)

    assert stand_in.calls[0].aborted


async def test_the_exchange_knows_what_was_tried(stand_in: StandIn) -> None:
    """Attempts, their time and Google's count of tokens are the exchange's."""
    stand_in.plan.append("503")
    async with wired(stand_in) as google:
        known = exchange()
        await google.client.image(CALL, known)

    assert (known.attempts, known.tokens, known.cost_usd) == (2, 1353, Decimal("0.137116"))
    assert known.call_limit is unknown_limit, "what would find it out holds the caller's body"
    assert known.upstream_seconds > 0


async def test_no_room_is_told_at_once(stand_in: StandIn) -> None:
    """Beyond the slots and the line a call is refused at once; those in line are served."""
    stand_in.latency_seconds = 0.3
    async with wired(stand_in, slots=(2, 2)) as google:
        outcomes = await several(google, 6)

    assert [type(outcome).__name__ for outcome in outcomes] == ["Image"] * 4 + ["Overloaded"] * 2
    assert len(stand_in.calls) == 4


async def test_a_cancelled_call_is_closed_and_its_slot_is_free(stand_in: StandIn) -> None:
    """Cancelled while Google thinks, inside the answer, or in line: the connection closes, the slots come back."""
    stand_in.plan.extend(["hang", "hang-inside"])
    async with wired(stand_in, slots=(2, 100)) as google:
        work = asyncio.create_task(several(google, 3))
        while len(stand_in.calls) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        work.cancel()
        await soon(lambda: all(call.aborted for call in stand_in.calls), 0.5)
        outcomes = await several(google, 2)

    assert all(isinstance(outcome, wire.Image) for outcome in outcomes)
    assert google.slots.waiting == 0


async def test_connections_are_used_again(stand_in: StandIn) -> None:
    """Ten calls one after the other make one connection."""
    async with wired(stand_in) as google:
        for _ in range(10):
            await one(google)

    assert len({call.peer for call in stand_in.calls}) == 1


@pytest.mark.parametrize("keys", [("day", "minute"), ("minute", "day")])
async def test_whatever_the_order_of_the_keys_the_soonest_ready_one_serves(
    stand_in: StandIn, keys: tuple[str, str]
) -> None:
    """One key has no quota today, the other none for a moment: the caller waits that moment."""
    plan = {"day": "429-day", "minute": "429-short"}
    stand_in.plan.extend([plan[key] for key in keys])
    async with wired(stand_in, keys=keys) as google:
        assert isinstance(await one(google), wire.Image)


async def test_a_callers_403_condemns_no_key(stand_in: StandIn) -> None:
    """A file of another project is the request's error: one call, and every key stays in turn."""
    stand_in.plan.append(faults.fails(403, "PERMISSION_DENIED", "You do not have permission to access the File x."))
    async with wired(stand_in, keys=tuple(f"key-{n}" for n in range(5))) as google:
        error = await one(google)
        assert isinstance(error, errors.InvalidRequest)
        assert "permission to access the File x" in error.message
        assert google.keys.has_usable_key()
        assert len({(await one(google), stand_in.calls[-1].key)[1] for _ in range(5)}) == 5

    assert len(stand_in.calls) == 6


async def test_resting_keys_are_counted_until_they_rest_no_more(stand_in: StandIn) -> None:
    """The gauge falls by itself, with or without requests."""
    stand_in.plan.append(faults.quota("1s"))
    async with wired(stand_in, retries=0) as google:
        await one(google)
        assert "banana_keys_resting 1.0" in metrics.exposition(None).decode()
        await eventually(lambda: "banana_keys_resting 0.0" in metrics.exposition(None).decode())


def answer_early(listener: socket.socket) -> None:
    """Answer 400 to the head of each request, and reset the connection while the body is still being sent."""
    content = b'{"error":{"code":400,"message":"Request payload size exceeds the limit","status":"INVALID_ARGUMENT"}}'
    with suppress(OSError):
        while True:
            peer, _ = listener.accept()
            with peer:
                received = b""
                while b"\r\n\r\n" not in received:
                    received += peer.recv(65536)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content))
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_an_early_answer_is_believed_before_the_reset(stand_in: StandIn) -> None:
    """Google refuses 20 MB by their head and resets the connection: its words arrive, every time.

    Where the reset is faster than the look at what has come, the call is retried: half a request was not carried out.
    """
    body = [b"x" * (256 << 10)] * 80
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = threading.Thread(target=answer_early, args=(listener,), daemon=True)
        peer.start()
        stand_in.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with wired(stand_in, retries=5) as given:
            for _ in range(20):
                with pytest.raises(errors.InvalidRequest, match="payload size"):
                    await given.client.image(replace(CALL, body=body), exchange())
        listener.shutdown(socket.SHUT_RDWR)
    peer.join(5)


async def test_a_connection_lost_in_the_middle_of_the_body_costs_nothing(stand_in: StandIn) -> None:
    """Google never had the whole request: it is retried; after the last byte it is not."""
    connections: list[int] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await reader.readexactly(1 << 20)
        writer.transport.abort()

    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    stand_in.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with wired(stand_in, retries=2) as given:
        with pytest.raises(errors.NotConnected, match="not processed"):
            await given.client.image(replace(CALL, body=[b"x" * (256 << 10)] * 80), exchange())
    server.close()

    assert len(connections) == 3


@pytest.mark.parametrize("damage", ["short", "trailer"])
async def test_a_response_that_loses_only_its_end_keeps_its_image(stand_in: StandIn, damage: str) -> None:
    """The JSON is whole and the connection ends before its framing does: it was paid for, and it is delivered."""
    content = (
        b'{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgoAAAAA"}}]}}]}'
    )
    framing = b"Content-Length: %d\r\n\r\n%s" % (len(content) + 9, content)
    if damage == "trailer":
        framing = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(content), content)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + framing)
        writer.close()

    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    stand_in.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with wired(stand_in) as given:
        image = await one(given)
    server.close()

    assert isinstance(image, wire.Image)


async def test_another_quota_does_not_rest_the_key_for_images(stand_in: StandIn) -> None:
    """429 for counting tokens or for a model's description says nothing of images."""
    stand_in.plan.append(faults.quota("300s"))
    async with wired(stand_in, retries=0) as given:
        with pytest.raises(errors.UpstreamQuota):
            await given.client.forward(
                Call(MODEL, f"models/{MODEL}:generateContent", BODY, other_quota=":countTokens"), exchange()
            )
        image = await one(given)

    assert isinstance(image, wire.Image)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_delay_without_end_is_a_day(stand_in: StandIn, status: int) -> None:
    """A number of 400 digits is no defect of ours."""
    stand_in.plan.append(faults.fails(status, "RESOURCE_EXHAUSTED", "wait", faults.retry_info("9" * 400 + "s")))
    async with wired(stand_in, retries=0) as given:
        outcome = await one(given)

    assert isinstance(outcome, errors.BananaError)
    assert 86_390 <= int(outcome.headers["Retry-After"]) <= 86_400
