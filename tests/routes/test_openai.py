"""What OpenAI's API formats share."""

import json
from decimal import Decimal

import pytest

from banana import errors
from banana.exchange import Exchange
from banana.google.wire import Image
from banana.payload.pictures import EncodedPicture
from banana.routes.openai import error_response, usage_of

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
    images = [
        Image(picture, "", counted | {"promptTokensDetails": given}),
        Image(picture, "", {"promptTokenCount": "no"}),
    ]

    usage = usage_of(images, Decimal("0.1371161"))

    assert usage == {
        "input_tokens": 5,
        "input_tokens_details": {"text_tokens": 2, "image_tokens": 3},
        "output_tokens": 12,
        "total_tokens": 17,
        "cost": 0.137116,
    }
    assert "cost" not in usage_of(images, None)
