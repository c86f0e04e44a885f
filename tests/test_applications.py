"""What popular applications send, as they send it, over a real socket; each reads the response in its own way.

Read in their sources in November 2026: Open WebUI, LibreChat, SillyTavern, n8n, Cherry Studio, LobeChat, gpt_image_playground.
"""

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from banana.app import create_app
from standin.server import StandIn
from tests.conftest import served, settings_for
from tests.pictures import encoded, opened, png

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
TOKEN = "anna-token"
MODEL = "gemini-3-pro-image"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
GOOGLE_KEY = {"x-goog-api-key": TOKEN}
DATA_URI = f"data:image/png;base64,{encoded(png())}"
Reader = Callable[[httpx.Response], list[str]]


@pytest.fixture
async def client(stand_in: StandIn) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings_for(stand_in, access_tokens=(f"anna:{TOKEN}",), rate_limit_per_minute=1000))
    async with served(app) as address, httpx.AsyncClient(base_url=address) as client:
        yield client


def b64_json(response: httpx.Response) -> list[str]:
    return [item["b64_json"] for item in response.json()["data"]]


def predictions(response: httpx.Response) -> list[str]:
    return [item["bytesBase64Encoded"] for item in response.json()["predictions"]]


def inline_data(response: httpx.Response) -> list[str]:
    parts = response.json()["candidates"][0]["content"]["parts"]
    return [part["inlineData"]["data"] for part in parts if "inlineData" in part]


def delta_images(response: httpx.Response) -> list[str]:
    """As chat applications read a stream: line by line, `delta.images[]`, until [DONE]."""
    found = []
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    for line in lines[:-1]:
        for choice in json.loads(line)["choices"]:
            for image in choice["delta"].get("images") or []:
                assert image["type"] == "image_url"
                found.append(image["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
    return found


def says(*more: dict[str, Any]) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "a banana"}, *more], "stream": True}


def generated(response: httpx.Response) -> list[str]:
    return [item["result"] for item in response.json()["output"] if item["type"] == "image_generation_call"]


# What gpt_image_playground's agent brings along.
PLAYGROUND_TOOLS = [
    {"type": "image_generation", "action": "auto", "size": "1536x1024", "output_format": "png", "quality": "high"},
    {"type": "function", "name": "generate_image_batch", "parameters": {"type": "object"}, "strict": False},
    {"type": "function", "name": "continue_generation", "parameters": {"type": "object"}, "strict": False},
]
PREDICTED = {
    "instances": {"prompt": "a banana"},
    "parameters": {"sampleCount": 1, "outputOptions": {"mimeType": "image/png"}},
}
IMAGEN = {
    "sampleCount": 1,
    "aspectRatio": "1:1",
    "personGeneration": "allow_all",
    "safetySetting": "block_low_and_above",
    "outputOptions": {"mimeType": "image/jpeg", "compressionQuality": 100},
}
SENT: dict[str, tuple[str, dict[str, str], dict[str, Any], Reader]] = {
    "Open WebUI, chat": ("/v1/chat/completions", BEARER, says(), delta_images),
    "Open WebUI, images": (
        "/v1/images/generations",
        BEARER,
        {"model": MODEL, "prompt": "a banana", "n": 1, "size": "1024x1024", "response_format": "b64_json"},
        b64_json,
    ),
    "Open WebUI, Gemini's predict": (
        "/v1beta/models/imagen-4.0-generate-001:predict",
        GOOGLE_KEY,
        PREDICTED,
        predictions,
    ),
    "Open WebUI, Gemini's generateContent": (
        f"/v1beta/models/{MODEL}:generateContent",
        GOOGLE_KEY,
        {
            "contents": [
                {"parts": [{"text": "a banana"}, {"inline_data": {"mime_type": "image/png", "data": encoded(png())}}]}
            ]
        },
        inline_data,
    ),
    "gpt_image_playground, images": (
        "/v1/images/generations",
        BEARER,
        {
            "model": "gpt-image-2",
            "prompt": "a banana",
            "size": "1536x1024",
            "output_format": "jpeg",
            "moderation": "low",
            "quality": "auto",
            "n": 1,
        },
        b64_json,
    ),
    "gpt_image_playground, agent": (
        "/v1/responses",
        BEARER,
        {"model": "gpt-5.5", "input": "a banana", "tools": PLAYGROUND_TOOLS, "reasoning": {"effort": "low"}},
        generated,
    ),
    "LibreChat, chat": (
        "/v1/chat/completions",
        BEARER,
        says() | {"stream_options": {"include_usage": True}, "user": "65f0", "temperature": 1, "top_p": 1},
        delta_images,
    ),
    "LibreChat, image tool": (
        "/v1/images/generations",
        BEARER,
        {"model": "gpt-image-1", "prompt": "x", "size": "1024x1024", "quality": "high", "background": "auto", "n": 1},
        b64_json,
    ),
    "SillyTavern, chat": (
        "/v1/chat/completions",
        BEARER,
        says()
        | {
            "messages": [{"role": "system", "content": "Write."}, *says()["messages"]],
            "temperature": 1,
            "max_tokens": 300,
        }
        | {"presence_penalty": 0, "frequency_penalty": 0, "top_p": 1, "stop": [], "logit_bias": {}, "seed": -1},
        delta_images,
    ),
    "SillyTavern, images": (
        "/v1/publishers/google/models/imagen-4.0-generate-001:predict",
        GOOGLE_KEY,
        {"instances": [{"prompt": "a banana"}], "parameters": IMAGEN},
        predictions,
    ),
    "n8n, Google Gemini": (
        f"/v1beta/models/{MODEL}:generateContent?key={TOKEN}",
        {},
        {
            "contents": [{"role": "user", "parts": [{"text": "a banana"}]}],
            "generationConfig": {"responseModalities": ["IMAGE", "TEXT"]},
        },
        inline_data,
    ),
    "n8n, Imagen": (
        f"/v1beta/models/imagen-4.0-generate-001:predict?key={TOKEN}",
        {},
        {"instances": [{"prompt": "a banana"}], "parameters": {"sampleCount": 1}},
        predictions,
    ),
    "Cherry Studio, chat": (
        "/v1/chat/completions",
        BEARER,
        says(
            {
                "role": "assistant",
                "content": "Here it is.",
                "images": [{"type": "image_url", "image_url": {"url": DATA_URI}}],
            },
            {"role": "user", "content": [{"type": "text", "text": "bluer"}]},
        )
        | {"stream_options": {"include_usage": True}, "modalities": ["text", "image"]},
        delta_images,
    ),
    "Cherry Studio, images": (
        "/v1/images/generations",
        BEARER,
        {"model": MODEL, "prompt": "x", "size": "1536x1024", "n": 1, "quality": "auto", "moderation": "low"},
        b64_json,
    ),
    "LobeChat, chat": (
        "/v1/chat/completions",
        BEARER,
        says(
            {"role": "assistant", "content": "Here it is."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "like this"},
                    {"type": "image_url", "image_url": {"url": DATA_URI, "detail": "auto"}},
                ],
            },
        )
        | {"stream_options": {"include_usage": True}, "temperature": 0.7, "top_p": 1}
        | {"presence_penalty": 0, "frequency_penalty": 0, "user": "lobe"},
        delta_images,
    ),
    "LobeChat, images": (
        "/v1/images/generations",
        BEARER,
        {"model": MODEL, "prompt": "x", "n": 1, "response_format": "b64_json", "size": "auto"},
        b64_json,
    ),
}


