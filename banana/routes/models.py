"""The lists of models: Google's, and OpenAI's made from it.

`GET /v1/models` belongs to both API formats: with `x-goog-api-key` it is Google's, without it OpenAI's. Source: the REST
references of both.
"""

from dataclasses import replace

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from banana import errors
from banana.google.capabilities import image_model
from banana.google.client import Call
from banana.google.models import without_gateway
from banana.google.prices import MILLION, TIERS
from banana.routes import documentation, google, openai_images
from banana.routes.deps import MAKES_IMAGES, Context, CurrentContext, Services

DIALECT = replace(openai_images.DIALECT, claims=google.is_openai_models)


async def _models(context: CurrentContext) -> Response:
    """Google's API format."""
    return await google.forward(context, "")


async def _models_in_either_format(context: CurrentContext) -> Response:
    """OpenAI's API format; with the header `x-goog-api-key`, Google's."""
    if context.dialect is google.DIALECT:
        return await google.forward(context, "")
    return await _in_openai_shape(context)


async def _in_openai_shape(context: Context) -> Response:
    """Return Google's image models in OpenAI's shape. Raises BananaError."""
    request, services = context.request, context.services
    response = await services.client.forward(Call("", "models?pageSize=1000", (), "GET"), context.exchange)
    default = services.models.resolve(None)
    models = [_described(name, name == default, services) for name in image_models(b"".join(response.pieces))]
    if "model" not in request.path_params:
        return _json({"object": "list", "data": models})
    wanted = without_gateway(request.path_params["model"])
    name = services.models.resolve(wanted)
    found = next((model for model in models if model["id"] == name), None)
    if found is None:
        raise errors.ModelNotFound(f"The model {wanted} was not found.")
    return _json(found)


def image_models(body: bytes) -> list[str]:
    """Return the names of the models that make images from Google's list. Raises InvalidResponse."""
    try:
        names = [model["name"].removeprefix("models/") for model in msgspec.json.decode(body)["models"]]
    except (msgspec.MsgspecError, ValueError, LookupError, TypeError, AttributeError):
        raise errors.InvalidResponse("Google's list of models cannot be read.") from None
    return [name for name in names if "image" in name or "banana" in name]


def _described(name: str, is_default: bool, services: Services) -> dict[str, object]:
    """Return a model in OpenAI's shape, with what it can make, and what that costs in USD.

    By token as OpenRouter says it, and a picture by size.
    """
    known = image_model(name)
    tiers = {tier: factor for tier, factor in TIERS.items() if tier != "flex" or (known and known.has_flex)}
    model: dict[str, object] = {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "google",
        "default": is_default,
        "service_tiers": {tier or "default": float(factor) for tier, factor in tiers.items()},
    }
    if known:
        model["aspect_ratios"] = known.aspect_ratios
        model["image_sizes"] = list(known.image_tokens)
        model["thinking_levels"] = known.thinking_levels
    price = services.prices.of(name)
    if price is None:
        return model
    by_token = {"prompt": price.input, "completion": price.text, "image_output": price.image}
    pricing: dict[str, object] = {kind: f"{(amount / MILLION).normalize():f}" for kind, amount in by_token.items()}
    pricing["picture"] = {size: f"{amount.normalize():f}" for size, amount in services.prices.by_size(name).items()}
    return model | {"pricing": pricing}


def _json(document: object) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")


router = APIRouter(tags=["models"], dependencies=MAKES_IMAGES)
for _prefix in google.PREFIXES:
    _is_shared = _prefix == "/v1"
    for _path, _parameters, _what in (
        ("/models", [], "List models"),
        ("/models/{model:path}", [google.MODEL_PARAMETER], "Get a model"),
    ):
        router.add_api_route(
            _prefix + _path,
            _models_in_either_format if _is_shared else _models,
            methods=["GET"],
            include_in_schema=_prefix in ("/v1beta", "/v1"),
            operation_id=f"{'either' if _is_shared else 'google'}Model{'' if _parameters else 's'}",
            summary=f"{_what} ({'OpenAI' if _is_shared else 'Google'})",
            responses=documentation.responses(google.CONTENT, google.ERROR_SCHEMA),
            openapi_extra={"parameters": _parameters},
        )
