"""Google's own API format: what a caller of Gemini's API sends and gets, passed through as bytes.

Only the model's name (retired names), the credentials and the deadline are ours. Google's errors pass as they are, but for
a key of ours in them; our own come in Google's shape. Source: Google's REST reference and google.rpc.Status.
"""

import hashlib
import re
from collections.abc import AsyncGenerator
from functools import cache, partial
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from banana import errors
from banana.errors import UpstreamResponse
from banana.exchange import Exchange
from banana.google.client import Call, GeminiClient
from banana.google.contents import cost_basis_of
from banana.google.models import MAX_NAME_CHARACTERS, is_model_name, without_gateway
from banana.http.responses import PiecesResponse, PiecesStreamResponse
from banana.images import Outcome, Outcomes
from banana.payload.beside import LARGE_BYTES, beside
from banana.payload.lazyjson import InvalidJson, LazyJsonParser
from banana.payload.pieces import Pieces, size_of
from banana.results.works import Job, results_of
from banana.routes import documentation
from banana.routes.deps import MAKES_IMAGES, MAKES_IMAGES_ONCE, Context, CurrentContext, Services, TaskFormat
from banana.routes.dialect import Dialect, under
from banana.routes.kept import preference_of
from banana.routes.submission import accepted, submission_of

# Where clients of the Developer API and of Vertex' express mode look for it; LiteLLM leaves the version to the base URL.
PREFIXES = ("/v1beta", "/v1", "/v1beta1/publishers/google", "/v1/publishers/google", "")
# A query holds a page token at most; httpx takes no URL over 64 KB.
MAX_QUERY_CHARACTERS = 8192
# Where clients of Google's API may put their key; here it is a token of this service, and goes no further.
TOKEN_PARAMETER = "key"  # noqa: S105 # its name
# What a query may name beside it to be somebody else: with ours it would look to Google as if our key were wrong.
CREDENTIALS = (TOKEN_PARAMETER, "api_key", "access_token", "oauth_token", "$userproject", "userproject")
# By which a caller would choose what of a response comes, the count of tokens too.
SELECTIONS = ("fields", "$fields", "callback", "$callback")
GENERATE, STREAM, COUNT_TOKENS = METHODS = (":generateContent", ":streamGenerateContent", ":countTokens")
# By which the ledger knows what is passed on, below whatever prefix.
JOB_ROUTE = GENERATE
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ABORTED",
    410: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
DROPPED = (*CREDENTIALS, *SELECTIONS)
# What else Google's API has, and why it is not passed on: what is stored belongs to the project of one API key, of which
# this service may have several.
_INSTEAD = {
    "files": "send images in the request, as inlineData",
    "interactions": "use :generateContent with the conversation in contents",
    "batches": "send each request separately, with an Idempotency-Key or `Prefer: respond-async`",
    "cachedContents": "send the whole content with each request",
    "fileSearchStores": "send the whole content with each request",
    "tunedModels": "use a public model",
    "operations": "wait for the response, or send `Prefer: respond-async` to get a task",
}
_ELSEWHERE = re.compile(rf"(/upload)?/v1(beta|beta1|alpha)?/({'|'.join(_INSTEAD)})(/.*)?")


def error_response(exchange: Exchange, error: errors.BananaError) -> Response:
    """Return Google's own response where the error is Google's, else ours in Google's shape."""
    if error.upstream_response is not None:
        google = error.upstream_response
        headers = error.headers | {"content-type": google.content_type or "application/json"}
        return Response(b"".join(google.pieces), google.status, headers=headers)
    status = 400 if error.status == 422 else error.status
    return Response(_error_body(exchange, error, status), status, headers=error.headers, media_type="application/json")


def _error_body(exchange: Exchange, error: errors.BananaError, status: int) -> bytes:
    details: list[dict[str, object]] = [
        {"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": error.request_id or exchange.request_id},
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.code.upper(), "domain": "banana-service"},
    ]
    message = error.message
    if reason := error.extra.get("reason"):  # Google's, of a refusal
        message = f"{message} ({reason})"
        details[1]["metadata"] = {"reason": reason}
    if "retry_after" in error.extra:
        delay = f"{error.extra['retry_after']}s"
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    status_name = STATUSES.get(status, "UNKNOWN")
    body = {"code": status, "message": message, "status": status_name, "details": details}
    return msgspec.json.encode({"error": body})


