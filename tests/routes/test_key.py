"""`GET /v1/key`."""

import httpx
import pytest

from banana.app import create_app
from standin.server import StandIn
from tests.conftest import client_of, settings_for

pytestmark = pytest.mark.anyio
COST = 0.137116


async def test_a_caller_without_a_budget_sees_what_it_spent(client: httpx.AsyncClient) -> None:
    """In OpenRouter's shape, at once; an address is its own label."""
    await client.post("/generate", json={"prompt": "a banana", "number_of_images": 2})

    response = await client.get("/v1/key")

    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {
        "data": {
            "label": "127.0.0.1",
            "limit": None,
            "limit_remaining": None,
            "limit_reset": None,
            "usage": 2 * COST,
            "usage_daily": 2 * COST,
            "usage_weekly": 2 * COST,
            "usage_monthly": 2 * COST,
        }
    }
    assert "x-budget-remaining-usd" not in response.headers


@pytest.mark.parametrize(("window", "reset"), [("day", "daily"), ("month", "monthly")])
async def test_a_budget_is_told(stand_in: StandIn, window: str, reset: str) -> None:
    """To the holder of each token its own."""
    settings = settings_for(stand_in, access_tokens="ann:a,bob:b", budgets=f"ann=1/{window}")
    async with client_of(create_app(settings)) as client:
        ann, bob = {"Authorization": "Bearer a"}, {"Authorization": "Bearer b"}
        made = await client.post("/generate", json={"prompt": "a banana"}, headers=ann)
        mine, others = [(await client.get("/v1/key", headers=token)) for token in (ann, bob)]

    assert mine.json()["data"] | {"label": "ann", "limit": 1, "limit_reset": reset} == mine.json()["data"]
    assert mine.json()["data"]["limit_remaining"] == round(1 - COST, 6)
    assert mine.headers["x-budget-remaining-usd"] == made.headers["x-budget-remaining-usd"] == f"{1 - COST:.6f}"
    assert others.json()["data"]["usage"] == 0


async def test_only_a_token_opens_it(stand_in: StandIn) -> None:
    """In OpenAI's shape of an error."""
    async with client_of(create_app(settings_for(stand_in, access_tokens="a"))) as client:
        response = await client.get("/v1/key")

    assert (response.status_code, response.json()["error"]["type"]) == (401, "authentication_error")
