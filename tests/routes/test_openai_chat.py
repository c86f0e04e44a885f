"""OpenAI's chat completions; what real clients make of them: test_sdks, test_npm and test_python_clients."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from banana.app import create_app
from banana.payload.lazyjson import LazyJsonParser
from banana.results.fingerprints import fields_of, fingerprint_of
from banana.routes.deps import Context
from banana.routes.image_endpoint import order_pieces
from banana.routes.openai_chat import ChatRequest, order_of
from standin import faults
from standin.server import StandIn, signature
from tests.conftest import client_of, served, settings_for
from tests.pictures import encoded, opened, png, signed

pytestmark = pytest.mark.anyio
BLOCKED = "Google blocked the prompt because its content is prohibited. Change the prompt or the input images."
CHAT = "/v1/chat/completions"
KEY = {"Idempotency-Key": "chat-1"}


def says(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def data_uri(picture: bytes, mime_type: str = "image/png") -> str:
    return f"data:{mime_type};base64,{encoded(picture)}"


def shown(picture: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_uri(picture), "detail": "auto"}}


def picture_of(image: dict[str, Any]) -> bytes:
    """The picture of an item of `images[]`."""
    assert image["type"] == "image_url"
    start, _, base64_text = image["image_url"]["url"].partition(",")
    assert start == "data:image/jpeg;base64"
    return base64.b64decode(base64_text, validate=True)


def events_of(text: str) -> list[dict[str, Any]]:
    """The chunks of a stream, whose end is there."""
    lines = [line for line in text.split("\n") if not line.startswith(":")]
    *events, done, rest = "\n".join(lines).split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


async def late(request: Request, picture: str) -> Response:
    await asyncio.sleep(0.3)
    return faults.error(400, "INVALID_ARGUMENT", "No.")


def read(body: dict[str, Any]) -> ChatRequest:
    """The body as it is read from the wire."""
    parser = LazyJsonParser()
    parser.feed(json.dumps(body).encode())
    return ChatRequest.model_validate(parser.close(), strict=True)


async def test_words_and_pictures_come_as_a_completion(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """The shape that chat applications read: the message, `images[]`, why it ended, tokens by modality, and what it cost."""
    made = (await client.post(CHAT, json={"model": "gemini-3-pro-image"} | says("a banana"))).json()

    (choice,) = made["choices"]
    assert (made["object"], made["model"], made["id"][:9]) == ("chat.completion", "gemini-3-pro-image", "chatcmpl-")
    assert (choice["index"], choice["finish_reason"], choice["native_finish_reason"]) == (0, "stop", "STOP")
    assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", "Here it is.")
    (image,) = choice["message"]["images"]
    assert opened(picture_of(image)).size == (1024, 1024)
    assert made["usage"] == {
        "prompt_tokens": 8,
        "completion_tokens": 1350,
        "total_tokens": 1358,
        "completion_tokens_details": {"reasoning_tokens": 225, "image_tokens": 1120, "text_tokens": 5},
        "prompt_tokens_details": {"text_tokens": 8, "image_tokens": 0, "cached_tokens": 0},
        "cost": 0.137176,
        "cost_details": {"upstream_inference_cost": 0.137176},
    }
    assert stand_in.calls[0].body["generationConfig"] == {"responseModalities": ["TEXT", "IMAGE"]}


async def test_a_conversation_keeps_its_sides(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """The model's pictures go back as the model's, wherever the client puts them; the system's words stand apart."""
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "In colour."}]},
            {"role": "user", "content": [{"type": "text", "text": "like this"}, shown(png("red"))]},
            {"role": "assistant", "content": "Here.", "images": [shown(png("green"))], "reasoning": "hm"},
            {"role": "user", "content": "bluer"},
            {"role": "assistant", "content": [shown(png("blue"))], "refusal": None, "tool_calls": []},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": [{"type": "text", "text": "make it night"}]},
        ],
        "image_config": {"aspect_ratio": "16:9", "image_size": "2K"},
    }
    assert (await client.post(CHAT, json=body)).status_code == 200

    sent = stand_in.calls[0].body
    inline = [{"inlineData": {"mimeType": "image/png", "data": encoded(png(c))}} for c in ("red", "green", "blue")]
    assert sent["systemInstruction"] == {"parts": [{"text": "Be brief.\n\nIn colour."}]}
    assert sent["contents"] == [
        {"role": "user", "parts": [{"text": "like this"}, inline[0]]},
        {"role": "model", "parts": [signed({"text": "Here."}), signed(inline[1])]},
        {"role": "user", "parts": [{"text": "bluer"}]},
        {"role": "model", "parts": [signed(inline[2])]},
        {"role": "user", "parts": [{"text": "make it night"}]},
    ]
    assert sent["generationConfig"]["imageConfig"] == {"aspectRatio": "16:9", "imageSize": "2K"}