async def call_of(context: Context, method: str, body: Pieces) -> Call:
    """Return the call to Google that a request stands for. Raises ModelNotFound and InvalidRequest."""
    request, exchange, services = context.request, context.exchange, context.services
    model = without_gateway(request.path_params.get("model", ""))
    if "model" in request.path_params and not is_model_name(model):
        raise errors.ModelNotFound(f"models/{model[:MAX_NAME_CHARACTERS]} is not a valid model name.")
    if model:
        exchange.model = model = services.models.resolve(model)
    query = [(name, value) for name, value in parse_qsl(request.url.query) if name.lower() not in DROPPED]
    encoded = urlencode(query)
    if len(encoded) > MAX_QUERY_CHARACTERS:
        problem = f"has more than {MAX_QUERY_CHARACTERS} characters"
        raise errors.InvalidRequest.of_fields([("query", problem)])
    other_quota = "" if method.endswith("enerateContent") else f"{request.method}{method}"
    tail = f"{method}?{encoded}" if query else method
    if not model:
        return Call("", f"models{tail}", body, request.method, other_quota)
    call = _call_to(model, tail, body, services.client, request.method, other_quota)
    if size_of(body) >= LARGE_BYTES:  # so that nobody waits for it later
        await beside(size_of(body), call.limit)
    return call


def _call_to(
    model: str, tail: str, body: Pieces, client: GeminiClient, http_method: str = "POST", other_quota: str = ""
) -> Call:
    """Return the call to `model` with a caller's own body; `tail` is what stands behind the model in the path."""
    basis = cache(partial(cost_basis_of, body))  # it is read when somebody asks for the first time
    return Call(
        model,
        f"models/{quote(model, safe='')}{tail}",
        body,
        http_method,
        other_quota,
        client.limit_of(model, basis),
        lambda: basis().tier,
        for_model=lambda other: _call_to(other, tail, body, client, http_method, other_quota),
        in_blocks=not tail.startswith(STREAM),
    )


async def forward(context: Context, method: str) -> Response:
    """Pass the call on to Google, and its response back."""
    body = await _body_of(context)
    response = await context.services.client.forward(await call_of(context, method, body), context.exchange)
    return PiecesResponse(response.pieces, response.content_type)


async def _body_of(context: Context) -> Pieces:
    """Return the body in the chunks it came in: it is passed on as it is, so nothing in it is parsed here."""
    return await context.services.bodies.read_bytes(context.request, context.exchange.deadline)


async def _generate_content(context: CurrentContext) -> Response:
    """The request is forwarded to Google unchanged, and so is the response."""
    exchange, services = context.exchange, context.services
    is_task = preference_of(context.request.headers).respond_async
    if exchange.idempotency_key is None and not is_task:
        return await forward(context, GENERATE)
    body = await _body_of(context)
    call = await call_of(context, GENERATE, body)
    job = job_of_call(call, await beside(size_of(body), _content_of, body), services)
    if is_task:
        return await accepted(job, result, context, as_links=False)
    submission = submission_of(job, context)
    await services.requests.submit(submission)
    source = services.requests.outcomes(submission, with_content=True)
    outcomes = Outcomes(results_of([outcome async for outcome in source if outcome is not None]))
    response = _response_of(outcomes)
    return PiecesResponse(response.pieces, response.content_type)


def job_of_call(call: Call, content: object, services: Services) -> Job:
    """Return the job that makes `call`, whose body says `content`, and keeps Google's response whole."""

    async def outcomes(exchange: Exchange) -> AsyncGenerator[Outcome | None, None]:
        exchange.model = call.model
        try:
            yield Outcome(0, await services.client.forward(call, exchange))
        except errors.BananaError as error:
            yield Outcome(0, error)

    return Job(
        route=JOB_ROUTE,
        content=[call.path, content],
        order=lambda: [msgspec.json.encode([call.model, call.path]), b"\n", *call.body],
        calls=1,
        limit=call.limit,
        has_links=False,
        dialect=DIALECT.name,
        outcomes=outcomes,
    )


def result(outcomes: Outcomes, *, as_links: bool) -> Pieces:
    """Return Google's response, its pictures in it, for a document of ours; as a string where it is not JSON."""
    pieces = _response_of(outcomes).pieces
    parser = LazyJsonParser()
    try:
        for piece in pieces:
            parser.feed(bytes(piece))
        parser.close()
    except InvalidJson:
        return [msgspec.json.encode(b"".join(pieces).decode("utf-8", "replace"))]
    return pieces


def job_of(order: bytes, services: Services) -> Job:
    """Return the job of a task that is carried out again."""
    head, _, body = order.partition(b"\n")
    model, path = msgspec.json.decode(head)
    call = _call_to(model, path.removeprefix(f"models/{quote(model, safe='')}"), [body], services.client)
    return job_of_call(call, _content_of([body]), services)


def _response_of(outcomes: Outcomes) -> UpstreamResponse:
    (outcome,) = outcomes.all
    assert isinstance(outcome.result, UpstreamResponse)
    return outcome.result


