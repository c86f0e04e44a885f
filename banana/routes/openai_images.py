"""OpenAI's images, `/v1/images/generations` and `/v1/images/edits`, for programs written for its SDKs.

What cannot be honoured is refused by name, before anything is paid for. Source: OpenAI's API reference, Images.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from starlette.datastructures import Headers
from starlette.responses import Response

from banana import errors
from banana.exchange import Exchange
from banana.google.contents import Turn, tier_of, user_turn
from banana.google.wire import Image
from banana.http.bodies import NO_MASKS
from banana.http.responses import PiecesResponse, one_line
from banana.images import Failure, Order, Outcome, Outcomes
from banana.payload.pieces import Bytes, Pieces
from banana.routes import documentation, openai
from banana.routes.deps import MAKES_IMAGES_ONCE, CurrentContext, Services, body_as
from banana.routes.dialect import Dialect, under
from banana.routes.fields import (
    MAX_IMAGES,
    REFUSED,
    Integer,
    ModelName,
    Pictures,
    Prompt,
    ServiceTier,
    ShortText,
    refusal,
)
from banana.routes.image_endpoint import ImageEndpoint, ResponseWriter, data_uri_of
from banana.routes.shape import ImageShape


class ImageOptions(ImageShape):
    """How OpenAI's API formats say what an image is to be."""

    model_config = ConfigDict(extra="forbid")

    model: ModelName | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = Field(
        default=None, description="Default: the format that Google sent."
    )
    output_compression: Integer | None = Field(
        default=None, ge=0, le=100, description="Quality of JPEG and WebP, in percent."
    )
    partial_images: Integer | None = Field(
        default=None, ge=0, le=3, description="Accepted, but no partial images are sent."
    )
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto", "low"] | None = Field(
        default=None, description="Accepted and ignored; Google's content policy applies."
    )
    input_fidelity: Literal["high", "low"] | None = Field(
        default=None, description="Accepted and ignored; it is always high."
    )


class ImagesRequest(ImageOptions):
    """OpenAI's request for images."""

    prompt: Prompt = Field(examples=["A banana on the moon"])
    n: Integer | None = Field(
        default=1, ge=1, le=MAX_IMAGES, description="Each image is one call to Google and is billed."
    )
    response_format: Literal["b64_json", "url"] | None = Field(
        default=None,
        description="url: a link to the image, which is kept for a time; a data URI if the service keeps no results.",
    )
    stream: bool | None = False
    user: ShortText | None = Field(default=None, description="Written to the log.")
    safety_identifier: ShortText | None = Field(default=None, description="Same as `user`.")
    style: ShortText | None = Field(default=None, description="Accepted and ignored.")
    service_tier: ServiceTier = None


