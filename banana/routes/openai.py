"""What OpenAI's API formats share: the shape of an error, and the count of tokens."""

from collections.abc import Iterable
from decimal import Decimal

import msgspec
from starlette.responses import Response

from banana import errors
from banana.exchange import Exchange
from banana.google.capabilities import quality_of
from banana.google.usage import Usage
from banana.google.wire import Image, Words
from banana.images import Outcome
from banana.money import rounded
from banana.payload.conversion import dimensions_of

FAILED_DEPENDENCY = 424
# What OpenAI calls the kinds of error.
TYPES = {401: "authentication_error", 402: "insufficient_quota", 429: "rate_limit_error"}
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["message"]}},
}


def error_response(exchange: Exchange, error: errors.BananaError) -> Response:
    """Return `error` in OpenAI's shape; a header keeps its SDKs from retrying what the service already has."""
    # With its key, what is in progress is to be requested again: by then it may be there.
    may_retry = isinstance(error, errors.InProgress)
    headers = error.headers | {"x-should-retry": "true" if may_retry else "false"}
    body = msgspec.json.encode({"error": error_object(exchange, error)})
    return Response(body, status_of(error), headers, "application/json")


def status_of(error: errors.BananaError) -> int:
    """Return the HTTP status of an error: for what may have been billed one that no program retries, and so pays again."""
    if error.status == 422:
        return 400
    is_upstreams = error.status >= 500 and error.code != errors.Internal.code
    return FAILED_DEPENDENCY if is_upstreams and error.may_be_billed else error.status


def error_object(exchange: Exchange, error: errors.BananaError) -> dict[str, object]:
    """Return the `error` object."""
    fields = error.extra.get("fields")
    param = fields[0]["field"] if isinstance(fields, list) and fields else None
    kind = TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    code = "moderation_blocked" if error.code == errors.Blocked.code else error.code
    is_model = isinstance(error, errors.ModelNotFound)
    message = f"{error.message} GET /v1/models lists the available models." if is_model else error.message
    standard = {"message": message, "type": kind, "param": param, "code": code}
    return standard | {"request_id": error.request_id or exchange.request_id} | error.extra


def facts_of(image: Image) -> dict[str, object]:
    """Return what OpenAI's API formats say of an image, as it is and not as it was asked for."""
    pixels = image.pixels or dimensions_of(image.picture)
    return {
        "background": "opaque",
        "output_format": image.mime_type.removeprefix("image/"),
        "quality": quality_of(image.model, *pixels) if pixels else "auto",
        "size": f"{pixels[0]}x{pixels[1]}" if pixels else None,
    }


def usage_in(outcomes: Iterable[Outcome]) -> Usage:
    """Return the tokens of all results together."""
    results = (outcome.result for outcome in outcomes)
    return Usage.sum([Usage.of(result.usage) for result in results if isinstance(result, Image | Words)])


def chat_usage_of(usage: Usage, cost_usd: Decimal | None) -> dict[str, object]:
    """Return a count of tokens in the shape of chat completions, and what they cost as OpenRouter says it."""
    made = {"reasoning_tokens": usage.thinking, "image_tokens": usage.output_images, "text_tokens": usage.output_text}
    given = {"text_tokens": max(0, usage.input - usage.input_images), "image_tokens": usage.input_images}
    document: dict[str, object] = {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "completion_tokens_details": made,
        "prompt_tokens_details": given | {"cached_tokens": usage.cached},
    }
    if cost_usd is None:
        return document
    return document | {"cost": rounded(cost_usd), "cost_details": {"upstream_inference_cost": rounded(cost_usd)}}


def responses_usage_of(usage: Usage, cost_usd: Decimal | None) -> dict[str, object]:
    """Return a count of tokens in the shape of responses, and what they cost."""
    document: dict[str, object] = {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "image_tokens": usage.input_images},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.thinking, "image_tokens": usage.output_images},
        "total_tokens": usage.input + usage.output,
    }
    return document | ({} if cost_usd is None else {"cost": rounded(cost_usd)})


def images_usage_of(usage: Usage, cost_usd: Decimal | None) -> dict[str, object]:
    """Return a count of tokens in the shape of OpenAI's images, and what they cost as OpenRouter says it."""
    document = {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "text_tokens": max(0, usage.input - usage.input_images),
            "image_tokens": usage.input_images,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {
            "image_tokens": usage.output_images or 0,
            "text_tokens": usage.output_text,
            "reasoning_tokens": usage.thinking,
        },
        "total_tokens": usage.total,
    }
    return document | ({} if cost_usd is None else {"cost": rounded(cost_usd)})
