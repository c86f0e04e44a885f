"""Every way in which Google's API, or the way to it, is known to fail or to answer oddly, by name."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

# Takes the request and a picture as base64; answers, or breaks the connection.
Fault = Callable[[web.Request, str], Awaitable[web.StreamResponse]]
JSON_TYPE = "application/json; charset=UTF-8"


def error(code: int, status: str, message: str, details: list[dict[str, Any]] | None = None) -> web.Response:
    """Return an error in google.rpc.Status's shape."""
    body: dict[str, Any] = {"error": {"code": code, "message": message, "status": status}}
    if details:
        body["error"]["details"] = details
    return web.json_response(body, status=code)


def retry_info(delay: str) -> dict[str, str]:
    """Return google.rpc.RetryInfo."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def quota_failure(quota_id: str) -> dict[str, Any]:
    """Return google.rpc.QuotaFailure."""
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id}]}


def fails(code: int, status: str, message: str, *details: dict[str, Any]) -> Fault:
    """Return a fault that answers with this error."""

    async def act(request: web.Request, picture: str) -> web.StreamResponse:
        return error(code, status, message, list(details))

    return act


def quota(delay: str | None = None, quota_id: str = "GenerateRequestsPerMinutePerProjectPerModel") -> Fault:
    """Return a fault that answers 429, asking to wait `delay`."""
    details = [quota_failure(quota_id), *([retry_info(delay)] if delay else [])]
    return fails(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", *details)


def exhausted(message: str, *details: dict[str, Any]) -> Fault:
    """Return a fault that answers 429 with this message."""
    return fails(429, "RESOURCE_EXHAUSTED", message, *details)


def says(body: dict[str, Any] | list[Any] | str | bytes, content_type: str = JSON_TYPE) -> Fault:
    """Return a fault that answers 200 with this body."""
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()

    async def act(request: web.Request, picture: str) -> web.StreamResponse:
        return web.Response(body=raw, headers={"Content-Type": content_type})

    return act


def candidate(content: object = None, finish_reason: str | None = "STOP", **more: object) -> Fault:
    """Return a fault that answers 200 with one candidate of this content."""
    fields: dict[str, object] = {"index": 0} | more
    if content is not None:
        fields["content"] = content
    if finish_reason:
        fields["finishReason"] = finish_reason
    return says({"candidates": [fields], "modelVersion": "gemini-3-pro-image"})


def parts(*makers: Callable[[str], dict[str, Any]], finish_reason: str = "STOP") -> Fault:
    """Return a fault that answers with parts made from the picture."""

    async def act(request: web.Request, picture: str) -> web.StreamResponse:
        made = [make(picture) for make in makers]
        return await candidate({"role": "model", "parts": made}, finish_reason)(request, picture)

    return act


def image(picture: str) -> dict[str, Any]:
    """An image part."""
    return {"inlineData": {"mimeType": "image/jpeg", "data": picture}}


def draft(picture: str) -> dict[str, Any]:
    """An interim image: another picture (a 1 by 1 GIF), flagged as a thought."""
    return image("R0lGODlhAQABAAAAACw=") | {"thought": True, "thoughtSignature": "c2ln" * 500}


def unflagged_draft(picture: str) -> dict[str, Any]:
    """An interim image that is not flagged."""
    return image("R0lGODlhAQABAAAAACw=")


def text(picture: str) -> dict[str, Any]:
    """A text part."""
    return {"text": "Here is your banana. What colour should it have?"}


def snake_image(picture: str) -> dict[str, Any]:
    """An image part in proto spelling, in the URL-safe alphabet, without padding."""
    return {
        "inline_data": {"mime_type": "image/jpeg", "data": picture.translate(str.maketrans("+/", "-_")).rstrip("=")}
    }


async def escaped(request: web.Request, picture: str) -> web.StreamResponse:
    """Answer with JSON escapes inside the data, which are legal, and the reason before the content."""
    data = picture.replace("/", r"\/").replace("=", r"\u003d")
    body = '{"candidates" : [ {"finishReason":"STOP","content":{"parts":[{"inlineData":{"data":"%s","mimeType":"image\\/jpeg"}}]}}]}'
    return await says(body % data)(request, picture)


def _whole(picture: str) -> bytes:
    part = image(picture)
    return json.dumps({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}).encode()


async def _begun(request: web.Request, picture: str) -> tuple[web.StreamResponse, bytes]:
    """Send the head and the first half of an answer; return the other half."""
    body = _whole(picture)
    response = web.StreamResponse(headers={"Content-Type": JSON_TYPE, "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return response, body[len(body) // 2 :]


def _connection(request: web.Request) -> asyncio.Transport:
    assert request.transport is not None
    return request.transport


def _reset(request: web.Request) -> None:
    """Make the kernel answer with RST."""
    transport = _connection(request)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def reset(request: web.Request, picture: str) -> web.StreamResponse:
    """Reset the connection once the request is here."""
    _reset(request)
    return web.Response()


async def hang_up(request: web.Request, picture: str) -> web.StreamResponse:
    """Close the connection without a word."""
    _connection(request).close()
    return web.Response()


async def reset_inside(request: web.Request, picture: str) -> web.StreamResponse:
    """Reset the connection inside the answer."""
    response, _ = await _begun(request, picture)
    await asyncio.sleep(0.05)
    _reset(request)
    return response


async def truncated(request: web.Request, picture: str) -> web.StreamResponse:
    """Close the connection inside the answer."""
    response, _ = await _begun(request, picture)
    _connection(request).close()
    return response


async def hang(request: web.Request, picture: str) -> web.StreamResponse:
    """Never answer."""
    await asyncio.sleep(3600)
    return web.Response()


async def hang_inside(request: web.Request, picture: str) -> web.StreamResponse:
    """Stop inside the answer."""
    response, _ = await _begun(request, picture)
    await asyncio.sleep(3600)
    return response


async def drip(request: web.Request, picture: str) -> web.StreamResponse:
    """Send a byte at a time, for ever as far as a deadline is concerned."""
    response, rest = await _begun(request, picture)
    for byte in rest:
        await response.write(bytes([byte]))
        await asyncio.sleep(0.05)
    return response


async def not_http(request: web.Request, picture: str) -> web.StreamResponse:
    """Answer something that is not HTTP."""
    _connection(request).write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    _connection(request).close()
    return web.Response()


FAULTS: dict[str, Fault] = {
    "400": fails(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "400-precondition": fails(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
    "400-key": fails(
        400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.",
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
    ),
    "401": fails(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
    "403": fails(403, "PERMISSION_DENIED", "Your API key was reported as leaked."),
    "404": fails(404, "NOT_FOUND", "models/gemini-1 is not found for API version v1beta."),
    "413": fails(413, "INVALID_ARGUMENT", "Request payload size exceeds the limit."),
    "429": quota(),
    "429-short": quota("0.2s"),
    "429-long": quota("6776s"),
    "429-day": quota("0.2s", "GenerateRequestsPerDayPerProjectPerModel"),
    "429-spend": exhausted("You exceeded your spend-based rate limit. Please retry later."),
    "429-cap": exhausted(
        "Your project has exceeded its monthly spending cap. Please go to AI Studio at https://ai.studio/spend to manage it."
    ),
    "429-prepaid": exhausted(
        "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your billing."
    ),
    "429-contention": exhausted("Resource has been exhausted (e.g. check quota)."),
    "429-contention-vertex": exhausted("Resource exhausted. Please try again later."),
    "500": fails(500, "INTERNAL", "An internal error has occurred."),
    "502": fails(502, "UNKNOWN", "Bad gateway."),
    "503": fails(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "504": fails(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    "blocked": says({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {}}),
    "image-safety": candidate(None, "IMAGE_SAFETY", finishMessage="Unable to show the generated image."),
    "null-parts": candidate({"role": "model", "parts": None}, "IMAGE_OTHER", finishMessage="Try rephrasing."),
    "unbilled": says(
        {
            "candidates": [{"content": {}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0},
            "modelVersion": "gemini-3-pro-image",
        }
    ),
    "unbilled-words": candidate(
        {}, "IMAGE_OTHER", finishMessage="Unable to show the generated image. You will not be charged for this request."
    ),
    "model-armor": candidate({}, "MODEL_ARMOR"),
    "escalation": candidate({}, "ESCALATION"),
    "language": candidate({}, "LANGUAGE"),
    "empty-content": candidate({}, "NO_IMAGE"),
    "empty-parts": candidate({"role": "model", "parts": []}),
    "unknown-reason": candidate({}, "IMAGE_MOON_PHASE"),
    "text-only": parts(text),
    "drafts": parts(text, draft, draft, image),
    "unflagged-drafts": parts(unflagged_draft, unflagged_draft, image),
    "thought-only": parts(lambda picture: image(picture) | {"thought": True}),
    "refused-draft": parts(draft, finish_reason="IMAGE_SAFETY"),
    "thought-after-image": parts(image, draft),
    "snake": parts(snake_image),
    "escaped": escaped,
    "bad-base64": parts(lambda picture: image(picture[:9000] + "!" + picture[9000:])),
    "garbage": says(b"\x00\xff<garbage>", "application/octet-stream"),
    "html": says("<html>Sorry...</html>", "text/html"),
    "empty": says(b""),
    "wrong-shape": says({"candidates": "none", "modelVersion": 3}),
    "other-json": says({"hello": "world"}),
    "error-as-200": says({"error": {"code": 500, "message": "Oh no.", "status": "INTERNAL"}}),
    "reset": reset,
    "hang-up": hang_up,
    "reset-inside": reset_inside,
    "truncated": truncated,
    "hang": hang,
    "hang-inside": hang_inside,
    "drip": drip,
    "not-http": not_http,
}  # fmt: skip
