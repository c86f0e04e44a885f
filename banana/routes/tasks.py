"""The tasks of a caller: polled until they have ended, listed, cancelled and deleted.

Source: the `/async` contract that clients of sub2api speak; tasks of every API format are polled here.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from banana import errors
from banana.exchange import CALLER_LEFT, Exchange
from banana.http.addresses import base_url_of
from banana.http.negotiation import preferred_media_type
from banana.http.responses import PiecesResponse
from banana.ledger.ledger import Entry, State
from banana.money import rounded
from banana.results.documents import error_in, summary_of
from banana.results.links import expired
from banana.routes import documentation, openai, openai_images
from banana.routes.dialect import Dialect, DialectRoute, Handler, Services
from banana.routes.kept import MAX_WAIT_SECONDS
from banana.routes.submission import TASKS_PATH, TaskFormat, task_fields

DEFAULT_LIMIT, MAX_LIMIT = 20, 100
# A task changes, and what a cache would keep is nobody else's to see.
HEADERS = {"Cache-Control": "no-store"}
# A task's entity tag says whether it has ended.
PROCESSING, ENDED = '"processing"', '"ended"'


def routes(services: Services, formats: Mapping[str, TaskFormat]) -> list[APIRoute]:
    """Return the routes; `formats` are those of every route that has tasks."""

    async def poll(request: Request, exchange: Exchange) -> Response:
        assert exchange.caller is not None
        wait_seconds = _number(request, "wait", 0, MAX_WAIT_SECONDS)
        entry = await services.requests.task(request.path_params["id"], exchange.caller, wait_seconds)
        exchange.kept_id = entry.id
        return await _task_response(entry, request, exchange, services, formats)

    async def listing(request: Request, exchange: Exchange) -> Response:
        assert exchange.caller is not None
        limit = _number(request, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        if not limit:
            raise errors.InvalidRequest.of_fields([("limit", "must be at least 1")])
        after = request.query_params.get("after")
        found = await services.requests.tasks(exchange.caller, limit + 1, after)
        base_url = base_url_of(request, services.public_url)
        document = {
            "object": "list",
            "data": [_fields(entry, base_url, exchange, formats) for entry in found[:limit]],
            "has_more": len(found) > limit,
        }
        return Response(msgspec.json.encode(document), 200, HEADERS, "application/json")

    async def delete(request: Request, exchange: Exchange) -> Response:
        assert exchange.caller is not None
        only_active = _is_only_active(request.headers.get("if-match"))
        await services.requests.delete_task(request.path_params["id"], exchange.caller, only_active=only_active)
        return Response(status_code=204, headers=HEADERS)

    one = f"{TASKS_PATH}/{{id}}"
    return [
        _route(one, "GET", poll, services, "getImageTask", "Poll a task", [_ID, _WAIT, _ACCEPT]),
        _route(TASKS_PATH, "GET", listing, services, "listImageTasks", "List your tasks", [_LIMIT, _AFTER]),
        _route(one, "DELETE", delete, services, "deleteImageTask", "Cancel or delete a task", [_ID, _IF_MATCH]),
    ]


async def _task_response(
    entry: Entry, request: Request, exchange: Exchange, services: Services, formats: Mapping[str, TaskFormat]
) -> Response:
    """Return a task, with what became of it when it has ended. Raises Expired when that is gone."""
    base_url = base_url_of(request, services.public_url)
    fields = _fields(entry, base_url, exchange, formats)
    headers = HEADERS | {"ETag": PROCESSING if entry.state.is_active else ENDED}
    if entry.state is not State.COMPLETED:
        return Response(msgspec.json.encode(fields), 200, headers, "application/json")
    as_picture = entry.calls == 1 and preferred_media_type(request.headers.get("accept", "")).startswith("image/")
    as_links = entry.has_links and not as_picture
    outcomes = await services.requests.outcomes_of(entry, base_url, as_links=as_links)
    if as_picture and outcomes.images:
        image = outcomes.images[0]
        return PiecesResponse(list(image.picture.decoded()), image.mime_type, headers)
    result = formats[entry.route].result(outcomes, as_links=as_links)
    if outcomes.failures:
        fields["failed"] = [
            {"index": failure.index, "code": failure.error.code, "message": failure.error.message}
            for failure in outcomes.failures
        ]
    head = msgspec.json.encode(fields)
    return PiecesResponse([head[:-1], b',"result":', *result, b"}"], "application/json", headers)


def _fields(entry: Entry, base_url: str, exchange: Exchange, formats: Mapping[str, TaskFormat]) -> dict[str, object]:
    """Return what is said of a task, all but its result."""
    fields = task_fields(entry, base_url)
    if entry.state.is_active:
        return fields
    match entry.state:
        case State.COMPLETED:
            fields["http_status"] = 200
        case State.CANCELLED:
            fields["http_status"] = CALLER_LEFT
        case State.FAILED:
            error = error_in(entry) or expired()
            fields |= _failure(error, exchange, formats[entry.route].dialect)
    return fields | _summary(entry)


def _summary(entry: Entry) -> dict[str, object]:
    """Return what is known of a task that has ended; what is not known is not there."""
    summary = summary_of(entry)
    fields = {
        "request_id": entry.request_id,
        "completed_at": summary.ended_at,
        "model": summary.model,
        "usage": summary.usage and openai.images_usage_of(summary.usage, summary.cost_usd),
    }
    known: dict[str, object] = {name: value for name, value in fields.items() if value}
    return known if summary.cost_usd is None else known | {"cost_usd": rounded(summary.cost_usd)}


def _is_only_active(if_match: str | None) -> bool:
    """Return whether a task is to be deleted only while it has not ended. Raises InvalidRequest."""
    if if_match not in (None, "*", PROCESSING):
        raise errors.InvalidRequest.of_fields([("If-Match", f"must be {PROCESSING} or left out")])
    return if_match == PROCESSING


def _failure(error: errors.BananaError, exchange: Exchange, dialect: Dialect) -> dict[str, object]:
    """Return what the route would have answered: its status, and the error object in its shape."""
    response = dialect.error_response(exchange, error)
    try:
        inner = msgspec.json.decode(response.body)["error"]
    except (msgspec.MsgspecError, LookupError, TypeError):  # what Google answered is not in its own shape
        inner = openai.error_object(exchange, error)
    return {"http_status": response.status_code, "error": inner}


def _number(request: Request, name: str, default: int, largest: int) -> int:
    """Return a whole number of the query, at most `largest`. Raises InvalidRequest."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise errors.InvalidRequest.of_fields([(name, "must be a whole number")])
    return min(int(text), largest)


