"""OpenRouter's one route for images, `POST /v1/images`. Source: OpenRouter's API reference, Image generation."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BeforeValidator, Field
from starlette.datastructures import Headers
from starlette.responses import Response

from banana.exchange import Exchange
from banana.google.contents import user_turn
from banana.http.responses import PiecesResponse
from banana.images import Order, Outcomes
from banana.payload.lazyjson import with_texts
from banana.payload.pieces import Pieces
from banana.routes import documentation, openai, openai_images
from banana.routes.deps import MAKES_IMAGES_ONCE, CurrentContext, Services, body_as
from banana.routes.fields import Pictures
from banana.routes.image_endpoint import ImageEndpoint
from banana.routes.openai_images import ImagesRequest, ImagesWriter, address_in, order_with
from banana.routes.shape import ImageSize


def _pictures(value: object) -> object:
    return [address_in(item) for item in value] if isinstance(value, list) else value


class OpenRouterRequest(ImagesRequest):
    """OpenRouter's request for images; it takes what OpenAI's takes as well."""

    resolution: ImageSize = None
    input_references: Annotated[Pictures, BeforeValidator(_pictures)] = ()
    provider: Annotated[dict[str, Any] | None, BeforeValidator(with_texts)] = Field(
        default=None, description="Accepted and ignored; the provider is always Google."
    )


def order_of(body: OpenRouterRequest) -> Order:
    """Read a body into an order."""
    return order_with(
        body,
        [user_turn(body.prompt, body.input_references, "input_references")],
        count=body.n or 1,
        user=body.user or body.safety_identifier,
        **({"image_size": body.resolution} if body.resolution else {}),
    )


class OpenRouterWriter(ImagesWriter):
    """OpenAI's `data`, each picture with its `media_type`."""

    def response(self, outcomes: Outcomes, exchange: Exchange) -> Response:
        """Return the images there are."""
        return PiecesResponse(result(outcomes, as_links=self.as_links), "application/json")


def _writer_for(body: OpenRouterRequest, order: Order, _: Headers, __: Services) -> OpenRouterWriter:
    return OpenRouterWriter(body, order, "image_generation")


def result(outcomes: Outcomes, *, as_links: bool) -> Pieces:
    """Return the body; OpenRouter counts tokens as in a chat."""
    usage = openai.chat_usage_of(openai.usage_in(outcomes.all), outcomes.cost_usd)
    return openai_images.body_of(outcomes, usage, as_links=as_links, has_types=True)


DIALECT = openai_images.DIALECT
ENDPOINT: ImageEndpoint[OpenRouterRequest] = ImageEndpoint(
    path="/v1/images",
    body=OpenRouterRequest,
    order_of=order_of,
    writer_for=_writer_for,
    result=result,
    explicit_base64="b64_json",
    dialect=DIALECT,
)
router = APIRouter(tags=["OpenAI"], dependencies=MAKES_IMAGES_ONCE)


@router.post(
    ENDPOINT.path,
    operation_id="createOpenRouterImage",
    summary="Generate or edit images (OpenRouter)",
    responses=documentation.responses(openai_images.CONTENT, openai.ERROR_SCHEMA, or_task=True),
    openapi_extra={
        "requestBody": documentation.request_body(OpenRouterRequest, {"prompt": documentation.EXAMPLE_PROMPT})
    },
)
async def create_openrouter_image(
    body: Annotated[OpenRouterRequest, Depends(body_as(OpenRouterRequest))], context: CurrentContext
) -> Response:
    """OpenRouter's API format: one route, with or without input images (`input_references`)."""
    return await ENDPOINT.respond(body, context)
