"""The SDKs of OpenAI and Google, unmodified, pointed here by address and token alone."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from google import genai
from google.genai import errors as google_errors
from google.genai import types

from banana.app import create_app
from standin import faults
from standin.server import StandIn
from tests.conftest import served, settings_for
from tests.pictures import opened, png

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    # google-genai's own business with aiohttp.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]
TOKEN = "anna-token"
MODEL = "gemini-3-pro-image"


@asynccontextmanager
async def address_of(stand_in: StandIn, **settings: Any) -> AsyncIterator[str]:
    given = {"access_tokens": (f"anna:{TOKEN}",), "rate_limit_per_minute": 1000}
    async with served(create_app(settings_for(stand_in, **given | settings))) as address:
        yield address


@pytest.fixture
async def of_openai(stand_in: StandIn) -> AsyncIterator[openai.AsyncOpenAI]:
    async with address_of(stand_in) as address, openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=TOKEN) as client:
        yield client


@asynccontextmanager
async def google_client(address: str, token: str = TOKEN) -> AsyncIterator[Any]:
    client = genai.Client(api_key=token, http_options=types.HttpOptions(base_url=address))
    async with client.aio as aio:
        yield aio
    client.close()


async def test_openai_makes_pictures(of_openai: openai.AsyncOpenAI, stand_in: StandIn) -> None:
    """Two pictures of a size, their usage, and the call that Google saw."""
    made = await of_openai.images.generate(model="gpt-image-1", prompt="a banana", n=2, size="1792x1024", user="anna")

    assert [opened(base64.b64decode(image.b64_json or "")).size for image in made.data or []] == [(1360, 768)] * 2
    assert made.created > 1_700_000_000
    assert made.usage
    assert (made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens) == (16, 2690, 2706)
    assert stand_in.calls[0].model == MODEL
    assert stand_in.calls[0].body["generationConfig"]["imageConfig"] == {"aspectRatio": "16:9", "imageSize": "1K"}


@pytest.mark.parametrize("count", [1, 3])
async def test_openai_edits_pictures(of_openai: openai.AsyncOpenAI, stand_in: StandIn, count: int) -> None:
    """One picture and three arrive at Google as they were, in their order."""
    pictures = [png(colour) for colour in ("red", "green", "blue")[:count]]

    made = await of_openai.images.edit(
        model=MODEL, prompt="mix", image=pictures[0] if count == 1 else pictures, response_format="b64_json"
    )

    parts = stand_in.calls[0].body["contents"][0]["parts"][1:]
    assert [part["inlineData"]["data"] for part in parts] == [
        base64.b64encode(picture).decode() for picture in pictures
    ]
    assert opened(base64.b64decode((made.data or [])[0].b64_json or ""))


async def test_openai_gets_the_format_and_the_form_it_names(of_openai: openai.AsyncOpenAI) -> None:
    """A PNG when it asks for PNG, a link when it asks for a URL."""
    made = await of_openai.images.generate(prompt="x", model=MODEL, output_format="png", response_format="url")

    url = (made.data or [])[0].url or ""
    async with httpx.AsyncClient() as browser:
        assert opened((await browser.get(url)).content).format == "PNG"


async def test_openai_with_a_key_is_carried_out_once(of_openai: openai.AsyncOpenAI, stand_in: StandIn) -> None:
    """Given as an extra header: a repeat is the same pictures; its own retries change nothing."""
    key = {"Idempotency-Key": "sdk-1"}
    stand_in.plan.append("hang-up")
    with pytest.raises(openai.APIStatusError) as unknown:
        await of_openai.with_options(max_retries=2).images.generate(prompt="x", model=MODEL, extra_headers=key)
    key = {"Idempotency-Key": "sdk-2"}
    first = await of_openai.images.generate(prompt="x", model=MODEL, extra_headers=key)
    again = await of_openai.images.with_raw_response.generate(prompt="x", model=MODEL, extra_headers=key)

    assert unknown.value.code == "outcome_unknown"
    assert again.parse() == first
    assert again.headers["idempotent-replayed"] == "true"
    assert len(stand_in.calls) == 2


async def test_openai_streams(of_openai: openai.AsyncOpenAI, stand_in: StandIn) -> None:
    """Streaming gives OpenAI's own events, and its own exception when there is no picture."""
    stream = await of_openai.images.generate(prompt="x", model=MODEL, stream=True, partial_images=2)
    events = [event async for event in stream]
    stand_in.plan.append("image-safety")
    with pytest.raises(openai.BadRequestError, match="Unable to show"):
        await of_openai.images.generate(prompt="x", model=MODEL, stream=True)

    assert [event.type for event in events] == ["image_generation.completed"]
    assert opened(base64.b64decode(events[0].b64_json)).format == "JPEG"


