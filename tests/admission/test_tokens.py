"""Who may call, and by which header."""

import httpx
import pytest

from banana.app import create_app
from standin.server import StandIn
from tests.conftest import KEY, client_of, error_of, settings_for

pytestmark = pytest.mark.anyio
TOKENS = ("anna:CANARY-TOKEN-A", "CANARY-TOKEN-B")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer CANARY-TOKEN-A"},
        {"authorization": "bearer CANARY-TOKEN-B"},
        {"x-goog-api-key": "CANARY-TOKEN-A"},
        {"x-api-key": "CANARY-TOKEN-B"},
        {"Authorization": "Bearer wrong", "x-goog-api-key": "CANARY-TOKEN-A"},
        {"Authorization": "Bearer CANARY-TOKEN-A", "x-api-key": ""},
    ],
)
async def test_a_token_opens_the_door_and_goes_no_further(stand_in: StandIn, headers: dict[str, str]) -> None:
    """Each SDK's header is understood; Google sees our key and nothing of the caller's."""
    async with client_of(create_app(settings_for(stand_in, access_tokens=TOKENS))) as client:
        response = await client.post("/generate", json={"prompt": "x"}, headers=headers)

    assert response.status_code == 200
    (call,) = stand_in.calls
    assert call.key == KEY
    assert "authorization" not in call.headers
    assert "CANARY" not in str(call.headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic x"},
        {"x-api-key": ""},
        {"x-api-key": "é"},
        {"Authorization": "Bearer   "},
        {"x-goog-api-key": " "},
    ],
)
async def test_without_a_right_token_it_is_401(stand_in: StandIn, headers: dict[str, str]) -> None:
    """None or a wrong one: 401, nothing counted, nothing asked of Google."""
    async with client_of(create_app(settings_for(stand_in, access_tokens=TOKENS))) as client:
        response = await client.post(
            "/generate", json={"prompt": "x"}, headers=[(k.encode(), v.encode()) for k, v in headers.items()]
        )
        health = await client.get("/health")

    assert (response.status_code, error_of(response)["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert "CANARY" not in response.text
    assert health.status_code == 200
    assert not stand_in.calls


async def test_each_token_has_its_own_rate_limit(stand_in: StandIn) -> None:
    """One holder's requests are not another's."""
    app = create_app(settings_for(stand_in, access_tokens=TOKENS, rate_limit_per_minute=2))
    async with client_of(app) as client:

        async def ask(token: str) -> httpx.Response:
            return await client.post("/generate", json={}, headers={"x-api-key": token})

        first = [(await ask("CANARY-TOKEN-A")).status_code for _ in range(3)]
        second = [(await ask("CANARY-TOKEN-B")).status_code for _ in range(3)]

    assert first == second == [422, 422, 429]
