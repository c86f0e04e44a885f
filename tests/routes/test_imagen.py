"""Imagen's `:predict`, as programs send it that know no other method."""

import base64
from typing import Any

import httpx
import pytest

from banana.app import create_app
from banana.routes.google import PREFIXES
from standin.server import StandIn
from tests.conftest import client_of, settings_for
from tests.pictures import encoded, opened, png

pytestmark = pytest.mark.anyio
PREDICT = "/v1beta/models/imagen-4.0-generate-001:predict"
ASKED: dict[str, Any] = {"instances": [{"prompt": "a banana"}], "parameters": {"sampleCount": 1}}


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_prediction_is_a_picture_of_gemini(client: httpx.AsyncClient, stand_in: StandIn, prefix: str) -> None:
    """Below every prefix, and below a bare base URL; the name of Imagen is sent as its successor's."""
    made = (await client.post(f"{prefix}/models/imagen-4.0-generate-001:predict", json=ASKED)).json()

    (prediction,) = made["predictions"]
    assert prediction["mimeType"] == "image/jpeg"
    assert opened(prediction["bytesBase64Encoded"]).size == (1024, 1024)
    assert stand_in.calls[0].model == "gemini-nano-banana-2.1"
    assert stand_in.calls[0].body["generationConfig"] == {"responseModalities": ["IMAGE"]}


async def test_what_open_webui_sends(client: httpx.AsyncClient) -> None:
    """Its instances are one object, and it wants PNG."""
    body = {
        "instances": {"prompt": "a banana"},
        "parameters": {"sampleCount": 2, "outputOptions": {"mimeType": "image/png"}},
    }
    made = (await client.post(PREDICT, json=body)).json()

    assert [prediction["mimeType"] for prediction in made["predictions"]] == ["image/png"] * 2
    assert all(opened(prediction["bytesBase64Encoded"]).format == "PNG" for prediction in made["predictions"])


async def test_what_sillytavern_sends(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """What changes no picture is taken; what is not to be seen is said to the model."""
    parameters = {
        "sampleCount": 1,
        "seed": 5,
        "enhancePrompt": False,
        "negativePrompt": "apples",
        "aspectRatio": "16:9",
        "personGeneration": "allow_all",
        "language": "auto",
        "safetySetting": "block_only_high",
        "addWatermark": False,
        "outputOptions": {"mimeType": "image/jpeg", "compressionQuality": 100},
    }
    path = "/v1/publishers/google/models/imagen-3.0-generate-002:predict"
    made = (await client.post(path, json=ASKED | {"parameters": parameters})).json()

    assert opened(made["predictions"][0]["bytesBase64Encoded"]).format == "JPEG"
    sent = stand_in.calls[0].body
    assert sent["contents"][0]["parts"] == [{"text": "a banana\n\nDo not show: apples"}]
    assert sent["generationConfig"]["imageConfig"] == {"aspectRatio": "16:9"}


async def test_a_picture_to_start_from(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """In Imagen's shape."""
    instance = {"prompt": "bluer", "image": {"bytesBase64Encoded": encoded(png()), "mimeType": "image/png"}}
    assert (await client.post(PREDICT, json={"instances": [instance]})).status_code == 200

    part = stand_in.calls[0].body["contents"][0]["parts"][1]
    assert base64.b64decode(part["inlineData"]["data"]) == png()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "instances"),
        ({"instances": []}, "instances"),
        ({"instances": [{"prompt": "a"}, {"prompt": "b"}]}, "instances"),
        ({"instances": [{"prompt": " "}]}, "instances.0.prompt"),
        ({"instances": [{"prompt": "a", "mask": {"image": {}}}]}, "instances.0.mask"),
        ({"instances": [{"prompt": "a", "image": {}}]}, "instances.0.image"),
        (ASKED | {"parameters": {"sampleCount": 11}}, "parameters.sampleCount"),
        (ASKED | {"parameters": {"aspectRatio": "7:1"}}, "parameters.aspectRatio"),
        (ASKED | {"parameters": {"storageUri": "gs://x"}}, "parameters.storageUri"),
        (ASKED | {"parameters": {"outputOptions": {"mimeType": "image/gif"}}}, "parameters.outputOptions.mimeType"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    client: httpx.AsyncClient, stand_in: StandIn, body: dict[str, Any], named: str
) -> None:
    """400 in Google's shape, nothing sent."""
    response = await client.post(PREDICT, json=body)

    error = response.json()["error"]
    assert (response.status_code, error["status"]) == (400, "INVALID_ARGUMENT")
    assert named in error["message"]
    assert not stand_in.calls


async def test_a_block_is_a_400_with_its_reason(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """In the message, and where a program finds it."""
    stand_in.plan.append("blocked")
    response = await client.post(PREDICT, json=ASKED)

    error = response.json()["error"]
    assert (response.status_code, error["message"]) == (
        400,
        "Google blocked the prompt because its content is prohibited. Change the prompt or the input images. (PROHIBITED_CONTENT)",
    )
    assert error["details"][1]["metadata"] == {"reason": "PROHIBITED_CONTENT"}


async def test_some_of_several_come(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """What failed takes no other with it; when all did, the error is Google's."""
    stand_in.plan.extend(["image-safety", None])
    some = await client.post(PREDICT, json=ASKED | {"parameters": {"sampleCount": 2}})
    stand_in.plan.append("400")
    none = await client.post(PREDICT, json=ASKED)

    assert len(some.json()["predictions"]) == 1
    assert (none.status_code, none.json()["error"]["message"]) == (400, "Request contains an invalid argument.")


async def test_it_takes_no_key_and_knows_its_callers(stand_in: StandIn) -> None:
    """A key is refused by name; a token counts wherever Google's clients put theirs, and goes no further."""
    async with client_of(create_app(settings_for(stand_in, access_tokens=("anna:anna-token",)))) as client:
        headers = {"x-goog-api-key": "anna-token"}
        keyed = await client.post(PREDICT, json=ASKED, headers=headers | {"Idempotency-Key": "k"})
        statuses = [
            (await client.post(PREDICT, json=ASKED)).status_code,
            (await client.post(PREDICT, json=ASKED, headers=headers)).status_code,
            (await client.post(f"{PREDICT}?key=anna-token", json=ASKED)).status_code,
        ]

    assert (keyed.status_code, "Idempotency-Key" in keyed.json()["error"]["message"]) == (400, True)
    assert statuses == [401, 200, 200]
    assert "anna-token" not in str([(call.headers, call.body) for call in stand_in.calls])