async def test_openai_lists_models(of_openai: openai.AsyncOpenAI) -> None:
    """The image models, and one of them by OpenAI's name."""
    listed = [model.id async for model in await of_openai.models.list()]

    assert MODEL in listed
    assert "gemini-3-flash" not in listed
    assert (await of_openai.models.retrieve("gpt-image-1")).id == MODEL
    with pytest.raises(openai.NotFoundError):
        await of_openai.models.retrieve("gpt-9")


@pytest.mark.parametrize(
    ("fault", "exception", "calls"),
    [
        ("image-safety", openai.BadRequestError, 1),
        ("404", openai.NotFoundError, 1),
        ("429", openai.RateLimitError, 1),
        ("413", openai.APIStatusError, 1),
        ("503", openai.InternalServerError, 3),
        ("401", openai.InternalServerError, 1),
        ("text-only", openai.APIStatusError, 1),
        ("reset", openai.APIStatusError, 1),
    ],
)
async def test_openais_exceptions_come_out_and_nothing_is_multiplied(
    of_openai: openai.AsyncOpenAI, stand_in: StandIn, fault: str, exception: type[Exception], calls: int
) -> None:
    """Each failure is the SDK's own exception, and Google is called no oftener than our table says."""
    stand_in.plan.extend([fault] * 9)

    with pytest.raises(exception):
        await of_openai.images.generate(prompt="x", model=MODEL)

    assert len(stand_in.calls) == calls


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"background": "transparent"}, "background"),
        ({"quality": "endless"}, "quality"),
        ({"output_format": "svg"}, "output_format"),
        ({"size": "huge"}, "size"),
        ({"n": 11}, "n"),
        ({"extra_body": {"strength": 3}}, "strength"),
    ],
)
async def test_openai_is_told_what_cannot_be_honoured(
    of_openai: openai.AsyncOpenAI, stand_in: StandIn, given: dict[str, Any], param: str
) -> None:
    """400, the parameter named, nothing paid for."""
    with pytest.raises(openai.BadRequestError) as caught:
        await of_openai.images.generate(prompt="x", model=MODEL, **given)

    assert caught.value.param == param
    assert not stand_in.calls


@pytest.mark.parametrize("body", [{"prompt": "x"}, {"prompt": "x", "image": None}, {"prompt": "x", "image": []}])
async def test_an_edit_without_a_picture_names_it(of_openai: openai.AsyncOpenAI, body: dict[str, Any]) -> None:
    """An edit needs something to edit."""
    with pytest.raises(openai.BadRequestError) as caught:
        await of_openai.post("/images/edits", body=body, cast_to=object)

    assert caught.value.param == "image"


