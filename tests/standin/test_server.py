"""The stand-in itself: it refuses what Google refuses, so that no test passes by its kindness."""

from typing import Any

import httpx
import pytest

from standin.server import StandIn
from tests.pictures import encoded, opened, png

pytestmark = pytest.mark.anyio
WORDS = {"contents": [{"role": "user", "parts": [{"text": "a banana"}]}]}
KEY = {"x-goog-api-key": "k"}


async def ask(
    stand_in: StandIn,
    body: Any = None,
    headers: dict[str, str] | None = None,
    call: str = "gemini-3-pro-image:generateContent",
) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(
            f"{stand_in.base_url}/models/{call}",
            json=WORDS if body is None else body,
            headers=KEY if headers is None else headers,
        )


async def test_a_picture_is_made(stand_in: StandIn) -> None:
    """An answer in Gemini's format, with usage; what arrived can be looked at."""
    response = await ask(stand_in)

    part = response.json()["candidates"][0]["content"]["parts"][0]
    assert opened(part["inlineData"]["data"]).size == (1024, 1024)
    assert response.json()["usageMetadata"]["totalTokenCount"] > 0
    assert (stand_in.calls[0].model, stand_in.calls[0].key, stand_in.calls[0].ended) == (
        "gemini-3-pro-image",
        "k",
        True,
    )


def with_config(**config: Any) -> dict[str, Any]:
    return WORDS | {"generationConfig": config}


def with_picture(mime_type: str, data: str) -> dict[str, Any]:
    return {"contents": [{"parts": [{"text": "x"}, {"inlineData": {"mimeType": mime_type, "data": data}}]}]}


REFUSED = [
    ("", 400),
    ([], 400),
    ({}, 400),
    (WORDS | {"seed": 1}, 400),
    (with_config(candidateCount=2), 400),
    (with_config(imageConfig={"imageSize": "512"}), 400),
    (with_config(imageConfig={"imageSize": "1k"}), 400),
    (with_config(imageConfig={"aspectRatio": "8:1"}), 400),
    (with_picture("image/gif", encoded(png())), 400),
    (with_picture("image/png", "?"), 400),
    ({"contents": [{"parts": "x"}]}, 400),
]


@pytest.mark.parametrize(("body", "status"), REFUSED)
async def test_what_google_refuses_is_refused(stand_in: StandIn, body: Any, status: int) -> None:
    """Unknown fields, sizes, ratios and types; several candidates; base64 that is none."""
    response = await ask(stand_in, body)

    assert (response.status_code, response.json()["error"]["code"]) == (status, status)


async def test_credentials_are_those_of_google(stand_in: StandIn) -> None:
    """None, two at once and a bad one are refused."""
    stand_in.bad_keys = {"bad"}

    statuses = [
        (await ask(stand_in, headers=headers)).status_code
        for headers in ({}, KEY | {"Authorization": "Bearer x"}, {"x-goog-api-key": "bad"}, KEY)
    ]

    assert statuses[-1] == 200
    assert all(status in (400, 401, 403) for status in statuses[:-1])


async def test_an_unknown_model_and_an_unknown_path_are_404(stand_in: StandIn) -> None:
    """In Google's shape both."""
    assert (await ask(stand_in, call="gemini-1:generateContent")).json()["error"]["status"] == "NOT_FOUND"
    assert (await ask(stand_in, call="x:y")).status_code == 404


async def test_a_prompt_may_ask_for_a_fault(stand_in: StandIn) -> None:
    """The demo can show every failure."""
    body = {"contents": [{"parts": [{"text": "a banana [fault:503]"}]}]}

    assert (await ask(stand_in, body)).status_code == 503


async def test_a_stream_has_a_thought_before_its_picture(stand_in: StandIn) -> None:
    """Two events, as Google sends them."""
    response = await ask(stand_in, call="gemini-3-pro-image:streamGenerateContent?alt=sse")

    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.count("data: ") == 2
