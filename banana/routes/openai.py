"""What OpenAI's API formats share: the shape of an error, and the count of tokens."""

from collections.abc import Iterable
from decimal import Decimal

import msgspec
from starlette.responses import Response

from banana import errors
from banana.exchange import Exchange
from banana.google.usage import Usage
from banana.google.wire import Image, Words
from banana.images import Outcome
from banana.money import rounded

# What OpenAI calls the kinds of error.
TYPES = {401: "authentication_error", 402: "insufficient_quota", 429: "rate_limit_error"}
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["message"]}},
}


def error_response(exchange: Exchange, error: errors.BananaError) -> Response:
    """Return `error` in OpenAI's shape; a header keeps its SDKs from retrying what the service already has."""
    status = 400 if error.status == 422 else error.status
    # With its key, what is in progress is to be requested again: by then it may be there.
    may_retry = isinstance(error, errors.InProgress)
    headers = error.headers | {"x-should-retry": "true" if may_retry else "false"}
    return Response(msgspec.json.encode({"error": error_object(exchange, error)}), status, headers, "application/json")


def error_object(exchange: Exchange, error: errors.BananaError) -> dict[str, object]:
    """Return the `error` object."""
    fields = error.extra.get("fields")
    param = fields[0]["field"] if isinstance(fields, list) and fields else None
    kind = TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    code = "moderation_blocked" if error.code == errors.Blocked.code else error.code
    standard = {"message": error.message, "type": kind, "param": param, "code": code}
    return standard | {"request_id": error.request_id or exchange.request_id} | error.extra


def usages_of(outcomes: Iterable[Outcome]) -> list[Usage]:
    """Return the count of tokens of each result."""
    return [Usage.of(outcome.result.usage) for outcome in outcomes if isinstance(outcome.result, Image | Words)]


def chat_usage_of(usages: list[Usage], cost_usd: Decimal | None) -> dict[str, object]:
    """Return the tokens of all calls together in the shape of chat completions, and what they cost as OpenRouter says it."""
    prompt, made = sum(usage.input for usage in usages), sum(usage.output for usage in usages)
    input_images = sum(usage.input_images for usage in usages)
    usage: dict[str, object] = {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "completion_tokens_details": {
            "reasoning_tokens": sum(usage.thinking for usage in usages),
            "image_tokens": sum(usage.output_images or 0 for usage in usages),
            "text_tokens": sum(usage.output_text for usage in usages),
        },
        "prompt_tokens_details": {
            "text_tokens": max(0, prompt - input_images),
            "image_tokens": input_images,
            "cached_tokens": sum(usage.cached for usage in usages),
        },
    }
    if cost_usd is None:
        return usage
    return usage | {"cost": rounded(cost_usd), "cost_details": {"upstream_inference_cost": rounded(cost_usd)}}


def usage_of(images: list[Image], cost_usd: Decimal | None) -> dict[str, object]:
    """Return the tokens of all images together, in the shape of OpenAI's images, and what they cost as OpenRouter says it."""
    usages = [Usage.of(image.usage) for image in images]
    input_tokens, input_images = sum(usage.input for usage in usages), sum(usage.input_images for usage in usages)
    usage = {
        "input_tokens": input_tokens,
        "input_tokens_details": {"text_tokens": max(0, input_tokens - input_images), "image_tokens": input_images},
        "output_tokens": sum(usage.output for usage in usages),
        "total_tokens": sum(usage.total for usage in usages),
    }
    return usage | ({} if cost_usd is None else {"cost": rounded(cost_usd)})