async def test_openai_is_refused_a_mask_a_wrong_token_and_too_many_requests(stand_in: StandIn) -> None:
    """A mask, a wrong token, a request over the rate limit and a body over the limit are the SDK's own exceptions."""
    async with address_of(stand_in, rate_limit_per_minute=2, max_request_bytes=5000) as address:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="wrong") as stranger:
            with pytest.raises(openai.AuthenticationError):
                await stranger.images.generate(prompt="x", model=MODEL)
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=TOKEN) as client:
            with pytest.raises(openai.BadRequestError, match="mask"):
                await client.images.edit(prompt="x", model=MODEL, image=png(), mask=png())
            with pytest.raises(openai.APIStatusError, match="5000 bytes"):
                await client.images.generate(prompt="x" * 9000, model=MODEL)
            with pytest.raises(openai.RateLimitError):
                await client.images.generate(prompt="x", model=MODEL)

    assert not stand_in.calls


async def test_google_makes_pictures_from_words_and_pictures(stand_in: StandIn) -> None:
    """generate_content with one and with three pictures, retired model name and all; the caller's token stays here."""
    async with address_of(stand_in) as address, google_client(address) as client:
        for count in (0, 1, 3):
            pictures = [
                types.Part.from_bytes(data=png(c), mime_type="image/png") for c in ("red", "green", "blue")[:count]
            ]
            made = await client.models.generate_content(
                model="gemini-3-pro-image-preview",
                contents=["a banana", *pictures],
                config=types.GenerateContentConfig(response_modalities=["IMAGE"]),
            )
            assert opened(made.candidates[0].content.parts[0].inline_data.data).size == (1024, 1024)
        listed = [model.name async for model in await client.models.list()]
        counted = await client.models.count_tokens(model=MODEL, contents="one two three")

    assert {call.model for call in stand_in.calls} == {MODEL}
    assert TOKEN not in str([call.headers for call in stand_in.calls])
    assert f"models/{MODEL}" in listed
    assert counted.total_tokens == 3


async def test_google_streams_each_part_as_it_arrives(stand_in: StandIn) -> None:
    """The first part is here before the picture is made."""
    stand_in.latency_seconds = 0.3
    async with address_of(stand_in) as address, google_client(address) as client:
        stream = await client.models.generate_content_stream(model=MODEL, contents="a banana")
        parts = [chunk.candidates[0].content.parts[0] async for chunk in stream]

    assert parts[0].text == "Drawing…"
    assert opened(parts[1].inline_data.data).size == (1024, 1024)


