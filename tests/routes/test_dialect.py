"""API formats: which one a request is answered in, wherever it goes wrong."""

import httpx
import pytest
from starlette.requests import Request

from banana.app import DIALECTS, create_app
from banana.routes.dialect import under
from standin.server import StandIn
from tests.conftest import client_of, settings_for

pytestmark = pytest.mark.anyio
GOOGLE = {"x-goog-api-key": "k"}


def shape_of(response: httpx.Response) -> str:
    error = response.json()["error"]
    if "status" in error:
        return "google"
    return "openai" if "type" in error else "generate"


def test_a_claim_is_by_prefix() -> None:
    """Everything below a prefix is claimed, and nothing else."""
    claims = under("/a", "/b/c")

    assert [
        claims(Request({"type": "http", "path": path, "headers": []})) for path in ("/a", "/a/x", "/b/c", "/b", "/")
    ] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("method", "path", "headers", "shape"),
    [
        ("GET", "/nowhere", {}, "generate"),
        ("GET", "/generate", {}, "generate"),
        ("GET", "/v1/images/generations", {}, "openai"),
        ("POST", "/v1/images/nowhere", GOOGLE, "openai"),
        ("POST", "/v1/models", {}, "openai"),
        ("POST", "/v1/models", GOOGLE, "google"),
        ("GET", "/v1beta/nowhere", {}, "google"),
        ("POST", "/v1beta/models/m:nothing", {}, "google"),
        ("GET", "/v1beta1/publishers/google/models/m:generateContent", {}, "google"),
        ("PUT", "/models", {}, "google"),
    ],
)
async def test_an_error_outside_every_route_has_the_shape_of_its_path(
    client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str], shape: str
) -> None:
    """404 and 405 of the framework come in the format that the caller speaks."""
    response = await client.request(method, path, headers=headers)

    assert response.status_code in (404, 405)
    assert shape_of(response) == shape


ROUTES = [
    ("POST", "/generate", {}, "generate"),
    ("POST", "/v1/images/generations", {}, "openai"),
    ("POST", "/v1/images/edits", {}, "openai"),
    ("POST", "/v1beta/models/m:generateContent", {}, "google"),
    ("POST", "/v1/models/m:streamGenerateContent", {}, "google"),
    ("GET", "/v1/models", {}, "openai"),
    ("GET", "/v1/models/m", GOOGLE, "google"),
    ("GET", "/models", {}, "google"),
]


@pytest.mark.parametrize(("method", "path", "headers", "shape"), ROUTES)
async def test_a_defect_has_the_shape_of_its_route(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, method: str, path: str, headers: dict[str, str], shape: str
) -> None:
    """Whatever nobody expected is `internal` in the caller's own format."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    app = create_app(settings_for(stand_in))
    monkeypatch.setattr("banana.admission.tokens.NoAuth.caller_of", broken)
    async with client_of(app) as client:
        response = await client.request(method, path, headers=headers)

    assert (response.status_code, shape_of(response)) == (500, shape)
    assert "secret detail" not in response.text


def test_each_dialect_has_the_name_of_the_log() -> None:
    """The names are those that operators filter by."""
    assert {dialect.name for dialect in DIALECTS} == {
        "generate",
        "openai-images",
        "openai-chat",
        "openai-responses",
        "google",
    }


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1beta/models/m:generateContent", "POST"),
        ("/v1/models/m:countTokens", "POST"),
        ("/v1/models/m", "GET"),
        ("/v1/images/edits", "POST"),
    ],
)
async def test_a_wrong_method_names_the_right_one(client: httpx.AsyncClient, path: str, allowed: str) -> None:
    """A model's name, which could hold a colon, does not stand in the way of Google's methods."""
    response = await client.put(path)

    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert allowed in response.json()["error"]["message"]