def _content_of(body: Pieces) -> object:
    """Return what a body says, however it is written; the body itself where it is not JSON."""
    parser = LazyJsonParser(lenient=True)
    try:
        for piece in body:
            parser.feed(bytes(piece))
        return parser.close()
    except InvalidJson:
        return hashlib.sha256(b"".join(body)).hexdigest()


async def _stream_generate_content(context: CurrentContext) -> Response:
    """The request is forwarded to Google unchanged, and so is each part of the response as it arrives."""
    call = await call_of(context, STREAM, await _body_of(context))
    parts = context.services.client.stream(call, context.exchange)
    # The status is known with the first part: until then an error keeps its own.
    first = await anext(parts, None)
    if first is None:
        raise errors.InvalidResponse("Google's response is empty.")
    response = PiecesStreamResponse(_stream_parts(first, parts, context.exchange), first.content_type, parts)
    return context.closed_at_the_end(response)


async def _count_tokens(context: CurrentContext) -> Response:
    """The request is forwarded to Google unchanged, and so is the response."""
    return await forward(context, COUNT_TOKENS)


async def _stream_parts(
    first: UpstreamResponse, parts: AsyncGenerator[UpstreamResponse, None], exchange: Exchange
) -> AsyncGenerator[Pieces, None]:
    """Yield what arrives; an error after the beginning is an event of its own where there are events."""
    between_events = _ends_event(first)
    yield first.pieces
    try:
        async for part in parts:
            between_events = _ends_event(part)
            yield part.pieces
    except errors.BananaError as error:
        exchange.error_code = error.code
        if "event-stream" not in first.content_type or not between_events:
            raise  # the response is cut: an event of ours would fuse with the half one
        yield [b"data: ", _error_body(exchange, error, error.status), b"\r\n\r\n"]


def _ends_event(part: UpstreamResponse) -> bool:
    """Return whether the part ends with the blank line that ends an event; one in two halves does not count."""
    return bytes(part.pieces[-1][-4:]).endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))


def is_openai_models(request: Request) -> bool:
    """Return whether this is OpenAI's list of models, which has Google's path but not Google's credentials."""
    path: str = request.scope["path"]
    if not path.startswith("/v1/models") or ":" in path:
        return False
    return "x-goog-api-key" not in request.headers and TOKEN_PARAMETER not in request.query_params


def not_passed_on(path: str) -> str | None:
    """Return why a path of Google's API is not here, and what to do instead; None where it is no such path."""
    if match := _ELSEWHERE.fullmatch(path):
        return f"Google's {match[3]} are not supported: they belong to the project of one API key. Instead, {_INSTEAD[match[3]]}."
    if "/models/" in path and ":" in path and not path.endswith((*METHODS, ":predict")):
        return f"The supported methods of a model are {', '.join(METHODS)} and :predict."
    return None


def _claims(request: Request) -> bool:
    if _below_prefixes(request):
        return not is_openai_models(request)
    # OpenAI's API has files and batches at the same paths.
    is_elsewhere = _ELSEWHERE.fullmatch(request.scope["path"]) is not None
    return is_elsewhere and ("x-goog-api-key" in request.headers or TOKEN_PARAMETER in request.query_params)


_below_prefixes = under("/v1beta", "/upload/", *(f"{prefix}/models" for prefix in PREFIXES))
DIALECT = Dialect("google", _claims, error_response, TOKEN_PARAMETER)
CONTENT: dict[str, Any] = {"application/json": {"schema": {}}, "text/event-stream": {"schema": {}}}
ERROR_SCHEMA = {"type": "object"}
MODEL_PARAMETER = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": r"^[A-Za-z0-9._-]+$"},
    "example": "gemini-3-pro-image",
}
_EXAMPLE = {"contents": [{"role": "user", "parts": [{"text": "A banana on the moon"}]}]}
_BODY = {"required": True, "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}}}
TASK_FORMAT = TaskFormat(job_of, result, DIALECT)
router = APIRouter(tags=["Google"])
for _prefix in PREFIXES:
    for _method, _endpoint, _dependencies, _summary in (
        (GENERATE, _generate_content, MAKES_IMAGES_ONCE, "Generate content"),
        (STREAM, _stream_generate_content, MAKES_IMAGES, "Generate content, as a stream"),
        (COUNT_TOKENS, _count_tokens, MAKES_IMAGES, "Count tokens"),
    ):
        router.add_api_route(
            f"{_prefix}/models/{{model:path}}{_method}",
            _endpoint,
            methods=["POST"],
            dependencies=_dependencies,
            include_in_schema=_prefix == PREFIXES[0],
            operation_id=_method[1:],
            summary=_summary,
            responses=documentation.responses(CONTENT, ERROR_SCHEMA, or_task=_method == GENERATE),
            openapi_extra={"requestBody": _BODY, "parameters": [MODEL_PARAMETER]},
        )
