"""Who may call, and by which header."""

from pathlib import Path

import httpx
import pytest

from banana.admission.tokens import is_possible_caller
from banana.app import create_app
from banana.redaction import digest_of
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


GOOGLE = "/v1beta/models/gemini-3-pro-image:generateContent"
CONTENTS = {"contents": [{"parts": [{"text": "x"}]}]}


@pytest.mark.parametrize(
    ("query", "status"),
    [("key=CANARY-TOKEN-A", 200), ("key=wrong&key=CANARY-TOKEN-B", 200), ("alt=json&key=CANARY-TOKEN-A", 200),
     ("key=", 401), ("key=%20", 401), ("key=wrong", 401), ("KEY=CANARY-TOKEN-A", 401)],
)  # fmt: skip
async def test_googles_routes_take_a_token_in_the_query(stand_in: StandIn, query: str, status: int) -> None:
    """Where Google's own clients put their key; it is not passed on and not logged."""
    async with client_of(create_app(settings_for(stand_in, access_tokens=TOKENS))) as client:
        response = await client.post(f"{GOOGLE}?{query}", json=CONTENTS)

    assert response.status_code == status
    assert len(stand_in.calls) == (status == 200)
    assert "CANARY" not in "".join(str(call) for call in stand_in.calls)
    assert "CANARY" not in Path("logs/app.log").read_text(encoding="utf-8")


async def test_a_token_in_the_query_is_googles_manner_alone(stand_in: StandIn) -> None:
    """Elsewhere it is none; `/v1/models` with one is Google's list."""
    async with client_of(create_app(settings_for(stand_in, access_tokens=TOKENS))) as client:
        ours = await client.post("/generate?key=CANARY-TOKEN-A", json={"prompt": "x"})
        models = await client.get("/v1/models?key=CANARY-TOKEN-A")

    assert ours.status_code == 401
    assert models.json()["models"]


async def test_wrong_tokens_are_limited_by_address(stand_in: StandIn) -> None:
    """Beyond 60 in a minute they are 429; who has a right one, or another address, is served all the same."""
    app = create_app(settings_for(stand_in, access_tokens=TOKENS, rate_limit_per_minute=5))
    async with client_of(app) as client:
        wrong = [await client.post("/generate", json={}, headers={"x-api-key": str(number)}) for number in range(80)]
        right = await client.post("/generate", json={"prompt": "x"}, headers={"x-api-key": "CANARY-TOKEN-B"})
        elsewhere = await client.post("/generate", json={}, headers={"X-Forwarded-For": "203.0.113.9"})

    assert [response.status_code for response in wrong] == [401] * 60 + [429] * 20
    assert (error_of(wrong[-1])["code"], wrong[-1].headers["retry-after"] <= "60") == ("rate_limited", True)
    assert (right.status_code, right.headers["x-ratelimit-remaining"], elsewhere.status_code) == (200, "4", 401)


async def test_addresses_of_one_network_are_one_caller(stand_in: StandIn) -> None:
    """A customer's 2^64 addresses of IPv6 share one rate limit; a forwarded text that is no address is the proxy."""
    async with client_of(create_app(settings_for(stand_in, rate_limit_per_minute=2))) as client:
        addresses = [f"2001:db8::{number}" for number in range(1, 5)] + [f"nobody {number}" for number in range(4)]
        statuses = [
            (await client.post("/generate", json={"prompt": "x"}, headers={"X-Forwarded-For": address})).status_code
            for address in addresses
        ]

    assert statuses == [200, 200, 429, 429] * 2


@pytest.mark.parametrize(
    ("name", "tokens", "is_one"),
    [("ann", ("ann:a", "b"), True), ("bob", ("ann:a", "b"), False), (f"token-{digest_of('b')}", ("ann:a", "b"), True),
     ("10.0.0.1", (), True), ("2001:db8::/64", (), True), ("ann", (), False), ("10.0.0.1", ("ann:a",), False)],
)  # fmt: skip
def test_who_can_be_a_caller(name: str, tokens: tuple[str, ...], is_one: bool) -> None:
    """The name of a token; without tokens an address, or the network that counts as one."""
    assert is_possible_caller(name, tokens) is is_one
