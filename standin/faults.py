"""Every way in which Google's API, or the way to it, is known to fail or to answer oddly, by name."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from standin.serving import transport_of

# Takes the request and a picture as base64; answers, or breaks the connection.
Fault = Callable[[Request, str], Awaitable[Response]]
JSON_TYPE = "application/json; charset=UTF-8"


def answered(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response with this JSON."""
    return Response(json.dumps(document), status, headers, JSON_TYPE)


def error(code: int, status: str, message: str, details: list[dict[str, Any]] | None = None) -> Response:
    """Return an error in google.rpc.Status's shape."""
    body: dict[str, Any] = {"error": {"code": code, "message": message, "status": status}}
    if details:
        body["error"]["details"] = details
    return answered(body, code)


def retry_info(delay: str) -> dict[str, str]:
    """Return google.rpc.RetryInfo."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def quota_failure(quota_id: str) -> dict[str, Any]:
    """Return google.rpc.QuotaFailure."""
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id}]}


def fails(code: int, status: str, message: str, *details: dict[str, Any]) -> Fault:
    """Return a fault that answers with this error."""

    async def act(request: Request, picture: str) -> Response:
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

    async def act(request: Request, picture: str) -> Response:
        return Response(raw, media_type=content_type.encode().decode("latin-1"))  # Starlette takes it for that

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

    async def act(request: Request, picture: str) -> Response:
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


async def escaped(request: Request, picture: str) -> Response:
    """Answer with JSON escapes inside the data, which are legal, and the reason before the content."""
    data = picture.replace("/", r"\/").replace("=", r"\u003d")
    body = '{"candidates" : [ {"finishReason":"STOP","content":{"parts":[{"inlineData":{"data":"%s","mimeType":"image\\/jpeg"}}]}}]}'
    return await says(body % data)(request, picture)


def _whole(picture: str) -> bytes:
    part = image(picture)
    return json.dumps({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}).encode()


class _Begun(Response):
    """The head and the first half of an answer; `then` is given how to send more, and the other half."""

    def __init__(self, picture: str, then: Callable[[Send, bytes], Awaitable[None]]) -> None:
        self._body = _whole(picture)
        super().__init__(headers={"Content-Length": str(len(self._body))}, media_type=JSON_TYPE)
        self._then = then

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what there is."""
        half = len(self._body) // 2
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self._body[:half], "more_body": True})
        await self._then(send, self._body[half:])


async def _for_ever() -> None:
    """Wait until the other side hangs up."""
    await asyncio.Event().wait()


def _reset(request: Request) -> None:
    """Make the kernel answer with RST."""
    transport = transport_of(request)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def reset(request: Request, picture: str) -> Response:
    """Reset the connection once the request is here."""
    _reset(request)
    await _for_ever()
    return Response()


async def hang_up(request: Request, picture: str) -> Response:
    """Close the connection without a word."""
    transport_of(request).close()
    await _for_ever()
    return Response()


async def reset_inside(request: Request, picture: str) -> Response:
    """Reset the connection inside the answer."""

    async def then(_: Send, __: bytes) -> None:
        await asyncio.sleep(0.05)
        _reset(request)
        await _for_ever()

    return _Begun(picture, then)


async def truncated(request: Request, picture: str) -> Response:
    """Close the connection inside the answer."""

    async def then(_: Send, __: bytes) -> None:
        transport_of(request).close()
        await _for_ever()

    return _Begun(picture, then)


async def hang(request: Request, picture: str) -> Response:
    """Never answer."""
    await _for_ever()
    return Response()


async def hang_inside(request: Request, picture: str) -> Response:
    """Stop inside the answer."""

    async def then(_: Send, __: bytes) -> None:
        await _for_ever()

    return _Begun(picture, then)


async def drip(request: Request, picture: str) -> Response:
    """Send a byte at a time, for ever as far as a deadline is concerned."""

    async def then(send: Send, rest: bytes) -> None:
        for position in range(len(rest)):
            await send({"type": "http.response.body", "body": rest[position : position + 1], "more_body": True})
            await asyncio.sleep(0.05)

    return _Begun(picture, then)


async def not_http(request: Request, picture: str) -> Response:
    """Answer something that is not HTTP."""
    transport_of(request).write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    transport_of(request).close()
    await _for_ever()
    return Response()


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