@pytest.mark.parametrize(
    ("fault", "exception", "code", "calls"),
    [
        ("400", google_errors.ClientError, 400, 1),
        ("404", google_errors.ClientError, 404, 1),
        ("429", google_errors.ClientError, 429, 1),
        ("503", google_errors.ServerError, 503, 3),
        ("401", google_errors.ClientError, 401, 1),
        ("reset", google_errors.ServerError, 502, 1),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_googles_errors_pass_as_they_are_and_nothing_is_multiplied(
    stand_in: StandIn, fault: str, exception: type[Exception], code: int, calls: int, streamed: bool
) -> None:
    """The SDK's own exceptions with Google's own codes, streamed or not."""
    stand_in.plan.extend([fault] * 9)
    async with address_of(stand_in) as address, google_client(address) as client:

        async def ask() -> None:
            if not streamed:
                await client.models.generate_content(model=MODEL, contents="x")
                return
            async for _ in await client.models.generate_content_stream(model=MODEL, contents="x"):
                pass

        with pytest.raises(exception) as caught:
            await ask()

    assert caught.value.code == code  # type: ignore[attr-defined]
    assert len(stand_in.calls) == calls


async def test_an_empty_answer_of_googles_is_passed_as_it_is(stand_in: StandIn) -> None:
    """A 200 without a body is whole: the server has nothing to complain of."""
    stand_in.plan.append("empty")
    headers = {"x-goog-api-key": TOKEN}
    async with address_of(stand_in) as address, httpx.AsyncClient(base_url=address, headers=headers) as client:
        path = f"/v1beta/models/{MODEL}:generateContent"
        empty = await client.post(path, json={"contents": [{"parts": [{"text": "x"}]}]})

    assert (empty.status_code, empty.content) == (200, b"")
    assert "without completing" not in Path("logs/app.log").read_text(encoding="utf-8")


async def test_a_blocked_prompt_is_googles_answer_as_it_is(stand_in: StandIn) -> None:
    """Google's route passes a refusal as the 200 it is."""
    stand_in.plan.append("blocked")
    async with address_of(stand_in) as address, google_client(address) as client:
        made = await client.models.generate_content(model=MODEL, contents="x")

    assert made.prompt_feedback.block_reason == "PROHIBITED_CONTENT"


async def test_google_is_refused_a_wrong_token_and_too_many_requests(stand_in: StandIn) -> None:
    """Ours come in Google's shape; one rate limit counts both API formats."""
    async with address_of(stand_in, rate_limit_per_minute=2) as address:
        async with google_client(address, "wrong") as stranger:
            with pytest.raises(google_errors.ClientError) as unauthorized:
                await stranger.models.generate_content(model=MODEL, contents="x")
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=TOKEN) as other:
            await other.images.generate(prompt="x", model=MODEL)
        async with google_client(address) as client:
            await client.models.generate_content(model=MODEL, contents="x")
            with pytest.raises(google_errors.ClientError) as limited:
                await client.models.generate_content(model=MODEL, contents="x")

    assert (unauthorized.value.code, unauthorized.value.status) == (401, "UNAUTHENTICATED")
    assert (limited.value.code, limited.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert len(stand_in.calls) == 2


async def test_a_key_of_ours_that_google_quotes_is_not_passed_on(stand_in: StandIn) -> None:
    """Google's words pass, our key in them does not."""
    stand_in.plan.append(faults.fails(403, "PERMISSION_DENIED", "Consumer 'api_key:test-key-1' has been suspended."))
    async with address_of(stand_in) as address, google_client(address) as client:
        with pytest.raises(google_errors.ClientError, match="has been suspended") as caught:
            await client.models.generate_content(model=MODEL, contents="x")

    assert "test-key-1" not in str(caught.value)


async def test_openai_chats_with_pictures(of_openai: openai.AsyncOpenAI, stand_in: StandIn) -> None:
    """Whole and as a stream; the message goes back as the SDK holds it, its picture as the model's part."""
    messages: list[Any] = [{"role": "user", "content": "a banana"}]
    made = await of_openai.chat.completions.create(model=MODEL, messages=messages)
    message = made.choices[0].message
    messages += [message.model_dump(exclude_none=True), {"role": "user", "content": "at night"}]
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
    stream = await of_openai.chat.completions.create(model=MODEL, messages=messages, **options)
    chunks = [chunk async for chunk in stream]

    assert (message.content, made.choices[0].finish_reason) == ("Here it is.", "stop")
    assert made.usage
    assert made.usage.completion_tokens_details
    assert made.usage.completion_tokens_details.reasoning_tokens == 225
    assert stand_in.calls[1].body["contents"][1]["role"] == "model"
    images = [getattr(choice.delta, "images", None) for chunk in chunks for choice in chunk.choices]
    assert len([found for found in images if found]) == 2
    assert {choice.finish_reason for chunk in chunks for choice in chunk.choices} == {None, "stop"}
    assert chunks[-1].usage is not None


async def test_openai_responds_with_typed_events(of_openai: openai.AsyncOpenAI) -> None:
    """Each event is the SDK's own type; the SDK's helper puts the same response together."""
    tools: list[Any] = [{"type": "image_generation", "quality": "low"}]
    made = await of_openai.responses.create(model="gpt-5.5", input="a banana", tools=tools)
    stream = await of_openai.responses.create(model="gpt-5.5", input="a banana", tools=tools, stream=True)
    names = [type(event).__name__ async for event in stream]
    async with of_openai.responses.stream(model="gpt-5.5", input="a banana", tools=tools) as helper:
        async for _ in helper:
            pass
        final = await helper.get_final_response()

    assert names == [
        "ResponseCreatedEvent",
        "ResponseInProgressEvent",
        "ResponseOutputItemAddedEvent",
        "ResponseImageGenCallInProgressEvent",
        "ResponseImageGenCallGeneratingEvent",
        "ResponseImageGenCallCompletedEvent",
        "ResponseOutputItemDoneEvent",
        "ResponseOutputItemAddedEvent",
        "ResponseContentPartAddedEvent",
        "ResponseTextDoneEvent",
        "ResponseContentPartDoneEvent",
        "ResponseOutputItemDoneEvent",
        "ResponseCompletedEvent",
    ]
    for response in (made, final):
        item, message = response.output
        assert message.type == "message"
        assert item.type == "image_generation_call"
        assert opened(item.result or "").size == (1024, 1024)


async def test_openai_polls_a_response_and_goes_on_from_it(of_openai: openai.AsyncOpenAI, stand_in: StandIn) -> None:
    """In the background, then by previous_response_id; cancelled and deleted by its id."""
    tools: list[Any] = [{"type": "image_generation"}]
    made = await of_openai.responses.create(model="gpt-5.5", input="a banana", tools=tools, background=True)
    async with asyncio.timeout(20):
        while made.status in ("queued", "in_progress"):
            await asyncio.sleep(0.02)
            made = await of_openai.responses.retrieve(made.id)
    await of_openai.responses.create(model="gpt-5.5", input="night", tools=tools, previous_response_id=made.id)
    cancelled = await of_openai.responses.cancel(made.id)
    await of_openai.responses.delete(made.id)

    assert (made.status, cancelled.status) == ("completed", "completed")
    assert [content["role"] for content in stand_in.calls[1].body["contents"]] == ["user", "model", "user"]
    with pytest.raises(openai.NotFoundError):
        await of_openai.responses.retrieve(made.id)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "exception", "calls"),
    [("400", openai.BadRequestError, 1), ("429", openai.RateLimitError, 1), ("503", openai.InternalServerError, 3)],
)
async def test_openais_exceptions_come_out_of_conversations(
    of_openai: openai.AsyncOpenAI, stand_in: StandIn, fault: str, exception: type[Exception], calls: int, stream: bool
) -> None:
    """Before the first byte an error keeps its status, streamed or not, and nothing is multiplied."""
    stand_in.plan.extend([fault] * 9)
    words: list[Any] = [{"role": "user", "content": "x"}]
    with pytest.raises(exception):
        await of_openai.chat.completions.create(model=MODEL, messages=words, stream=stream)
    with pytest.raises(exception):
        await of_openai.responses.create(model=MODEL, input="x", stream=stream)

    # After 429 the key cools down: the second request is not sent.
    assert len(stand_in.calls) == (calls if fault == "429" else 2 * calls)


async def test_one_rate_limit_and_one_budget_for_every_format(stand_in: StandIn) -> None:
    """Chat, responses, images and predict spend of the same; what is refused reaches nobody."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        address_of(stand_in, budgets="anna=0.5/day") as address,
        httpx.AsyncClient(base_url=address, headers=headers) as client,
    ):
        sent: list[tuple[str, dict[str, Any]]] = [
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
            ("/v1/responses", {"input": "x"}),
            ("/v1/images", {"prompt": "x"}),
            (f"/v1/models/{MODEL}:predict", {"instances": [{"prompt": "x"}]}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stream": True}),
            ("/v1/responses", {"input": "x", "stream": True}),
        ]
        responses = [await client.post(path, json=body) for path, body in sent]

    assert [response.status_code for response in responses] == [200, 200, 200, 402, 402, 402]
    assert responses[3].json()["error"]["status"] == "FAILED_PRECONDITION"
    assert responses[4].json()["error"]["code"] == "budget_exceeded"
    assert len(stand_in.calls) == 3
    remaining = [int(response.headers["x-ratelimit-remaining"]) for response in responses]
    assert remaining == list(range(999, 993, -1))
