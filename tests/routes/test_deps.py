"""What every route asks before it does anything, and in which order."""

import asyncio

import httpx
import pytest

from banana.app import create_app
from standin.server import StandIn
from tests.conftest import client_of, served, settings_for
from tests.routes.test_dialect import ROUTES, shape_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("method", "path", "headers", "shape"), ROUTES)
async def test_every_route_wants_a_token_and_counts(
    stand_in: StandIn, method: str, path: str, headers: dict[str, str], shape: str
) -> None:
    """Without a token 401, over the rate limit 429, each in the format of the route; nothing reaches Google."""
    app = create_app(settings_for(stand_in, access_tokens=("secret",), rate_limit_per_minute=1))
    async with client_of(app) as client:
        refused = await client.request(method, path, headers=headers)
        token = {"Authorization": "Bearer secret"} if not headers else {"x-goog-api-key": "secret"}
        await client.request(method, path, headers=token, content=b"{" if method == "POST" else None)
        limited = await client.request(method, path, headers=token)

    assert (refused.status_code, shape_of(refused)) == (401, shape)
    assert (limited.status_code, shape_of(limited)) == (429, shape)
    assert limited.headers["x-ratelimit-remaining"] == "0"
    assert "x-ratelimit-limit" not in refused.headers


async def test_no_body_is_read_of_a_request_that_is_refused(stand_in: StandIn) -> None:
    """Neither without a token nor over the rate limit: what would be wrong with the body is not said."""
    app = create_app(settings_for(stand_in, access_tokens=("secret",), rate_limit_per_minute=1))
    token = {"Authorization": "Bearer secret"}
    async with client_of(app) as client:
        refused = await client.post("/generate", content=b"{")
        read = await client.post("/generate", content=b"{", headers=token)
        limited = await client.post("/generate", content=b"{", headers=token)

    assert [response.status_code for response in (refused, read, limited)] == [401, 422, 429]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1beta/models/m:countTokens"),
        ("POST", "/v1beta/models/m:streamGenerateContent"),
        ("POST", "/v1beta/models/m:predict"),
        ("POST", "/v1/responses/resp_x/cancel"),
    ],
)
async def test_a_key_is_refused_where_there_are_none(client: httpx.AsyncClient, method: str, path: str) -> None:
    """A caller who relies on it is not to pay twice."""
    response = await client.request(method, path, json={}, headers={"Idempotency-Key": "k"})

    assert response.status_code in (400, 422)
    assert "Idempotency-Key" in response.text


async def test_a_parameter_that_is_none_is_named(client: httpx.AsyncClient) -> None:
    """What FastAPI finds wrong comes in our words, in the format of the route."""
    response = await client.get("/v1/images/tasks?limit=many")

    assert (response.status_code, response.json()["error"]["param"]) == (400, "limit")


async def test_what_fastapi_documents_is_what_is_asked(client: httpx.AsyncClient) -> None:
    """The header of a key, `Prefer` and the token stand at every route that takes them."""
    operations = (await client.get("/openapi.json")).json()["paths"]
    names = {parameter["name"] for parameter in operations["/generate"]["post"]["parameters"]}

    assert names == {"Idempotency-Key", "Prefer"}
    assert "parameters" not in operations["/health"]["get"]
    assert "security" not in operations["/generate"]["post"]


async def test_a_token_is_documented_where_one_is_needed(stand_in: StandIn) -> None:
    """/docs asks for it."""
    async with client_of(create_app(settings_for(stand_in, access_tokens=("secret",)))) as client:
        operations = (await client.get("/openapi.json")).json()["paths"]

    assert operations["/generate"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in operations["/health"]["get"]


async def test_a_parameter_that_is_none_tells_the_budget_too(stand_in: StandIn) -> None:
    """What is left of it stands on every answer to a caller who has one."""
    async with client_of(create_app(settings_for(stand_in, budgets="*=5/day"))) as client:
        response = await client.get("/v1/images/tasks?limit=many")

    assert response.headers["x-budget-remaining-usd"] == "5.000000"


async def test_who_leaves_while_its_key_is_claimed_is_counted(stand_in: StandIn) -> None:
    """The job runs on for a repeat of the key, and counts against the rate limit."""
    app = create_app(settings_for(stand_in, rate_limit_per_minute=3))
    async with served(app) as address:
        for number in range(30):
            body = b'{"prompt":"x"}'
            head = f"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: {number}\r\nContent-Length: {len(body)}\r\n\r\n"
            _, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
            writer.write(head.encode() + body)
            await asyncio.sleep(0.002 + number % 5 / 1000)
            writer.transport.abort()
        async with httpx.AsyncClient(base_url=address) as client:
            limited = await client.post("/generate", json={"prompt": "x"})

    assert len(stand_in.calls) <= 3
    assert limited.status_code in (200, 429)  # or nobody's key was claimed in so short a time