def _responses(content: dict[str, Any], method: str) -> dict[int | str, dict[str, Any]]:
    found = documentation.responses(content, openai.ERROR_SCHEMA)
    if method == "DELETE":
        del found[200]
        found[204] = {"description": "It was cancelled or deleted."}
        found[412] = found[404] | {"description": "It has already ended; it was not deleted."}
    return found


def _parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


_ID = _parameter("id", "path", {"type": "string"}) | {"description": "The `id` of one of your tasks."}
_WAIT = _parameter("wait", "query", {"type": "integer", "minimum": 0, "default": 0}) | {
    "description": "Waits up to this many seconds, at most 60, for the task to end."
}
_LIMIT = _parameter("limit", "query", {"type": "integer", "minimum": 1, "default": DEFAULT_LIMIT})
_AFTER = _parameter("after", "query", {"type": "string"}) | {
    "description": "The `id` of the last task of the page before."
}
_ACCEPT = _parameter("Accept", "header", {"type": "string", "example": "image/*"}) | {
    "description": "`image/*`: the image file itself, once a task with one image is completed."
}
_IF_MATCH = _parameter("If-Match", "header", {"enum": [PROCESSING]}) | {
    "description": "Cancel the task only while it is processing. A task that has ended is not deleted: 412."
}


def _route(
    path: str, method: str, handler: Handler, services: Services, name: str, summary: str, parameters: list[Any]
) -> DialectRoute:
    schema = documentation.TASK_SCHEMA if path != TASKS_PATH else documentation.TASK_LIST_SCHEMA
    content = {"application/json": {"schema": schema}}
    if _ACCEPT in parameters:
        content["image/*"] = {"schema": {"type": "string", "format": "binary"}}
    return DialectRoute(
        path,
        handler,
        (openai_images.DIALECT,),
        services,
        makes_nothing=True,
        methods=[method],
        operation_id=name,
        tags=["tasks"],
        summary=summary,
        responses=_responses(content, method),
        openapi_extra={"parameters": parameters},
    )