def test_megabytes_stay_where_they_lie() -> None:
    """Also deep in `messages`: what the order holds are views into the chunk that came."""
    picture = b"\x89PNG\r\n\x1a\n" + bytes(3 << 20)
    chunk = json.dumps({"messages": [{"role": "user", "content": [shown(picture)]}]}).encode()
    parser = LazyJsonParser()
    parser.feed(chunk)
    (part,) = order_of(ChatRequest.model_validate(parser.close(), strict=True)).turns[0].parts

    assert part.picture is not None
    assert all(isinstance(piece, memoryview) and piece.obj is chunk for piece in part.picture.pieces)
    assert b"".join(part.picture.decoded()) == picture


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0.7, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "max_tokens": 4096, "seed": -1},
        {"max_completion_tokens": 100, "stop": ["\n"], "logit_bias": {}, "top_k": 40, "min_p": 0.1, "metadata": {}},
        {"tools": [{"type": "function", "function": {"name": "f" * 24_000}}], "tool_choice": "auto"},
        {"functions": [{"name": "f"}], "function_call": "none", "parallel_tool_calls": True},
        {"tools": [], "tool_choice": "none", "functions": None, "response_format": {"type": "text"}, "logprobs": False},
        {"reasoning_effort": "low", "provider": {"order": []}, "transforms": [], "chat_id": "x", "store": False},
        {"model": "google/gemini-3-pro-image"},
        {"model": "gpt-image-2"},
        {f"odd_{number}": number for number in range(30)},
    ],
)
async def test_what_applications_always_send_is_taken(
    client: httpx.AsyncClient, stand_in: StandIn, more: dict[str, Any]
) -> None:
    """It changes no picture, and goes no further."""
    assert (await client.post(CHAT, json=says("x") | more)).status_code == 200

    assert set(stand_in.calls[0].body) == {"contents", "generationConfig"}
    assert stand_in.calls[0].body["generationConfig"] == {"responseModalities": ["TEXT", "IMAGE"]}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"seed": "many"}, "seed"),
        ({"size": "large"}, "size"),
        ({"aspect_ratio": "7:1"}, "aspect_ratio"),
        ({"image_size": "9K"}, "image_size"),
        ({"thinking_level": "much"}, "thinking_level"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities.1"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"logprobs": True}, "logprobs"),
        ({"image_config": {"strength": 1}}, "image_config.strength"),
        ({"n": 11}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "system", "content": [shown(png())]}, *says("x")["messages"]]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "critic", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}, "messages"),
    ],
)
async def test_what_has_no_meaning_here_is_refused_by_name(
    client: httpx.AsyncClient, stand_in: StandIn, more: dict[str, Any], param: str
) -> None:
    """400, the field named, nothing sent."""
    response = await client.post(CHAT, json=says("x") | more)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not stand_in.calls


async def test_a_picture_elsewhere_is_not_fetched(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """An address in another network is nobody's to ask; the message says what to send."""
    body = {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}]}]
    }
    response = await client.post(CHAT, json=body)

    assert (response.status_code, response.json()["error"]["param"]) == (400, "image_url")
    assert "data URI" in response.json()["error"]["message"]
    assert not stand_in.calls


