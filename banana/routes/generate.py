"""`POST /generate`, this service's own API format: a prompt and pictures in, pictures out."""

from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response

from banana import errors
from banana.exchange import Exchange
from banana.google.capabilities import SIZES, THINKING_LEVELS, WIDE_RATIOS
from banana.google.contents import tier_of, user_turn
from banana.google.wire import Image
from banana.http.negotiation import preferred_media_type
from banana.http.responses import PiecesResponse, one_line
from banana.images import Failure, Order, Outcome, Outcomes
from banana.money import rounded
from banana.payload.pieces import Bytes, Pieces
from banana.routes import documentation
from banana.routes.deps import MAKES_IMAGES_ONCE, CurrentContext, Services, body_as
from banana.routes.dialect import Dialect, under
from banana.routes.fields import MAX_IMAGES, Integer, ModelName, Pictures, Prompt
from banana.routes.image_endpoint import ImageEndpoint, ResponseWriter, data_uri_of
from banana.routes.shape import Seed, listed, one_of


class GenerateRequest(BaseModel):
    """What to make."""

    model_config = ConfigDict(extra="forbid", title="GenerateRequest")

    prompt: Prompt = Field(description="Describes the image. Must not be blank.", examples=["A banana on the moon"])
    image_base64: Pictures = Field(default=(), description="An input image, or a list of up to 14.")
    model: ModelName | None = Field(
        default=None, description="A Gemini image model. Default: the setting DEFAULT_MODEL."
    )
    number_of_images: Integer | None = Field(
        default=1, ge=1, le=MAX_IMAGES, description="Each image is one call to Google and is billed."
    )
    aspect_ratio: Annotated[str | None, one_of(WIDE_RATIOS), listed(WIDE_RATIOS)] = None
    image_size: Annotated[str | None, one_of(SIZES), listed(SIZES)] = None
    thinking_level: Annotated[str | None, one_of(THINKING_LEVELS), listed(THINKING_LEVELS)] = None
    seed: Seed = None
    service_tier: Annotated[
        Literal["default", "flex", "priority"] | None,
        Field(
            description="flex: half the price where the model has it, and minutes of waiting; priority: 1.8 times the price."
        ),
    ] = None
    response_format: Literal["b64", "url"] | None = Field(
        default=None,
        description="b64: base64. url: links to the images, which are kept for a time. Default: b64; in a task: url.",
    )


class GenerateResponse(BaseModel):
    """The pictures as base64 or links, in the order of the calls that succeeded."""

    images: list[str]
    metadata: dict[str, Any] | None = Field(
        description="null; if some of the images failed: requested, returned, and failed, a list of index, code and message."
    )


def error_response(exchange: Exchange, error: errors.BananaError) -> Response:
    """Return `error` in the shape of this service's own routes."""
    return JSONResponse(error_body(exchange, error), error.status, headers=error.headers)


def error_body(exchange: Exchange, error: errors.BananaError) -> dict[str, Any]:
    """Return `error` as the JSON object of this service's own routes."""
    body = {"code": error.code, "message": error.message, "request_id": error.request_id or exchange.request_id}
    return {"error": body | error.extra | {"may_be_billed": error.may_be_billed}}


def order_of(body: GenerateRequest) -> Order:
    """Read a body into an order."""
    return Order(
        turns=[user_turn(body.prompt, body.image_base64, "image_base64")],
        count=body.number_of_images or 1,
        model_name=body.model,
        aspect_ratio=body.aspect_ratio,
        image_size=body.image_size,
        thinking_level=body.thinking_level,
        seed=body.seed,
        service_tier=tier_of(body.service_tier),
    )


