"""OpenAI's images; what its SDK makes of them: test_sdks."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from banana.routes.openai_images import ImagesRequest, order_of
from standin.server import StandIn
from tests.pictures import encoded, opened, png

pytestmark = pytest.mark.anyio
GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"


@pytest.mark.parametrize(
    "size", ["huge", "0x5", "5x0", "x", "16385x10", "99999x99999", "-1x1", "1024x1024x1", "1.5x2", "8K"]
)
async def test_a_size_that_is_none_is_refused(client: httpx.AsyncClient, stand_in: StandIn, size: str) -> None:
    """400 that names it."""
    response = await client.post(GENERATIONS, json={"prompt": "x", "size": size})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "size")
    assert not stand_in.calls


def test_a_body_becomes_an_order() -> None:
    """Every field that means something here is in the order."""
    body = ImagesRequest(
        prompt="x", n=3, model="m", output_format="webp", output_compression=50, user="u", size="1024x1024"
    )

    order = order_of(body)

    assert (order.prompt, order.count, order.model_name, order.user) == ("x", 3, "m", "u")
    assert order.pixels == (1024, 1024)
    assert (order.output_format, order.output_quality) == ("webp", 50)


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({}, "b64_json"),
        ({"response_format": "url"}, "url"),
        ({"model": "dall-e-3"}, "url"),
        ({"model": "dall-e-3", "response_format": "b64_json"}, "b64_json"),
    ],
)
async def test_a_picture_is_base64_or_a_url(client: httpx.AsyncClient, body: dict[str, Any], key: str) -> None:
    """As asked for, and by OpenAI's default for its models of old; JSON with what OpenAI's has."""
    response = await client.post(GENERATIONS, json={"prompt": "x", "n": 2} | body)

    answer = response.json()
    assert list(answer) == ["created", "data", "background", "output_format", "quality", "size", "usage"]
    assert (answer["output_format"], answer["quality"], answer["size"]) == ("jpeg", "medium", "1024x1024")
    assert [list(item) for item in answer["data"]] == [[key]] * 2
    given = answer["data"][1][key]
    picture = (await client.get(given)).content if key == "url" else base64.b64decode(given)
    assert opened(base64.b64encode(picture).decode()).size == (1024, 1024)
    assert response.headers["content-length"] == str(len(response.content))


async def test_some_of_several_are_a_success(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """OpenAI has no partial success: what there is is the data."""
    stand_in.plan.append("image-safety")

    response = await client.post(GENERATIONS, json={"prompt": "x", "n": 2})

    assert (response.status_code, len(response.json()["data"])) == (200, 1)


async def test_a_stream_tells_an_error_only_when_there_is_no_picture(
    client: httpx.AsyncClient, stand_in: StandIn
) -> None:
    """OpenAI's SDKs raise at the first error, so one among pictures is left out."""
    stand_in.plan.extend(["image-safety", None, "image-safety"])

    some = await client.post(GENERATIONS, json={"prompt": "x", "n": 2, "stream": True})
    none = await client.post(GENERATIONS, json={"prompt": "x", "stream": True})

    assert [line for line in some.text.splitlines() if line.startswith("event: ")] == [
        "event: image_generation.completed"
    ]
    assert (none.status_code, none.json()["error"]["code"]) == (400, "moderation_blocked")