@pytest.mark.parametrize("name", SENT)
async def test_what_an_application_sends_becomes_a_picture(
    client: httpx.AsyncClient, stand_in: StandIn, name: str
) -> None:
    """One picture, byte for byte the model's where it wants no other format; the token stays here."""
    path, headers, body, read = SENT[name]
    response = await client.post(path, headers=headers, json=body)

    assert response.status_code == 200, response.text[:500]
    (picture,) = read(response)
    assert min(opened(picture).size) >= 768
    (call,) = stand_in.calls
    assert call.key == "test-key-1"
    assert TOKEN not in str([call.headers, call.body])


@pytest.mark.parametrize("field", ["image", "image[]"])
async def test_what_applications_send_to_edit(client: httpx.AsyncClient, stand_in: StandIn, field: str) -> None:
    """Open WebUI, LibreChat and Cherry Studio send a form; one picture or several."""
    form = {"model": MODEL, "prompt": "bluer", "n": "1", "size": "1024x1024", "response_format": "b64_json"}
    files = [(field, ("a.png", png(), "image/png"))] * (1 if field == "image" else 2)
    response = await client.post("/v1/images/edits", headers=BEARER, data=form, files=files)

    assert opened(b64_json(response)[0]).size == (1024, 1024)
    parts = stand_in.calls[0].body["contents"][0]["parts"][1:]
    assert [base64.b64decode(part["inlineData"]["data"]) for part in parts] == [png()] * len(files)


async def test_a_link_is_fetched_with_the_key(client: httpx.AsyncClient) -> None:
    """LibreChat's DALL-E tool wants a link; Open WebUI sends its key with the fetch, and wants a picture's type."""
    body = {"model": "dall-e-3", "prompt": "x", "quality": "hd", "size": "1024x1024", "style": "vivid", "n": 1}
    url = (await client.post("/v1/images/generations", headers=BEARER, json=body)).json()["data"][0]["url"]
    fetched = await client.get(url, headers=BEARER)

    assert fetched.headers["content-type"] == "image/jpeg"
    assert opened(fetched.content).size == (1024, 1024)


async def test_tools_that_an_application_offers_are_taken(client: httpx.AsyncClient) -> None:
    """They are never called; where one must be, the application shows the message, which says why not."""
    tools = [{"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}]
    body = says() | {"tools": tools, "tool_choice": "auto"}
    response = await client.post("/v1/chat/completions", headers=BEARER, json=body)
    refused = await client.post("/v1/chat/completions", headers=BEARER, json=body | {"tool_choice": "required"})

    assert (response.status_code, refused.status_code) == (200, 400)
    assert "image models call no functions" in refused.json()["error"]["message"]
