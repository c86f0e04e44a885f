"""Imagen's method, `:predict`, for programs that know no other: what it asks for is made by Gemini's image models.

Source: Google's reference of Imagen, whose models were shut down in August 2026; their names have aliases.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field
from pydantic.json_schema import SkipJsonSchema
from starlette.datastructures import Headers
from starlette.responses import Response

from banana import errors
from banana.exchange import Exchange
from banana.google.contents import user_turn
from banana.google.wire import Image
from banana.http.responses import PiecesResponse
from banana.images import Failure, Order, Outcome, Outcomes
from banana.payload.pieces import Bytes, Pieces
from banana.routes import documentation, google
from banana.routes.deps import MAKES_IMAGES, CurrentContext, Services, body_as
from banana.routes.fields import MAX_IMAGES, REFUSED, Integer, ModelName, Pictures, Prompt, Text, refusal
from banana.routes.image_endpoint import ImageEndpoint, ResponseWriter
from banana.routes.shape import AspectRatio, ImageSize, Seed

METHOD = ":predict"
FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
NotHere = Annotated[None, refusal("is not supported by Gemini's image models; leave it out"), REFUSED]


def _pictures(value: object) -> object:
    """Return the base64 of a picture that is given as Imagen has it."""
    return value.get("bytesBase64Encoded", "") if isinstance(value, Mapping) else value


class Instance(BaseModel):
    """What the pictures should show."""

    model_config = ConfigDict(extra="ignore")

    prompt: Prompt
    image: Annotated[Pictures, BeforeValidator(_pictures)] = ()
    mask: NotHere = None
    referenceImages: NotHere = None  # noqa: N815 # Google's names


class OutputOptions(BaseModel):
    """The format of the pictures."""

    model_config = ConfigDict(extra="ignore")

    mimeType: Literal["image/png", "image/jpeg", "image/webp"] | None = None  # noqa: N815
    compressionQuality: Integer | None = Field(default=None, ge=0, le=100)  # noqa: N815


class Parameters(BaseModel):
    """How many pictures, and how; other parameters are taken and change nothing."""

    model_config = ConfigDict(extra="ignore")

    sampleCount: Integer | None = Field(default=1, ge=1, le=MAX_IMAGES)  # noqa: N815
    aspectRatio: AspectRatio = None  # noqa: N815
    imageSize: ImageSize = None  # noqa: N815
    sampleImageSize: ImageSize = None  # noqa: N815
    seed: Seed = None
    negativePrompt: Text | None = Field(default=None, description="Added to the end of the prompt.")  # noqa: N815
    outputOptions: OutputOptions | None = None  # noqa: N815
    storageUri: NotHere = None  # noqa: N815


class PredictRequest(BaseModel):
    """Imagen's request."""

    model_config = ConfigDict(extra="ignore")

    model: SkipJsonSchema[ModelName | None] = None  # stands in the path
    instances: Annotated[
        list[Instance], FailFast(), BeforeValidator(lambda value: [value] if isinstance(value, dict) else value)
    ]
    parameters: Parameters | None = None


def order_of(body: PredictRequest) -> Order:
    """Read a body into an order. Raises InvalidRequest when it holds several instances."""
    if len(body.instances) != 1:
        problem = f"has {len(body.instances)} items; send one, and set sampleCount for several images"
        raise errors.InvalidRequest.of_fields([("instances", problem)])
    (instance,) = body.instances
    parameters = body.parameters or Parameters()
    options = parameters.outputOptions or OutputOptions()
    avoided = f"\n\nDo not show: {parameters.negativePrompt}" if (parameters.negativePrompt or "").strip() else ""
    return Order(
        turns=[user_turn(instance.prompt + avoided, instance.image)],
        count=parameters.sampleCount or 1,
        model_name=body.model,
        aspect_ratio=parameters.aspectRatio,
        image_size=parameters.imageSize or parameters.sampleImageSize,
        seed=parameters.seed,
        output_format=FORMATS.get(options.mimeType or ""),
        output_quality=options.compressionQuality,
    )


class PredictWriter(ResponseWriter):
    """Imagen's `predictions`; there is no stream of them."""

    def response(self, outcomes: Outcomes, exchange: Exchange) -> Response:
        """Return the predictions."""
        return PiecesResponse(result(outcomes, as_links=False), "application/json")

    def event(self, outcome: Outcome, exchange: Exchange) -> Pieces:
        """Return nothing."""
        return ()

    def error_event(self, error: errors.BananaError, exchange: Exchange) -> Pieces:
        """Return nothing."""
        return ()

    def last_event(self, failures: list[Failure], cost_usd: Decimal | None, exchange: Exchange) -> Pieces:
        """Return nothing."""
        return ()


def result(outcomes: Outcomes, *, as_links: bool) -> Pieces:
    """Return the predictions that there are, in pieces."""
    pieces: list[Bytes] = [b'{"predictions":[']
    for outcome in outcomes.successes:
        assert isinstance(outcome.result, Image)
        pieces += [b"," if len(pieces) > 1 else b"", b'{"mimeType":' + msgspec.json.encode(outcome.result.mime_type)]
        pieces += [b',"bytesBase64Encoded":"', *outcome.result.picture.pieces, b'"}']
    return [*pieces, b"]}"]


def _writer_for(body: PredictRequest, order: Order, headers: Headers, _: Services) -> PredictWriter:
    return PredictWriter()


DIALECT = google.DIALECT
ENDPOINT: ImageEndpoint[PredictRequest] = ImageEndpoint(
    path=METHOD,
    body=PredictRequest,
    order_of=order_of,
    writer_for=_writer_for,
    result=result,
    explicit_base64=None,
    dialect=DIALECT,
    takes_key=False,
)
_EXAMPLE = {"instances": [{"prompt": documentation.EXAMPLE_PROMPT}], "parameters": {"sampleCount": 1}}
router = APIRouter(tags=["Google"], dependencies=MAKES_IMAGES)


async def _predict(
    body: Annotated[PredictRequest, Depends(body_as(PredictRequest))], context: CurrentContext
) -> Response:
    """For programs written for Imagen. The images are made by Gemini's image models."""
    return await ENDPOINT.respond(body, context)


for _prefix in google.PREFIXES:
    router.add_api_route(
        f"{_prefix}/models/{{model:path}}{METHOD}",
        _predict,
        methods=["POST"],
        include_in_schema=_prefix == google.PREFIXES[0],
        operation_id=METHOD[1:],
        summary="Generate images (Imagen)",
        responses=documentation.responses({"application/json": {"schema": {}}}, google.ERROR_SCHEMA),
        openapi_extra={
            "requestBody": documentation.request_body(PredictRequest, _EXAMPLE),
            "parameters": [google.MODEL_PARAMETER],
        },
    )
