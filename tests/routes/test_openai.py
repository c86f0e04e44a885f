"""What OpenAI's API formats share."""

import json
from decimal import Decimal

import pytest

from banana import errors
from banana.exchange import Exchange
from banana.google.usage import Usage
from banana.google.wire import Image
from banana.images import Outcome
from banana.payload.pictures import EncodedPicture
from banana.routes.openai import chat_usage_of, error_response, images_usage_of, responses_usage_of, usage_in

EXCHANGE = Exchange(deadline=0, request_id="id-1")


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.InvalidRequest("x"), 400, "invalid_request_error", "invalid_request"),
        (errors.Blocked("x", reason="SAFETY"), 400, "invalid_request_error", "moderation_blocked"),
        (errors.Unauthorized("x"), 401, "authentication_error", "unauthorized"),
        (errors.RateLimited("x", retry_after_seconds=3), 429, "rate_limit_error", "rate_limited"),
        (errors.UpstreamError("x"), 502, "server_error", "upstream_error"),
    ],
)
def test_an_error_has_openais_shape(error: errors.BananaError, status: int, kind: str, code: str) -> None:
    """Type and code are OpenAI's words; its SDKs are told not to retry."""
    response = error_response(EXCHANGE, error)
    body = json.loads(bytes(response.body))["error"]

    assert response.status_code == status
    assert response.headers["x-should-retry"] == "false"
    assert (body["message"], body["type"], body["code"], body["request_id"]) == ("x", kind, code, "id-1")


def test_the_first_wrong_field_is_the_parameter() -> None:
    """OpenAI's SDKs show one."""
    error = errors.InvalidRequest.of_fields([("size", "is odd"), ("n", "is large")])

    assert json.loads(bytes(error_response(EXCHANGE, error).body))["error"]["param"] == "size"


def test_usage_is_the_sum_of_all_images() -> None:
    """Thinking counts as output, pictures by themselves; what Google does not count adds nothing."""
    picture = EncodedPicture(None, [], b"")
    given = [{"modality": "TEXT", "tokenCount": 2}, {"modality": "IMAGE", "tokenCount": 3}]
    counted = {"promptTokenCount": 5, "candidatesTokenCount": 10, "thoughtsTokenCount": 2, "totalTokenCount": 17}
    results: list[Image | errors.BananaError] = [
        Image(picture, "", counted | {"promptTokensDetails": given}),
        Image(picture, "", {"promptTokenCount": "no"}),
        errors.Internal(),
    ]
    usage = usage_in(Outcome(index, result) for index, result in enumerate(results))

    assert images_usage_of(usage, Decimal("0.1371161")) == {
        "input_tokens": 5,
        "input_tokens_details": {"text_tokens": 2, "image_tokens": 3},
        "output_tokens": 12,
        "output_tokens_details": {"image_tokens": 0, "text_tokens": 10, "reasoning_tokens": 2},
        "total_tokens": 17,
        "cost": 0.137116,
    }
    assert "cost" not in images_usage_of(usage, None)


def test_usage_in_the_shapes_of_conversations() -> None:
    """By modality, with what was cached; words are what is neither thinking nor an image."""
    usage = Usage(input=10, input_images=6, output=50, thinking=8, output_images=30, total=60, cached=4)

    assert chat_usage_of(usage, Decimal("0.25")) == {
        "prompt_tokens": 10,
        "completion_tokens": 50,
        "total_tokens": 60,
        "completion_tokens_details": {"reasoning_tokens": 8, "image_tokens": 30, "text_tokens": 12},
        "prompt_tokens_details": {"text_tokens": 4, "image_tokens": 6, "cached_tokens": 4},
        "cost": 0.25,
        "cost_details": {"upstream_inference_cost": 0.25},
    }
    assert responses_usage_of(usage, None) == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "image_tokens": 6},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 8, "image_tokens": 30},
        "total_tokens": 60,
    }
