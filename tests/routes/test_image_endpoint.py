"""How an endpoint for images is served, whatever its format: tried with a format of the test's own."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response

from banana import errors
from banana.app import create_app
from banana.exchange import Exchange
from banana.google.contents import user_turn
from banana.google.wire import Image
from banana.images import Failure, Order, Outcome, Outcomes
from banana.intervals import Intervals
from banana.payload.pieces import Pieces
from banana.routes import generate
from banana.routes.deps import MAKES_IMAGES_ONCE, CurrentContext, Services, body_as
from banana.routes.dialect import Dialect, under
from banana.routes.fields import Prompt
from banana.routes.image_endpoint import ImageEndpoint, ResponseWriter
from standin.server import StandIn
from tests.conftest import client_of, settings_for

pytestmark = pytest.mark.anyio


class Wish(BaseModel):
    """The body of a format that nobody speaks."""

    wish: Prompt
    count: int = 1
    live: bool = False


class WishWriter(ResponseWriter):
    def __init__(self, body: Wish, order: Order, headers: Headers, services: Services) -> None:
        self.streams = body.live

    def response(self, outcomes: Outcomes, exchange: Exchange) -> Response:
        return JSONResponse({"granted": len(outcomes.images), "refused": len(outcomes.failures)})

    def event(self, outcome: Outcome, exchange: Exchange) -> Pieces:
        return [b"granted %d\n" % outcome.index] if isinstance(outcome.result, Image) else ()

    def error_event(self, error: errors.BananaError, exchange: Exchange) -> Pieces:
        return [b"error: " + error.code.encode()]

    def last_event(self, failures: list[Failure], cost_usd: Decimal | None, exchange: Exchange) -> Pieces:
        return [b"over, refused: ", *(b"%d " % failure.index for failure in failures)]


DIALECT = Dialect("wishes", under("/wish"), generate.error_response)
ENDPOINT: ImageEndpoint[Wish] = ImageEndpoint(
    path="/wish",
    body=Wish,
    order_of=lambda body: Order([user_turn(body.wish)], count=body.count),
    writer_for=WishWriter,
    result=lambda outcomes, *, as_links: [b"{}"],
    explicit_base64="b64",
    dialect=DIALECT,
)
router = APIRouter(dependencies=MAKES_IMAGES_ONCE)


@router.post("/wish")
async def wish(body: Annotated[Wish, Depends(body_as(Wish))], context: CurrentContext) -> Response:
    return await ENDPOINT.respond(body, context)


@pytest.fixture
async def wishes(stand_in: StandIn) -> AsyncIterator[httpx.AsyncClient]:
    """A service that speaks one format more: one value, and one router."""
    settings = settings_for(stand_in, keepalive_seconds=0.05, request_timeout_seconds=3)
    app = create_app(settings, intervals=Intervals(silence=0.02))
    app.include_router(router)
    async with client_of(app) as client:
        yield client


async def asked(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/wish", json={"wish": "a banana"} | body)


async def test_a_new_format_is_pure_functions(wishes: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Body to order, outcomes to response: limit, deadline, retries and counting come by themselves."""
    stand_in.plan.extend([None, "image-safety", "503"])

    response = await asked(wishes, count=3)

    assert response.json() == {"granted": 2, "refused": 1}
    assert response.headers["x-ratelimit-remaining"] == "59"
    assert len(stand_in.calls) == 4


async def test_its_events_come_as_the_outcomes_do(wishes: httpx.AsyncClient, stand_in: StandIn) -> None:
    """An outcome without an event is left out; the last event ends the stream."""
    stand_in.plan.extend([None, "image-safety"])

    response = await asked(wishes, count=2, live=True)

    assert response.headers["content-type"].startswith("text/event-stream")
    # Which of the two calls arrives first is not known.
    assert response.text in ("granted 0\nover, refused: 1 ", "granted 1\nover, refused: 0 ")


async def test_errors_have_its_shape_also_behind_whitespace(wishes: httpx.AsyncClient, stand_in: StandIn) -> None:
    """A refusal is the dialect's, early with its status, late in the body."""
    early = await wishes.post("/wish", json={})
    stand_in.latency_seconds = 0.3
    stand_in.plan.append("hang")
    late = await wishes.post("/wish", json={"wish": "x"}, timeout=20)

    assert (early.status_code, early.json()["error"]["code"]) == (422, "invalid_request")
    assert late.text.startswith(" ")
    assert (late.status_code, late.json()["error"]["code"]) == (200, "timeout")


async def test_silence_becomes_comments(wishes: httpx.AsyncClient, stand_in: StandIn) -> None:
    """While nothing is there yet, the stream has comments."""
    stand_in.latency_seconds = 0.3

    assert ": keep-alive\n" in (await asked(wishes, live=True)).text
