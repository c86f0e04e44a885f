"""How an image is to be, wherever clients of OpenAI's API formats say it, in each of them."""

from typing import Any

import httpx
import pytest

from standin.server import StandIn
from tests.pictures import encoded, png

pytestmark = pytest.mark.anyio
MESSAGES = [{"role": "user", "content": "a banana"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/images/generations": {"prompt": "a banana"},
    "/v1/images/edits": {"prompt": "a banana", "image": encoded(png())},
    "/v1/images": {"prompt": "a banana"},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/responses": {"input": "a banana", "tools": [{"type": "image_generation"}]},
}
WIDE = {"aspectRatio": "16:9", "imageSize": "2K"}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "said",
    [
        {"size": "2752x1536"},
        {"size": "2048X1152"},
        {"aspect_ratio": "16:9", "image_size": "2K"},
        {"aspectRatio": "16:9", "imageSize": "2k"},
        {"aspect_ratio": "16:9", "resolution": "2K"},
        {"image_config": {"aspect_ratio": "16:9", "image_size": "2K"}},
        {"imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"}},
        {"size": "16:9", "image_size": "2K"},
        {"size": "2K", "aspect_ratio": "16:9"},
        {"size": "1024x1024", "aspect_ratio": "16:9", "image_size": "2K"},
        {"aspect_ratio": "auto", "image_size": "", "size": "2560x1440"},
        {"aspect_ratio": "16:9", "quality": "high"},
        {"generationConfig": {"imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"}, "temperature": 1}},
        {"extra_body": {"google": {"image_config": {"aspect_ratio": "16:9", "image_size": "2K"}}}},
    ],
)
async def test_a_shape_is_honoured_wherever_it_stands(
    client: httpx.AsyncClient, stand_in: StandIn, path: str, said: dict[str, Any]
) -> None:
    """In fields of Google's names, OpenRouter's and OpenAI's, and in what SDKs wrap around them."""
    response = await client.post(path, json=BODIES[path] | said)

    assert response.status_code == 200, response.text
    assert stand_in.calls[0].body["generationConfig"]["imageConfig"] == WIDE


@pytest.mark.parametrize("path", [*BODIES, "/generate"])
async def test_thinking_and_seed_are_honoured(client: httpx.AsyncClient, stand_in: StandIn, path: str) -> None:
    """By Google's names, beside the shape."""
    body = BODIES.get(path, {"prompt": "a banana"})
    response = await client.post(
        path, json=body | {"model": "gemini-nano-banana-2.1", "thinking_level": "high", "seed": 7}
    )

    config = stand_in.calls[0].body["generationConfig"]
    assert response.status_code == 200, response.text
    assert (config["thinkingConfig"], config["seed"]) == ({"thinkingLevel": "high"}, 7)


async def test_each_image_of_several_has_a_seed_of_its_own(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """The same one would be the same image, paid for twice; the last of 31 bits is followed by the first."""
    await client.post("/generate", json={"prompt": "x", "number_of_images": 3, "seed": (1 << 31) - 2})

    seeds = {call.body["generationConfig"]["seed"] for call in stand_in.calls}
    assert seeds == {(1 << 31) - 2, (1 << 31) - 1, 0}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"size": "large"}, "size"),
        ({"aspect_ratio": "7:5"}, "aspect_ratio"),
        ({"image_size": "8K"}, "image_size"),
        ({"image_config": {"aspect_ratio": "7:5"}}, "image_config.aspect_ratio"),
        ({"image_config": {"strength": 1}}, "image_config.strength"),
        ({"thinking_level": "much"}, "thinking_level"),
        ({"seed": 1.5}, "seed"),
    ],
)
async def test_what_is_none_is_named(
    client: httpx.AsyncClient, stand_in: StandIn, path: str, said: dict[str, Any], param: str
) -> None:
    """400, nothing sent."""
    response = await client.post(path, json=BODIES[path] | said)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not stand_in.calls


async def test_a_form_says_it_as_sdks_write_it(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """OpenAI's SDK writes an object of `extra_body` in brackets, others as JSON."""
    picture = {"image": ("a.png", png(), "image/png")}
    brackets = {"prompt": "x", "image_config[aspect_ratio]": "16:9", "image_config[image_size]": "2K", "seed": "5"}
    as_json = {"prompt": "x", "image_config": '{"aspectRatio": "16:9", "imageSize": "2K"}', "seed": "5"}

    for form in (brackets, as_json):
        response = await client.post("/v1/images/edits", data=form, files=picture)
        assert response.status_code == 200, response.text

    for call in stand_in.calls:
        assert (call.body["generationConfig"]["imageConfig"], call.body["generationConfig"]["seed"]) == (WIDE, 5)


async def test_the_tool_goes_before_the_body(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """What the tool does not say is taken from beside it."""
    tool = {"type": "image_generation", "aspect_ratio": "1:1"}
    body = {"input": "x", "tools": [tool], "aspect_ratio": "16:9", "image_size": "2K"}
    assert (await client.post("/v1/responses", json=body)).status_code == 200

    assert stand_in.calls[0].body["generationConfig"]["imageConfig"] == {"aspectRatio": "1:1", "imageSize": "2K"}


async def test_a_size_is_fitted_to_the_model_that_follows(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Google does not know the model any more, and its successor makes no image so small."""
    stand_in.retired.add("gemini-3.1-flash-image")
    body = {"prompt": "x", "model": "gemini-3.1-flash-image", "size": "512x512"}

    response = await client.post("/v1/images/generations", json=body)

    sizes = [call.body["generationConfig"]["imageConfig"]["imageSize"] for call in stand_in.calls]
    assert (response.status_code, sizes[-1]) == (200, "1K")
