"""Google's own dialect: what a caller of Gemini's API sends and gets, passed on as bytes.

Only the model's name (retired names), the credentials and the deadline are ours. Google's errors pass as they are, but for
a key of ours that they quote; our own come in Google's shape. Source: Google's REST reference and google.rpc.Status.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from banana import answers, bodies, errors
from banana.asgi import facts_of, note, request_id_of
from banana.ratelimit import Handler
from banana.relay import Relay
from banana.skeleton import Bytes
from banana.upstream import Answer, Call

# Where clients of the Developer API and of Vertex' express mode look for it; LiteLLM leaves the version to the base URL.
PREFIXES = ("/v1beta", "/v1", "/v1beta1/publishers/google", "")
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def tell(request: Request, error: errors.BananaError) -> Response:
    """Return Google's own answer where the error is Google's, else ours in Google's shape."""
    note(request.scope, code=error.code)
    if error.answer is not None:
        status, content_type, body = error.answer
        return Response(body, status, headers=error.headers | {"content-type": content_type or "application/json"})
    status = 400 if error.status == 422 else error.status
    return Response(_body(request, error, status), status, headers=error.headers, media_type="application/json")


def _body(request: Request, error: errors.BananaError, status: int) -> bytes:
    details: list[dict[str, object]] = [
        {"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": request_id_of(request.scope)},
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.code.upper(), "domain": "banana-service"},
    ]
    if "retry_after" in error.extra:
        delay = f"{error.extra['retry_after']}s"
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    told = {"code": status, "message": error.message, "status": STATUSES.get(status, "UNKNOWN"), "details": details}
    return msgspec.json.encode({"error": told})


def router(relay: Relay, openai_models: Handler) -> APIRouter:
    """Return the routes of all prefixes.

    `GET /v1/models` belongs to two families: without `x-goog-api-key` it is answered by `openai_models`.
    """

    def call_of(request: Request, method: str, body: Sequence[Bytes] = ()) -> Call:
        model = request.path_params.get("model", "")
        if "model" in request.path_params and not bodies.is_model_name(model):
            raise errors.ModelNotFound(f"models/{model} is not the name of a model.")
        model = relay.model_aliases.get(model, model)
        note(request.scope, dialect="google", **({"model": model} if model else {}))
        path = f"models/{quote(model, safe='')}{method}" if model else "models"
        # A key in the query is the caller's credential: it goes no further.
        query = [(name, value) for name, value in parse_qsl(request.url.query) if name != "key"]
        return Call(model, f"{path}?{urlencode(query)}" if query else path, body, request.method)

    def forwarding(method: str) -> Handler:
        async def forward(request: Request) -> Response:
            """Pass the call on to Google, and its answer back."""
            deadline = relay.deadline()
            try:
                call = call_of(request, method, await bodies.read_bytes(request, deadline))
                answer = await relay.upstream.forward(call, deadline, facts_of(request.scope))
            except errors.BananaError as error:
                return tell(request, error)
            return answers.PiecesResponse(answer.chunks, answer.content_type)

        return forward

    async def stream(request: Request) -> Response:
        """Pass the call on to Google, and each part of its answer back as it arrives."""
        deadline = relay.deadline()
        try:
            call = call_of(request, ":streamGenerateContent", await bodies.read_bytes(request, deadline))
            parts = relay.upstream.stream(call, deadline, facts_of(request.scope))
            # The status is known with the first part: until then an error keeps its own.
            first = await anext(parts)
        except StopAsyncIteration:
            return tell(request, errors.InvalidAnswer("Google's answer is empty."))
        except errors.BananaError as error:
            return tell(request, error)
        return answers.Stream(_pieces(request, first, parts), first.content_type)

    google = {method: relay.guard(forwarding(method), tell) for method in (":generateContent", ":countTokens", "")}
    google[":streamGenerateContent"] = relay.guard(stream, tell)

    async def either_models(request: Request) -> Response:
        """List the image models, or tell of one: to Google's clients (x-goog-api-key) in its shape, else in OpenAI's."""
        return await (google[""] if "x-goog-api-key" in request.headers else openai_models)(request)

    routes = APIRouter(tags=["Google"], route_class=answers.PlainRoute)
    for prefix in PREFIXES:
        for method in (":generateContent", ":streamGenerateContent", ":countTokens"):
            routes.add_api_route(
                f"{prefix}/models/{{model}}{method}",
                google[method],
                methods=["POST"],
                include_in_schema=prefix == PREFIXES[0],
                operation_id=method[1:],
                summary=f"Google's {method[1:]}",
                responses=answers.documented(_ANSWER, _ERROR),
                openapi_extra={"requestBody": _BODY, "parameters": [_MODEL]},
            )
        for path in ("/models", "/models/{model}"):
            routes.add_api_route(
                prefix + path,
                either_models if prefix == "/v1" else google[""],
                methods=["GET"],
                include_in_schema=prefix in ("/v1beta", "/v1"),
                operation_id=f"{'either' if prefix == '/v1' else 'google'}Model{'' if 'model}' in path else 's'}",
                summary="The models",
                responses=answers.documented(_ANSWER, _ERROR),
                openapi_extra={"parameters": [_MODEL] if "model}" in path else []},
            )
    return routes


_ANSWER: dict[str, Any] = {"application/json": {"schema": {}}, "text/event-stream": {"schema": {}}}
_MODEL = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": r"^[A-Za-z0-9._-]+$"},
    "example": "gemini-3-pro-image",
}
_ERROR = {"type": "object"}
_EXAMPLE = {"contents": [{"role": "user", "parts": [{"text": "A banana on the moon"}]}]}
_BODY = {"required": True, "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}}}


async def _pieces(
    request: Request, first: Answer, parts: AsyncGenerator[Answer, None]
) -> AsyncGenerator[Sequence[Bytes], None]:
    """Yield what arrives; an error after the beginning is an event of its own where there are events."""
    async with aclosing(parts):
        yield first.chunks
        try:
            async for part in parts:
                yield part.chunks
        except errors.BananaError as error:
            note(request.scope, code=error.code)
            if "event-stream" not in first.content_type:
                raise
            yield [b"data: ", _body(request, error, error.status), b"\r\n\r\n"]
