"""OpenRouter's route for images."""

import base64
from typing import Any

import httpx
import pytest

from standin.server import StandIn
from tests.pictures import encoded, opened, png

pytestmark = pytest.mark.anyio
IMAGES = "/v1/images"


async def test_pictures_come_with_their_types(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Ratio and size by OpenRouter's names, pictures to start from among them; the cost beside the tokens."""
    reference = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded(png())}"}}
    body = {
        "model": "google/gemini-3-pro-image",
        "prompt": "a banana",
        "aspect_ratio": "16:9",
        "resolution": "2K",
        "input_references": [reference],
        "provider": {"order": ["google"], "note": "x" * 2000},
    }
    made = (await client.post(IMAGES, json=body)).json()

    (item,) = made["data"]
    assert item["media_type"] == "image/jpeg"
    assert opened(item["b64_json"]).format == "JPEG"
    assert made["usage"]["cost"] > 0.13
    sent = stand_in.calls[0].body
    assert sent["generationConfig"]["imageConfig"] == {"aspectRatio": "16:9", "imageSize": "2K"}
    assert base64.b64decode(sent["contents"][0]["parts"][1]["inlineData"]["data"]) == png()


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"resolution": "9K"}, "resolution"),
        ({"input_references": [{"file_id": "x"}]}, "input_references"),
        ({"x": 1}, "x"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    client: httpx.AsyncClient, stand_in: StandIn, more: dict[str, Any], param: str
) -> None:
    """400, nothing sent."""
    response = await client.post(IMAGES, json={"prompt": "x"} | more)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not stand_in.calls


async def test_it_is_paid_once_and_kept_as_others(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """A key, and a task whose result has links."""
    key = {"Idempotency-Key": "k"}
    bodies = [(await client.post(IMAGES, json={"prompt": "x"}, headers=key)).content for _ in range(2)]
    begun = (await client.post(IMAGES, json={"prompt": "y"}, headers={"Prefer": "respond-async"})).json()
    task = (await client.get(f"/v1/images/tasks/{begun['id']}?wait=20")).json()

    assert bodies[0] == bodies[1]
    assert len(stand_in.calls) == 2
    assert task["result"]["data"][0]["url"].startswith("http://127.0.0.1/results/")