class EditRequest(ImagesRequest):
    """The same, with pictures to start from."""

    images: Pictures = Field(
        default=(), description="Another way to send `image`; items may be objects with an `image_url`."
    )
    image: Pictures = Field(default=None, validate_default=True, description="An input image, or a list of up to 14.")
    mask: Annotated[None, refusal(NO_MASKS), REFUSED] = None

    @field_validator("images", mode="before")
    @classmethod
    def _without_objects(cls, value: object) -> object:
        return [address_in(item) for item in value] if isinstance(value, list) else value

    @field_validator("image")
    @classmethod
    def _is_given_once(cls, value: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        images = info.data.get("images", ())
        if value and images:
            raise ValueError("and images are both set; send only one of them")
        if not value and not images and "images" in info.data:
            raise ValueError("is missing; send an input image")
        return value


def address_in(item: object) -> object:
    """Return what an item of `images` points at. Raises ValueError for a file that was to be uploaded before."""
    if not isinstance(item, dict):
        return item
    if "image_url" not in item:
        raise ValueError("has an object without image_url; uploaded files are not supported, send images as data URIs")
    address = item["image_url"]
    return address["url"] if isinstance(address, dict) and "url" in address else address


def order_of(body: ImagesRequest) -> Order:
    """Read a body into an order."""
    return order_with(
        body,
        [user_turn(body.prompt, (body.image or body.images) if isinstance(body, EditRequest) else ())],
        count=body.n or 1,
        user=body.user or body.safety_identifier,
    )


def order_with(body: ImageOptions, turns: Sequence[Turn], **more: Any) -> Order:
    """Return an order of images as `body` wants them, and with `more`, which goes before it."""
    if isinstance(body, ImagesRequest):
        more.setdefault("service_tier", tier_of(body.service_tier))
    wanted: dict[str, Any] = {
        "model_name": body.model,
        "output_format": body.output_format,
        "output_quality": body.output_compression,
    }
    return Order(turns, **body.shape() | wanted | more)


class ImagesWriter(ResponseWriter):
    """OpenAI's `data` with base64 or URLs, or its events, whose names begin with `event_name`."""

    def __init__(self, body: ImagesRequest, order: Order, event_name: str) -> None:
        self._requested = order.count
        self._event_name = event_name
        # URLs where they are requested, and by OpenAI's default for its models of old.
        default = "url" if (body.model or "").startswith("dall-e") else "b64_json"
        self.as_links = (body.response_format or default) == "url"
        self.streams = bool(body.stream)

    def response(self, outcomes: Outcomes, exchange: Exchange) -> Response:
        """Return the images there are."""
        return PiecesResponse(result(outcomes, as_links=self.as_links), "application/json")

    def event(self, outcome: Outcome, exchange: Exchange) -> Pieces:
        """Return the event of an image; an error has none, because OpenAI's SDKs raise at the first."""
        image = outcome.result
        if not isinstance(image, Image):
            return ()
        event = {
            "type": f"{self._event_name}.completed",
            "created_at": outcome.created_at,
            **openai.facts_of(image),
            "usage": openai.images_usage_of(openai.usage_in([outcome]), image.cost_usd),
        }
        start = f"event: {self._event_name}.completed\ndata: ".encode() + msgspec.json.encode(event)[:-1] + b","
        return [start, *_image_field(outcome, image, as_links=self.as_links), b"}\n\n"]

    def error_event(self, error: errors.BananaError, exchange: Exchange) -> Pieces:
        """Return `error`, which ends the stream."""
        return [b"event: error\ndata: " + one_line({"error": openai.error_object(exchange, error)}) + b"\n\n"]

    def last_event(self, failures: list[Failure], cost_usd: Decimal | None, exchange: Exchange) -> Pieces:
        """Return an error when there is no image at all; OpenAI's stream ends without an event of its own."""
        if len(failures) < self._requested:
            return ()
        return self.error_event(failures[0].error, exchange)


def result(outcomes: Outcomes, *, as_links: bool) -> Pieces:
    """Return the body with base64 as it came, or with links, in pieces."""
    usage = openai.images_usage_of(openai.usage_in(outcomes.all), outcomes.cost_usd)
    return body_of(outcomes, usage, as_links=as_links, has_types=False)


def body_of(outcomes: Outcomes, usage: dict[str, object], *, as_links: bool, has_types: bool) -> Pieces:
    """Return the body with this usage, in pieces; with `has_types` each image has its media type."""
    pieces: list[Bytes] = [b'{"created":%d,"data":[{' % outcomes.created_at]
    for outcome in outcomes.all:
        if isinstance(outcome.result, Image):
            if len(pieces) > 1:
                pieces.append(b"},{")
            pieces += _image_field(outcome, outcome.result, as_links=as_links)
            pieces += [b',"media_type":' + msgspec.json.encode(outcome.result.mime_type)] if has_types else []
    facts = openai.facts_of(outcomes.images[0])
    pieces.append(b"}]," + msgspec.json.encode(facts | {"usage": usage})[1:])
    return pieces


def _image_field(outcome: Outcome, image: Image, *, as_links: bool) -> list[Bytes]:
    """Return the field that holds an image, as base64, as a link, or where it is not kept as a data URI."""
    if not as_links:
        return [b'"b64_json":"', *image.picture.pieces, b'"']
    return [b'"url":"', *([outcome.url.encode()] if outcome.url else data_uri_of(outcome)), b'"']


def _writer_for(event_name: str) -> Callable[[ImagesRequest, Order, Headers, Services], ImagesWriter]:
    return lambda body, order, _, __: ImagesWriter(body, order, event_name)


CONTENT = {
    "application/json": {"schema": {"type": "object", "required": ["created", "data"]}},
    "text/event-stream": {"schema": {}},
}
DIALECT = Dialect("openai-images", under("/v1/images", "/v1/key"), openai.error_response)
GENERATIONS: ImageEndpoint[ImagesRequest] = ImageEndpoint(
    path="/v1/images/generations",
    body=ImagesRequest,
    order_of=order_of,
    writer_for=_writer_for("image_generation"),
    result=result,
    explicit_base64="b64_json",
    dialect=DIALECT,
)
EDITS: ImageEndpoint[EditRequest] = ImageEndpoint(
    path="/v1/images/edits",
    body=EditRequest,
    order_of=order_of,
    writer_for=_writer_for("image_edit"),
    result=result,
    explicit_base64="b64_json",
    dialect=DIALECT,
)


ImagesBody = Annotated[ImagesRequest, Depends(body_as(ImagesRequest, files="image"))]
EditBody = Annotated[EditRequest, Depends(body_as(EditRequest, files="image"))]
_EXAMPLE = {"prompt": documentation.EXAMPLE_PROMPT}
_IMAGES_BODY = {"requestBody": documentation.request_body(ImagesRequest, _EXAMPLE)}
_EDIT_BODY = {
    "requestBody": documentation.request_body(
        EditRequest, _EXAMPLE | {"image": documentation.EXAMPLE_PICTURE}, pictures="image", form=True
    )
}
_RESPONSES = documentation.responses(CONTENT, openai.ERROR_SCHEMA, or_task=True)
router = APIRouter(tags=["OpenAI"], dependencies=MAKES_IMAGES_ONCE, responses=_RESPONSES)


@router.post(GENERATIONS.path, operation_id="createImage", summary="Generate images", openapi_extra=_IMAGES_BODY)
async def create_image(body: ImagesBody, context: CurrentContext) -> Response:
    """OpenAI's API format. The response is JSON, or server-sent events with `stream`."""
    return await GENERATIONS.respond(body, context)


@router.post(EDITS.path, operation_id="createImageEdit", summary="Edit images", openapi_extra=_EDIT_BODY)
async def create_image_edit(body: EditBody, context: CurrentContext) -> Response:
    """OpenAI's API format. The response is JSON, or server-sent events with `stream`."""
    return await EDITS.respond(body, context)


@router.post(
    f"{GENERATIONS.path}/async",
    operation_id="createImageAsync",
    summary="Generate images, as a task",
    openapi_extra=_IMAGES_BODY,
)
async def create_image_task(body: ImagesBody, context: CurrentContext) -> Response:
    """Returns a task at once. Poll its `poll_url` until its status is no longer `processing`."""
    return await GENERATIONS.respond_with_task(body, context)


@router.post(
    f"{EDITS.path}/async",
    operation_id="createImageEditAsync",
    summary="Edit images, as a task",
    openapi_extra=_EDIT_BODY,
)
async def create_image_edit_task(body: EditBody, context: CurrentContext) -> Response:
    """Returns a task at once. Poll its `poll_url` until its status is no longer `processing`."""
    return await EDITS.respond_with_task(body, context)