@pytest.mark.parametrize(
    ("fault", "reason", "native", "words"),
    [
        ("blocked", "content_filter", "PROHIBITED_CONTENT", BLOCKED),
        ("text-only", "stop", "STOP", "Here is your banana. What colour should it have?"),
        (faults.candidate({"parts": [{"text": "Half a"}]}, "MAX_TOKENS"), "length", "MAX_TOKENS", "Half a"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_words_alone_are_an_answer(
    client: httpx.AsyncClient, stand_in: StandIn, fault: Any, reason: str, native: str, words: str, stream: bool
) -> None:
    """A refusal too, with its reason as text: a chat shows it, and does not break."""
    stand_in.plan.append(fault)
    response = await client.post(CHAT, json=says("x") | {"stream": stream})

    assert response.status_code == 200
    if stream:
        deltas = [chunk["choices"][0] for chunk in events_of(response.text)]
        assert "".join(choice["delta"].get("content", "") for choice in deltas) == words
        assert not any("images" in choice["delta"] for choice in deltas)
        end = deltas[-1]
    else:
        (end,) = response.json()["choices"]
        assert end["message"]["content"] == words
        assert "images" not in end["message"]
    assert (end["finish_reason"], end["native_finish_reason"]) == (reason, native)


async def test_a_refusal_is_in_the_log(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """The caller gets 200 and words; whoever operates the service finds it by its code."""
    stand_in.plan.append("blocked")
    await client.post(CHAT, json=says("x"))

    log = Path("logs/app.log").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in map(json.loads, log) if line["event"] == "request"]
    assert (line["status"], line["code"], line["images_returned"]) == (200, "blocked", 0)


async def test_only_words_are_wanted(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """`modalities` without images makes none: a title for a conversation costs no picture."""
    made = (await client.post(CHAT, json=says("a title") | {"modalities": ["text"]})).json()

    assert made["choices"][0]["message"]["content"] == "Here it is."
    assert made["usage"]["cost"] < 0.01
    assert stand_in.calls[0].body["generationConfig"]["responseModalities"] == ["TEXT"]


async def test_a_stream_is_chunks_in_order(client: httpx.AsyncClient) -> None:
    """The role, the words, the picture, why it ended, the usage where it is wanted; one id for all."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    response = await client.post(CHAT, json=says("a banana") | options)
    chunks = events_of(response.text)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert {(chunk["object"], chunk["id"]) for chunk in chunks} == {("chat.completion.chunk", chunks[0]["id"])}
    role, words, image, end = (chunk["choices"][0] for chunk in chunks[:4])
    assert role["delta"] == {"role": "assistant", "content": ""}
    assert words["delta"] == {"content": "Here it is."}
    assert opened(picture_of(image["delta"]["images"][0])).size == (1024, 1024)
    assert (end["delta"], end["finish_reason"]) == ({}, "stop")
    assert [choice["finish_reason"] for choice in (role, words, image)] == [None, None, None]
    assert (chunks[4]["choices"], chunks[4]["usage"]["cost"]) == ([], 0.137176)
    assert len(chunks) == 5


@pytest.mark.parametrize("more", [{}, {"stream_options": {"include_usage": False}}])
async def test_no_usage_comes_unasked(client: httpx.AsyncClient, more: dict[str, Any]) -> None:
    """Every chunk has a choice then: some clients take the first without looking."""
    response = await client.post(CHAT, json=says("x") | {"stream": True} | more)

    assert all(len(chunk["choices"]) == 1 for chunk in events_of(response.text))


async def test_openrouters_way_to_ask_for_the_usage(client: httpx.AsyncClient) -> None:
    """`usage: {include: true}`, as its SDK sends it."""
    response = await client.post(CHAT, json=says("x") | {"stream": True, "usage": {"include": True}})

    assert events_of(response.text)[-1]["usage"]["completion_tokens"] == 1350


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices_keep_their_places(client: httpx.AsyncClient, stand_in: StandIn, stream: bool) -> None:
    """What failed is not there, and takes no other with it; one usage for all."""
    stand_in.plan.extend([None, "400", None])
    options = {"n": 3, "stream": stream, "stream_options": {"include_usage": True}}
    response = await client.post(CHAT, json=says("x") | options)

    if stream:
        chunks = events_of(response.text)
        found = sorted(choice["index"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"])
        usage = chunks[-1]["usage"]
    else:
        found = [choice["index"] for choice in response.json()["choices"]]
        usage = response.json()["usage"]
    assert len(found) == 2
    assert set(found) < {0, 1, 2}
    assert usage["completion_tokens"] == 2 * 1350


@pytest.mark.parametrize(("fault", "status", "code"), [("400", 400, "invalid_request"), ("429", 429, "upstream_quota")])
@pytest.mark.parametrize("count", [1, 2])
async def test_an_error_before_the_first_byte_keeps_its_status(
    client: httpx.AsyncClient, stand_in: StandIn, fault: str, status: int, code: str, count: int
) -> None:
    """Streamed or not, in OpenAI's shape."""
    for stream in (False, True):
        stand_in.plan.extend([fault] * count)
        response = await client.post(CHAT, json=says("x") | {"n": count, "stream": stream})

        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert response.headers["x-should-retry"] == "false"


async def test_a_silence_is_filled_with_comments(impatient: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Before the first chunk too; an error behind them is an event, because the status was sent."""
    stand_in.latency_seconds = 0.3
    made = (await impatient.post(CHAT, json=says("x") | {"stream": True})).text
    stand_in.plan.append(late)
    failed = (await impatient.post(CHAT, json=says("x") | {"stream": True})).text

    assert made.startswith(": keep-alive\n")
    assert len(events_of(made)) == 4
    assert failed.startswith(": keep-alive\n")
    assert events_of(failed)[0]["error"]["code"] == "invalid_request"


async def test_a_repeat_of_a_key_is_the_same_to_the_byte(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Words, picture, id and usage, whether it is told whole or as events; one call."""
    whole = await client.post(CHAT, json=says("x"), headers=KEY)
    again = await client.post(CHAT, json=says("x"), headers=KEY)
    first = await client.post(CHAT, json=says("x") | {"stream": True}, headers={"Idempotency-Key": "chat-2"})
    second = await client.post(CHAT, json=says("x") | {"stream": True}, headers={"Idempotency-Key": "chat-2"})

    assert (whole.content, first.content) == (again.content, second.content)
    assert (again.headers["idempotent-replayed"], len(stand_in.calls)) == ("true", 2)


async def test_a_refusal_is_paid_once_too(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """What Google answered with 200 keeps its key used."""
    stand_in.plan.append("blocked")
    bodies = [(await client.post(CHAT, json=says("x"), headers=KEY)).content for _ in range(2)]

    assert bodies[0] == bodies[1]
    assert len(stand_in.calls) == 1


async def test_links_come_instead_of_data_and_go_back(stand_in: StandIn) -> None:
    """With CHAT_IMAGES=url each picture is a link to a kept one; sent back, it is the model's part, signed."""
    async with client_of(create_app(settings_for(stand_in, chat_images="url"))) as client:
        for stream in (False, True):
            response = await client.post(CHAT, json=says("a banana") | {"stream": stream})
            if stream:
                images_of = (choice["delta"].get("images") for c in events_of(response.text) for choice in c["choices"])
                (image,) = next(found for found in images_of if found)
                message: dict[str, Any] = {"role": "assistant", "content": "Here it is.", "images": [image]}
            else:
                message = response.json()["choices"][0]["message"]
            url = message["images"][0]["image_url"]["url"]
            picture = (await client.get(url)).content
            conversation = [*says("a banana")["messages"], message, *says("at night")["messages"]]
            answered = await client.post(CHAT, json={"messages": conversation})

            assert url.startswith("http://127.0.0.1/results/")
            assert answered.status_code == 200
            part = stand_in.calls[-1].body["contents"][1]["parts"][1]
            assert base64.b64decode(part["inlineData"]["data"]) == picture
            assert part["thoughtSignature"] == signature(picture)


async def test_a_task_has_links(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """`Prefer: respond-async` answers at once; the completion is polled."""
    begun = await client.post(CHAT, json=says("x"), headers={"Prefer": "respond-async"})
    task = (await client.get(f"/v1/images/tasks/{begun.json()['id']}?wait=20")).json()

    message = task["result"]["choices"][0]["message"]
    assert (begun.status_code, task["status"], task["result"]["object"]) == (202, "completed", "chat.completion")
    assert message["content"] == "Here it is."
    link = message["images"][0]["image_url"]["url"]
    assert opened((await client.get(link)).content).size == (1024, 1024)


def test_an_order_is_read_again_as_it_was() -> None:
    """What another worker takes up is the same conversation, pictures and all."""
    body = read({"messages": [{"role": "user", "content": [shown(png())]}], "image_config": {"image_size": "2K"}})

    again = read(json.loads(b"".join(order_pieces(fields_of(body)))))

    assert fingerprint_of("", fields_of(again)) == fingerprint_of("", fields_of(body))
    picture = order_of(again).turns[0].parts[0].picture
    assert picture is not None
    assert b"".join(picture.decoded()) == png()


async def test_ten_pictures_in_one_conversation(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """All arrive, byte for byte, each on its own side."""
    pictures = [png(size=(8 + number, 8)) for number in range(10)]
    messages = [
        {"role": "user", "content": [{"type": "text", "text": str(number)}, shown(picture)]}
        if number % 2 == 0
        else {"role": "assistant", "content": "", "images": [shown(picture)]}
        for number, picture in enumerate(pictures)
    ]
    assert (await client.post(CHAT, json={"messages": messages})).status_code == 200

    contents = stand_in.calls[0].body["contents"]
    sent = [
        base64.b64decode(part["inlineData"]["data"]) for c in contents for part in c["parts"] if "inlineData" in part
    ]
    assert sent == pictures
    assert [content["role"] for content in contents] == ["user", "model"] * 5


async def test_a_caller_who_leaves_a_stream_ends_its_call(stand_in: StandIn) -> None:
    """Before the first chunk there is nothing to send, and nothing to wait for."""
    stand_in.latency_seconds = 30
    async with served(create_app(settings_for(stand_in))) as address, httpx.AsyncClient(base_url=address) as client:
        sending = asyncio.create_task(client.post(CHAT, json=says("x") | {"stream": True}))
        async with asyncio.timeout(20):
            while not stand_in.calls:
                await asyncio.sleep(0.01)
            sending.cancel()
            while not stand_in.calls[0].aborted:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("size", ["1K", "4K"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_picture_is_the_same_to_the_byte(client: httpx.AsyncClient, size: str, stream: bool) -> None:
    """As /generate gives it: 4K through a stream as well."""
    body = says("a banana") | {"image_config": {"image_size": size}, "stream": stream}
    plain = await client.post("/generate", json={"prompt": "a banana", "image_size": size})
    response = await client.post(CHAT, json=body)

    if stream:
        (image,) = next(
            c["delta"]["images"] for e in events_of(response.text) for c in e["choices"] if "images" in c["delta"]
        )
    else:
        (image,) = response.json()["choices"][0]["message"]["images"]
    assert encoded(picture_of(image)) == plain.json()["images"][0]


@pytest.mark.parametrize("size", [10, 1 << 20])
@pytest.mark.parametrize("as_parts", [False, True])
async def test_a_picture_in_markdown_is_a_picture(
    client: httpx.AsyncClient, stand_in: StandIn, size: int, as_parts: bool
) -> None:
    """As some clients send back what they showed: as words it would be billed, and not seen."""
    picture = png() + bytes(size)
    text = f"Here ![a banana]({data_uri(picture)}) it is."
    content: Any = [{"type": "text", "text": text}] if as_parts else text
    messages = [*says("x")["messages"], {"role": "assistant", "content": content}, *says("at night")["messages"]]
    assert (await client.post(CHAT, json={"messages": messages})).status_code == 200

    model = stand_in.calls[0].body["contents"][1]
    assert model["role"] == "model"
    words, image, more = model["parts"]
    assert (words, more) == (signed({"text": "Here "}), signed({"text": " it is."}))
    assert base64.b64decode(image["inlineData"]["data"]) == picture


@pytest.mark.parametrize(
    "text",
    [
        "x" * ((1 << 20) + 1),
        "](data:image/" + "x" * ((1 << 20) + 1),
        # Each would take minutes where every beginning is followed to the end.
        "![](data:image/" * 200_000,
        "![" * 2_000_000 + "](data:image/",
        "![x](data:image/png;base64," * 100_000,
    ],
)
async def test_a_text_that_is_no_text_is_refused(client: httpx.AsyncClient, stand_in: StandIn, text: str) -> None:
    """More than anybody writes, and what only looks like pictures."""
    response = await client.post(CHAT, json=says(text))

    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages.0.content")
    assert not stand_in.calls


async def test_an_unknown_model_says_where_the_known_ones_are(client: httpx.AsyncClient) -> None:
    """Google's words, and what to do."""
    error = (await client.post(CHAT, json=says("x") | {"model": "gpt-4o"})).json()["error"]

    assert error["code"] == "model_not_found"
    assert "/v1/models" in error["message"]


@pytest.mark.parametrize(
    "text", ["![x](data:image/png;base64,AAA=)", "![a](data:image/png;base64,iVBORw0KGgo...)", "![["]
)
async def test_what_only_looks_like_a_picture_is_words(client: httpx.AsyncClient, stand_in: StandIn, text: str) -> None:
    """A conversation about Markdown goes on."""
    assert (await client.post(CHAT, json=says(f"What is {text}?"))).status_code == 200

    parts = stand_in.calls[0].body["contents"][0]["parts"]
    assert "".join(part["text"] for part in parts) == f"What is {text}?"


async def test_a_picture_in_markdown_wherever_the_body_was_cut(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Also where slashes are escaped, as PHP does it."""
    raw = json.dumps(says(f"![x]({data_uri(png() + bytes(1 << 20))})")).replace("/", "\\/").encode()
    cut = raw.index(b"(data:image") + 4

    async def body() -> AsyncIterator[bytes]:
        yield raw[:cut]
        yield raw[cut:]

    response = await client.post(CHAT, content=body())

    assert response.status_code == 200
    assert "inlineData" in stand_in.calls[0].body["contents"][0]["parts"][-1]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [1] * 400_000},
        {"messages": [{}] * 300_000},
        {"modalities": [1] * 400_000} | says("x"),
        {"messages": [{"role": "user", "content": f"{'![x](data:image/png;base64,AAAA)' * 200}"}]},
    ],
)
async def test_many_mistakes_are_not_counted_to_the_end(
    client: httpx.AsyncClient, stand_in: StandIn, body: dict[str, Any]
) -> None:
    """The first is enough: others wait while they are looked for."""
    response = await client.post(CHAT, json=body)

    assert response.status_code == 400
    assert len(response.content) < 5000
    assert not stand_in.calls


async def test_a_long_conversation_takes_time_by_its_length(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Four thousand messages: where each was looked for among all, that took seven seconds, twice."""
    messages = [{"role": "user", "content": f"message {number}"} for number in range(4000)]
    assert (await client.post(CHAT, json={"messages": messages})).status_code == 200

    assert len(stand_in.calls[0].body["contents"][0]["parts"]) == 4000


async def test_a_refusal_is_words_whatever_is_asked_for(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Also where images alone are."""
    stand_in.plan.append("blocked")
    made = (await client.post(CHAT, json=says("x") | {"modalities": ["image"]})).json()

    assert made["choices"][0]["finish_reason"] == "content_filter"


async def test_a_caller_who_leaves_before_the_first_byte_leaves_nothing_behind(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that has begun, and is not sent any more: its calls end, and its budget is settled."""
    reached = asyncio.Event()

    async def slow(context: Context) -> None:
        if context.exchange.path == CHAT:
            reached.set()
            await asyncio.sleep(30)

    monkeypatch.setattr("banana.routes.deps._write_price", slow)
    stand_in.plan.append("hang")
    async with (
        served(create_app(settings_for(stand_in, budgets="*=5/day"))) as address,
        httpx.AsyncClient(base_url=address) as client,
        asyncio.timeout(20),
    ):
        sending = asyncio.create_task(client.post(CHAT, json=says("x") | {"n": 2, "stream": True}))
        await reached.wait()
        sending.cancel()
        while not all(call.ended for call in stand_in.calls) or await _reserved(client):
            await asyncio.sleep(0.02)


async def _reserved(client: httpx.AsyncClient) -> bool:
    key = (await client.get("/v1/key")).json()["data"]
    return bool(key["limit_remaining"] != round(key["limit"] - key["usage"], 6) or not key["usage"])
