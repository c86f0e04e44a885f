"""Routes by the first segment of their paths."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Route

from banana.app import create_app
from banana.routes.index import RouteIndex
from standin.server import StandIn
from tests.conftest import settings_for

pytestmark = pytest.mark.anyio


async def path_of_route(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.scope["route"].path)


ROUTES = [
    Route("/", path_of_route),
    Route("/v1/models", path_of_route),
    Route("/v1/models/{name}:make", path_of_route, methods=["POST"]),
    Route("/v1/models/{name}", path_of_route),
    Route("/v1beta/{name}", path_of_route),
]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", (200, "/")),
        ("GET", "/v1/models", (200, "/v1/models")),
        ("POST", "/v1/models/a:make", (200, "/v1/models/{name}:make")),
        ("GET", "/v1/models/a:make", (200, "/v1/models/{name}")),
        ("GET", "/v1beta/a", (200, "/v1beta/{name}")),
        ("DELETE", "/v1/models/a", (405, "Method Not Allowed")),
        ("GET", "/v1", (404, "Not Found")),
        ("GET", "/v1/models/", (404, "Not Found")),
        ("GET", "/v2/models", (404, "Not Found")),
        ("GET", "//v1/models", (404, "Not Found")),
    ],
)
async def test_the_route_is_the_one_that_the_router_would_find(
    method: str, path: str, expected: tuple[int, str]
) -> None:
    """The first that matches in full, else the first of another method, else none."""
    found = []
    for routes in ([RouteIndex(ROUTES)], ROUTES):
        app = Starlette(routes=routes)
        app.router.redirect_slashes = False
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            response = await client.request(method, f"http://x{path}")
            found.append((response.status_code, response.text))

    assert found == [expected, expected]


async def test_every_route_of_the_service_is_in_the_index(stand_in: StandIn) -> None:
    """But for those that FastAPI adds behind it; none begins with a parameter."""
    routes = create_app(settings_for(stand_in)).router.routes
    index, others = routes[0], [route for route in routes[1:] if isinstance(route, Route)]

    assert isinstance(index, RouteIndex)
    for route in others:
        segments = route.path.split("/")
        assert not segments[1].startswith("{")
        path = "/".join("x" if "{" in segment and ":" not in segment else segment for segment in segments)
        scope = {"type": "http", "method": "TRACE", "path": path.replace("{model}", "x"), "headers": []}
        is_added_by_fastapi = (
            route.path in ("/openapi.json", "/docs", "/docs/oauth2-redirect") or "static" in route.path
        )
        assert is_added_by_fastapi or index.matches(scope)[0] is not Match.NONE, route.path