class GenerateWriter(ResponseWriter):
    """JSON with base64, the picture itself, or events: whichever the `Accept` header prefers."""

    def __init__(self, body: GenerateRequest, order: Order, headers: Headers) -> None:
        preferred = preferred_media_type(headers.get("accept", ""))
        self._requested = order.count
        self.as_links = self.needs_links = body.response_format == "url"
        wants_picture = preferred.startswith("image/") and not self.as_links
        if wants_picture and self._requested > 1:
            problem = "must be 1 with Accept: image/*, whose response is one file; leave the header out to get JSON"
            raise errors.InvalidRequest.of_fields([("number_of_images", problem)])
        self._as_picture = wants_picture
        self.streams = preferred == "text/event-stream"
        self.allows_leading_whitespace = not self._as_picture

    def response(self, outcomes: Outcomes, exchange: Exchange) -> Response:
        """Return the images there are."""
        if self._as_picture:
            image = outcomes.images[0]
            return PiecesResponse(list(image.picture.decoded()), image.mime_type)
        return PiecesResponse(result(outcomes, as_links=self.as_links), "application/json")

    def event(self, outcome: Outcome, exchange: Exchange) -> Pieces:
        """Return `image` or `failed`."""
        match outcome.result:
            case Image(picture, mime_type, _, cost_usd):
                start = b'event: image\ndata: {"index":%d,"mime_type":"%s","image":"'
                content = _link_to(outcome) if self.as_links else picture.pieces
                cost = b"" if cost_usd is None else b',"cost_usd":%s' % msgspec.json.encode(rounded(cost_usd))
                return [start % (outcome.index, mime_type.encode()), *content, b'"', cost, b"}\n\n"]
            case errors.BananaError() as error:
                data = {"index": outcome.index} | error_body(exchange, error)
                return [b"event: failed\ndata: " + one_line(data) + b"\n\n"]

        return ()

    def error_event(self, error: errors.BananaError, exchange: Exchange) -> Pieces:
        """Return `error`, which ends the stream."""
        return [b"event: error\ndata: " + one_line(error_body(exchange, error)) + b"\n\n"]

    def last_event(self, failures: list[Failure], cost_usd: Decimal | None, exchange: Exchange) -> Pieces:
        """Return `done`, with what all calls cost, where that is known."""
        cost = {} if cost_usd is None else {"cost_usd": rounded(cost_usd)}
        return [b"event: done\ndata: " + one_line(_summary(self._requested, failures) | cost) + b"\n\n"]


def _summary(requested: int, failures: list[Failure]) -> dict[str, Any]:
    failed = [
        {"index": failure.index, "code": failure.error.code, "message": failure.error.message} for failure in failures
    ]
    return {"requested": requested, "returned": requested - len(failed), "failed": failed}


def result(outcomes: Outcomes, *, as_links: bool) -> Pieces:
    """Return the body around the base64 as it came, or around links, in pieces."""
    pieces: list[Bytes] = []
    for outcome in outcomes.all:
        if isinstance(outcome.result, Image):
            pieces.append(b'","' if pieces else b'{"images":["')
            pieces.extend(_link_to(outcome) if as_links else outcome.result.picture.pieces)
    metadata = _summary(len(outcomes.all), outcomes.failures) if outcomes.failures else None
    pieces.append(b'"],"metadata":' + msgspec.json.encode(metadata) + b"}")
    return pieces


def _link_to(outcome: Outcome) -> Pieces:
    """Return the link to an image; a data URI where it could not be kept."""
    return [outcome.url.encode()] if outcome.url else data_uri_of(outcome)


def _writer_for(body: GenerateRequest, order: Order, headers: Headers, _: Services) -> GenerateWriter:
    return GenerateWriter(body, order, headers)


DIALECT = Dialect("generate", under("/generate"), error_response)
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {name: {"type": "string"} for name in ("code", "message", "request_id")}
            | {
                "may_be_billed": {
                    "type": "boolean",
                    "description": "Whether Google may have billed a call of the request.",
                }
            },
        }
    },
}
_CONTENT: dict[str, Any] = {
    "application/json": {"schema": documentation.schema_of(GenerateResponse)},
    "image/*": {"schema": {"type": "string", "format": "binary"}},
    "text/event-stream": {"schema": {}},
}
ENDPOINT = ImageEndpoint(
    path="/generate",
    body=GenerateRequest,
    order_of=order_of,
    writer_for=_writer_for,
    result=result,
    explicit_base64="b64",
    dialect=DIALECT,
)
router = APIRouter(tags=["images"], dependencies=MAKES_IMAGES_ONCE)


@router.post(
    ENDPOINT.path,
    operation_id="generate",
    summary="Generate images",
    responses=documentation.responses(_CONTENT, ERROR_SCHEMA, or_task=True),
    openapi_extra={
        "requestBody": documentation.request_body(
            GenerateRequest, {"prompt": documentation.EXAMPLE_PROMPT}, pictures="image_base64", form=True
        )
    },
)
async def generate(
    body: Annotated[GenerateRequest, Depends(body_as(GenerateRequest, files="image_base64"))], context: CurrentContext
) -> Response:
    """Generates images from text, or from text and images.

    With `Accept: image/*` and one image, the response is the image file itself. With `Accept: text/event-stream` it is
    server-sent events: `image` for each image when it is ready, `failed` for each that failed, then `done`.
    """
    return await ENDPOINT.respond(body, context)
