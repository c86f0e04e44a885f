"""The use case: an order becomes outcomes, and nothing that goes wrong in one takes another with it."""

import asyncio
import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from PIL import Image as PILImage

from banana import errors
from banana.exchange import Exchange
from banana.google.client import GeminiClient
from banana.google.contents import user_turn
from banana.google.key_spend import UnlimitedKeySpend
from banana.google.keys import KeyRing
from banana.google.models import ModelNames
from banana.google.prices import Prices
from banana.google.retries import RetryPolicy
from banana.google.slots import Slots
from banana.google.upstream import Upstream, open_client
from banana.images import Images, Order, Outcome, Outcomes
from banana.intervals import Intervals
from banana.payload.memory import Buffers
from banana.payload.pictures import EncodedPicture
from tests.gemini import BASE_URL, Gemini, answered
from tests.pictures import opened, png

pytestmark = pytest.mark.anyio
PRICES = Prices()


def images_of(google: Gemini, **options: Any) -> Images:
    names = ModelNames("default-model", {"old": "new"})
    client = GeminiClient(
        google=Upstream(open_client(httpx.Limits(), transport=google.transport), BASE_URL),
        keys=KeyRing(["k"]),
        slots=Slots(10, 10),
        retry_policy=RetryPolicy(2, 0),
        max_response_bytes=1 << 20,
        buffers=Buffers(1 << 30),
        models=names,
        prices=PRICES,
        key_spend=UnlimitedKeySpend(),
    )
    return Images(
        client, names, ThreadPoolExecutor(1), **{"google_store": None, "log_prompts": False, "prices": PRICES} | options
    )


def exchange(seconds: float = 5) -> Exchange:
    return Exchange(deadline=asyncio.get_running_loop().time() + seconds)


async def streamed(made: Images, order: Order, known: Exchange) -> list[Outcome | None]:
    async with aclosing(made.stream(order, known)) as outcomes:
        return [outcome async for outcome in outcomes]


BLOCKED = {"promptFeedback": {"blockReason": "OTHER"}}


async def test_an_order_becomes_its_outcomes_in_their_order() -> None:
    """Three calls, the second refused: two images and an error, each at its index, all counted."""
    google, known = Gemini(b"one", httpx.Response(200, json=BLOCKED), b"three"), exchange()

    outcomes = await images_of(google).make(Order([user_turn("x")], count=3, model_name="old", user="u"), known)

    assert [b"".join(image.picture.decoded()) for image in outcomes.images] == [b"one", b"three"]
    assert [(failure.index, type(failure.error)) for failure in outcomes.failures] == [(1, errors.Blocked)]
    assert (known.model, known.user, known.prompt) == ("new", "u", None)
    assert (known.images_requested, known.images_returned, known.attempts) == (3, 2, 3)


async def test_when_none_succeeds_the_first_error_is_raised() -> None:
    """The error is that of the first call."""
    google, known = Gemini(httpx.Response(200, json=BLOCKED), httpx.Response(404, json={})), exchange()

    with pytest.raises(errors.Blocked):
        await images_of(google).make(Order([user_turn("x")], count=2), known)

    assert known.images_returned == 0


UNEXPECTED = [
    ZeroDivisionError("nobody expected this"),
    httpx.Response(200, content=b'{"candidates":' + b"[" * 600 + b"]" * 600 + b"}"),
    httpx.Response(200, content=b'{"usageMetadata":{"totalTokenCount":%s},"candidates":[]}' % (b"9" * 400)),
    httpx.Response(429, json={"error": {"details": [{"retryDelay": "9" * 400 + "s"}]}}),
]


@pytest.mark.parametrize("unexpected", UNEXPECTED, ids=["exception", "nested", "tokens", "delay"])
@pytest.mark.parametrize("as_events", [False, True])
async def test_what_nobody_expected_stays_in_its_own_outcome(unexpected: Any, as_events: bool) -> None:
    """Four are asked for and one goes wrong in a way of its own: the other three arrive."""
    google, known = Gemini(b"one", unexpected), exchange()
    made = images_of(google)

    if as_events:
        outcomes = [outcome for outcome in await streamed(made, Order([user_turn("x")], count=4), known) if outcome]
    else:
        outcomes = list((await made.make(Order([user_turn("x")], count=4), known)).all)

    assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2, 3]
    assert [failure.index for failure in Outcomes(outcomes).failures] == [1]
    assert known.images_returned == 3


async def test_a_defect_is_internal() -> None:
    """An exception of ours is `internal`, and nothing of it reaches the caller."""
    with pytest.raises(errors.Internal) as caught:
        await images_of(Gemini(ZeroDivisionError("secret"))).make(Order([user_turn("x")]), exchange())

    assert "secret" not in caught.value.message


