"""The lists of models, in both shapes."""

import httpx
import pytest

from banana import errors
from banana.app import create_app
from banana.routes.models import image_models
from standin.server import StandIn
from tests.conftest import client_of, settings_for

pytestmark = pytest.mark.anyio
GOOGLE = {"x-goog-api-key": "k"}


async def test_one_path_has_two_shapes(client: httpx.AsyncClient) -> None:
    """`/v1/models` is Google's with Google's header, and OpenAI's without it."""
    in_google_shape = (await client.get("/v1/models", headers=GOOGLE)).json()
    in_openai_shape = (await client.get("/v1/models")).json()

    assert "models/gemini-3-pro-image" in [model["name"] for model in in_google_shape["models"]]
    assert in_openai_shape["object"] == "list"
    assert "gemini-3-pro-image" in [model["id"] for model in in_openai_shape["data"]]


@pytest.mark.parametrize("prefix", ["/v1beta", "/v1beta1/publishers/google", ""])
async def test_the_other_prefixes_are_googles(client: httpx.AsyncClient, prefix: str) -> None:
    """With any header or none."""
    assert "models" in (await client.get(f"{prefix}/models")).json()
    assert (await client.get(f"{prefix}/models/gemini-3-pro-image")).status_code == 200


async def test_one_model_by_any_of_its_names(client: httpx.AsyncClient) -> None:
    """An alias is the model it is sent as; what does not exist is 404 in the shape of the caller."""
    found = await client.get("/v1/models/gpt-image-1")
    missing = await client.get("/v1/models/gpt-9")

    assert found.json() == {
        "id": "gemini-3-pro-image",
        "object": "model",
        "created": 0,
        "owned_by": "google",
        "default": True,
        "service_tiers": {"default": 1.0, "flex": 0.5, "priority": 1.8},
        "aspect_ratios": ["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"],
        "image_sizes": ["1K", "2K", "4K"],
        "thinking_levels": [],
        "pricing": {
            "prompt": "0.000002",
            "completion": "0.000012",
            "image_output": "0.00012",
            "picture": {"1K": "0.1344", "2K": "0.1344", "4K": "0.24"},
        },
    }
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"models":5}', b'{"models":[{}]}', b'{"models":[{"name":5}]}'])
def test_a_list_that_is_none_is_googles_fault(body: bytes) -> None:
    """502, not a traceback."""
    with pytest.raises(errors.InvalidResponse):
        image_models(body)


def test_only_models_that_make_images_are_listed() -> None:
    """OpenAI's clients offer the list to people who want pictures."""
    assert image_models(b'{"models":[{"name":"models/a-banana"},{"name":"models/text"}]}') == ["a-banana"]


async def test_prices_are_those_that_are_charged(stand_in: StandIn) -> None:
    """One's own go before the table; one that nobody knows is not said."""
    own = settings_for(stand_in, prices="gemini-nano-banana-2.1=40/8/1", default_model="gemini-nano-banana-2.1")
    async with client_of(create_app(own)) as client:
        found = {model["id"]: model for model in (await client.get("/v1/models")).json()["data"]}

    assert found["gemini-nano-banana-2.1"]["pricing"]["picture"] == {"1K": "0.0448", "2K": "0.0672", "4K": "0.1512"}
    assert [name for name, model in found.items() if model["default"]] == ["gemini-nano-banana-2.1"]