async def test_a_form_says_what_json_says(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """An edit as a form: numbers and truth values are strings, the picture is a file."""
    response = await client.post(
        EDITS,
        data={"prompt": "x", "n": "2", "stream": "true", "size": "1536x1024"},
        files={"image": ("a.png", png(), "image/png")},
    )

    assert response.text.count("event: image_edit.completed") == 2
    assert stand_in.calls[0].body["contents"][0]["parts"][1]["inlineData"]["data"] == encoded(png())
    assert stand_in.calls[0].body["generationConfig"]["imageConfig"] == {"aspectRatio": "3:2", "imageSize": "1K"}


@pytest.mark.parametrize(
    ("model", "quality", "size", "image_size"),
    [
        (None, "high", None, "2K"),
        (None, "hd", "auto", "2K"),
        (None, "max", None, "4K"),
        (None, "low", None, None),
        (None, "medium", None, None),
        (None, "high", "1024x1024", "1K"),
        ("gemini-3.1-flash-image", "low", None, "512"),
        ("gemini-3.1-flash-lite-image", "high", None, None),
        ("gemini-from-tomorrow", "high", None, None),
    ],
)
async def test_a_quality_is_a_size_where_the_model_has_one(
    client: httpx.AsyncClient,
    stand_in: StandIn,
    model: str | None,
    quality: str,
    size: str | None,
    image_size: str | None,
) -> None:
    """Where nothing else says how large: a size in pixels goes before it."""
    await client.post(GENERATIONS, json={"prompt": "x", "model": model, "quality": quality, "size": size})

    config = stand_in.calls[0].body["generationConfig"]
    assert config.get("imageConfig", {}).get("imageSize") == image_size


@pytest.mark.parametrize(
    "hints",
    [
        {"style": "vivid", "quality": "standard", "user": "u"},
        {"moderation": "low", "background": "auto", "safety_identifier": "s", "partial_images": 3},
        {"model": "gpt-image-2-2026-04-21"},
        {"model": "chatgpt-image-latest"},
        {"model": "dall-e-3", "response_format": "b64_json", "style": "natural", "quality": "hd", "size": "1792x1024"},
    ],
)
async def test_hints_of_applications_are_taken(
    client: httpx.AsyncClient, stand_in: StandIn, hints: dict[str, Any]
) -> None:
    """They change nothing that is paid for; the end user is in the log, by either name."""
    response = await client.post(GENERATIONS, json={"prompt": "x"} | hints)
    log = Path("logs/app.log").read_text(encoding="utf-8")

    assert response.status_code == 200
    assert stand_in.calls[0].model == "gemini-3-pro-image"
    user = hints.get("user") or hints.get("safety_identifier")
    assert not user or f'"user":"{user}"' in log.replace(": ", ":")


PICTURE = f"data:image/png;base64,{encoded(png())}"


@pytest.mark.parametrize(
    "pictures",
    [
        {"image": PICTURE},
        {"image": [encoded(png())]},
        {"images": [{"image_url": PICTURE}]},
        {"images": [PICTURE]},
        {"images": [{"image_url": {"url": PICTURE}}], "input_fidelity": "low"},
    ],
)
async def test_an_edit_in_json(client: httpx.AsyncClient, stand_in: StandIn, pictures: dict[str, Any]) -> None:
    """By OpenAI's old field and by its new one."""
    assert (await client.post(EDITS, json={"prompt": "x"} | pictures)).status_code == 200

    part = stand_in.calls[0].body["contents"][0]["parts"][1]
    assert base64.b64decode(part["inlineData"]["data"]) == png()


@pytest.mark.parametrize(
    ("pictures", "param"),
    [
        ({}, "image"),
        ({"image": []}, "image"),
        ({"images": []}, "image"),
        ({"images": [{"file_id": "file-1"}]}, "images"),
        ({"images": [{"image_url": "https://a.b/c.png"}]}, "image"),
        ({"image": PICTURE, "images": [PICTURE]}, "image"),
        ({"image": PICTURE, "mask": PICTURE}, "mask"),
        ({"images": [PICTURE] * 15}, "images"),
    ],
)
async def test_an_edit_that_cannot_be_made_names_why(
    client: httpx.AsyncClient, stand_in: StandIn, pictures: dict[str, Any], param: str
) -> None:
    """400, nothing sent."""
    response = await client.post(EDITS, json={"prompt": "x"} | pictures)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not stand_in.calls


@pytest.mark.parametrize("compression", [0, 1, 50, 100])
async def test_a_compression_is_honoured_whenever_it_is_given(client: httpx.AsyncClient, compression: int) -> None:
    """Also without a format, also 0: less of it is a smaller file."""
    made = await client.post(GENERATIONS, json={"prompt": "x", "output_compression": compression})
    plain = await client.post(GENERATIONS, json={"prompt": "x"})

    sizes = [len(response.json()["data"][0]["b64_json"]) for response in (made, plain)]
    assert sizes[0] != sizes[1]
    assert (sizes[0] < sizes[1]) == (compression < 100)