async def test_silence_is_broken() -> None:
    """While nothing is there yet, None is given again and again."""

    async def slow(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.2)
        return answered()

    made = images_of(Gemini(side_effect=slow), intervals=Intervals(silence=0.01))
    outcomes = await streamed(made, Order([user_turn("x")]), exchange())

    assert outcomes[:2] == [None, None]
    assert outcomes[-1] is not None


async def test_a_stream_that_is_closed_ends_its_calls() -> None:
    """Whoever leaves after the first image cancels the others."""
    cancelled = asyncio.Event()

    async def one_and_no_more(_: httpx.Request) -> httpx.Response:
        if google.requests:
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()
        return answered()

    google = Gemini(side_effect=one_and_no_more)
    stream = images_of(google).stream(Order([user_turn("x")], count=2), exchange())
    await anext(stream)
    await stream.aclose()

    await asyncio.wait_for(cancelled.wait(), 5)


async def test_another_format_is_made_from_what_came() -> None:
    """A PNG becomes a WebP; its type and its base64 say so."""
    outcomes = await images_of(Gemini()).make(
        Order([user_turn("x")], output_format="webp", output_quality=40), exchange()
    )

    (image,) = outcomes.images
    assert image.mime_type == "image/webp"
    assert opened(b"".join(image.picture.decoded())).format == "WEBP"


@pytest.mark.parametrize("picture", [b"no picture", png()[:45], b"\x89PNG\r\n\x1a\n" + bytes(99)])
async def test_a_picture_that_cannot_be_converted_comes_as_it_is(picture: bytes) -> None:
    """It was paid for: whatever Pillow raises, the caller gets what Google sent."""
    outcomes = await images_of(Gemini(picture)).make(Order([user_turn("x")], output_format="jpeg"), exchange())

    assert b"".join(outcomes.images[0].picture.decoded()) == picture


async def test_a_decompression_bomb_is_no_reason_to_lose_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's refusal of what it finds too large is no OSError."""
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1)

    outcomes = await images_of(Gemini()).make(Order([user_turn("x")], output_format="jpeg"), exchange())

    assert b"".join(outcomes.images[0].picture.decoded()) == png()


async def test_prompts_are_kept_for_the_log_only_where_that_is_wanted() -> None:
    """LOG_PROMPTS puts the prompt into the exchange."""
    known = exchange()
    await images_of(Gemini(), log_prompts=True).make(Order([user_turn("a blue banana")]), known)

    assert known.prompt == "a blue banana"


async def test_the_call_is_what_the_order_says() -> None:
    """Ratio, size, pictures and Google's store flag reach Google."""
    google = Gemini()
    picture = EncodedPicture("image/png", [b"QUJD"], b"ABC")
    await images_of(google, google_store=False).make(
        Order([user_turn("x", [picture])], 1, None, "16:9", "2K"), exchange()
    )

    (request,) = google.requests
    assert request.url == f"{BASE_URL}/models/default-model:generateContent"
    body = await request.aread()
    assert b'"data":"QUJD"' in body
    assert b'"imageConfig":{"aspectRatio":"16:9","imageSize":"2K"}' in body
    assert b'"store":false' in body
    assert base64.b64decode("QUJD") == b"ABC"


async def test_only_so_many_pictures_are_converted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: an order of many images decodes no more of them at once than there are threads."""
    running, most = 0, 0

    def slow(picture: EncodedPicture, output_format: str, quality: int) -> EncodedPicture:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.02)
        running -= 1
        return picture

    monkeypatch.setattr("banana.payload.conversion.convert", slow)
    await images_of(Gemini()).make(Order([user_turn("x")], count=8, output_format="webp"), exchange())

    assert most == 1


@pytest.mark.parametrize(
    ("sent", "output_format", "quality", "expected"),
    [
        ("jpeg", None, None, "as it came"),
        ("jpeg", "jpeg", None, "as it came"),
        ("png", "png", 10, "as it came"),
        ("png", None, 10, "JPEG"),
        ("jpeg", None, 10, "JPEG"),
        ("jpeg", "jpeg", 0, "JPEG"),
        ("png", "webp", 0, "WEBP"),
    ],
)
async def test_a_compression_is_honoured_whenever_it_means_something(
    sent: str, output_format: str | None, quality: int | None, expected: str
) -> None:
    """Also for the format that Google sent, also 0; a PNG has none, so that one becomes a JPEG unless PNG is named."""
    out = io.BytesIO()
    PILImage.effect_noise((64, 64), 90).save(out, sent, **({"quality": 95} if sent == "jpeg" else {}))
    order = Order([user_turn("x")], output_format=output_format, output_quality=quality)

    (image,) = (await images_of(Gemini(out.getvalue())).make(order, exchange())).images

    data = b"".join(image.picture.decoded())
    if expected == "as it came":
        assert data == out.getvalue()
    else:
        assert (opened(data).format, len(data) < len(out.getvalue())) == (expected, True)
