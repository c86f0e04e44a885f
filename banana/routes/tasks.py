"""The tasks of a caller: polled until they have ended, listed, cancelled and deleted.

Source: the `/async` contract that clients of sub2api speak; tasks of every API format are polled here.
"""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Path, Query
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
from banana.routes import documentation, openai
from banana.routes.deps import MAKES_NOTHING, Context, CurrentContext
from banana.routes.dialect import Dialect
from banana.routes.kept import MAX_WAIT_SECONDS
from banana.routes.submission import TASKS_PATH, task_fields

DEFAULT_LIMIT, MAX_LIMIT = 20, 100
# A task changes, and what a cache would keep is nobody else's to see.
HEADERS = {"Cache-Control": "no-store"}
# A task's entity tag says whether it has ended.
PROCESSING, ENDED = '"processing"', '"ended"'

_FILE = {"schema": {"type": "string", "format": "binary"}}
TaskId = Annotated[str, Path(alias="id", description="The `id` of one of your tasks.")]
router = APIRouter(tags=["tasks"], dependencies=MAKES_NOTHING)


def _responses(content: dict[str, Any], *, is_delete: bool = False) -> dict[int | str, dict[str, Any]]:
    found = documentation.responses(content, openai.ERROR_SCHEMA)
    if is_delete:
        del found[200]
        found[204] = {"description": "It was cancelled or deleted."}
        found[412] = found[404] | {"description": "It has already ended; it was not deleted."}
    return found


@router.get(
    f"{TASKS_PATH}/{{id}}",
    operation_id="getImageTask",
    summary="Poll a task",
    responses=_responses({"application/json": {"schema": documentation.TASK_SCHEMA}, "image/*": _FILE}),
)
async def poll(
    task_id: TaskId,
    context: CurrentContext,
    wait: Annotated[
        int, Query(ge=0, description="Waits up to this many seconds, at most 60, for the task to end.")
    ] = 0,
    accept: Annotated[
        str,
        Header(
            alias="Accept",
            description="`image/*`: the image file itself, once a task with one image is completed.",
            examples=["image/*"],
        ),
    ] = "",
) -> Response:
    """Returns the task, with its result or its error once it has ended."""
    entry = await context.services.requests.task(task_id, context.caller, min(wait, MAX_WAIT_SECONDS))
    context.exchange.kept_id = entry.id
    return await _task_response(entry, context, accept)


@router.get(
    TASKS_PATH,
    operation_id="listImageTasks",
    summary="List your tasks",
    responses=_responses({"application/json": {"schema": documentation.TASK_LIST_SCHEMA}}),
)
async def list_tasks(
    context: CurrentContext,
    limit: Annotated[int, Query(ge=1)] = DEFAULT_LIMIT,
    after: Annotated[str | None, Query(description="The `id` of the last task of the page before.")] = None,
) -> Response:
    """Returns your tasks, newest first, at most 100 at once."""
    limit = min(limit, MAX_LIMIT)
    found = await context.services.requests.tasks(context.caller, limit + 1, after)
    document = {
        "object": "list",
        "data": [_fields(entry, context) for entry in found[:limit]],
        "has_more": len(found) > limit,
    }
    return Response(msgspec.json.encode(document), 200, HEADERS, "application/json")


@router.delete(
    f"{TASKS_PATH}/{{id}}",
    operation_id="deleteImageTask",
    summary="Cancel or delete a task",
    status_code=204,
    responses=_responses({}, is_delete=True),
)
async def delete_task(
    task_id: TaskId,
    context: CurrentContext,
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="Cancel the task only while it is processing. A task that has ended is not deleted: 412.",
            json_schema_extra={"enum": [PROCESSING]},
        ),
    ] = None,
) -> Response:
    """Cancels a task that is processing; deletes one that has ended, with its images."""
    only_active = _is_only_active(if_match)
    await context.services.requests.delete_task(task_id, context.caller, only_active=only_active)
    return Response(status_code=204, headers=HEADERS)


async def _task_response(entry: Entry, context: Context, accept: str) -> Response:
    """Return a task, with what became of it when it has ended. Raises Expired when that is gone."""
    services = context.services
    fields = _fields(entry, context)
    headers = HEADERS | {"ETag": PROCESSING if entry.state.is_active else ENDED}
    if entry.state is not State.COMPLETED:
        return Response(msgspec.json.encode(fields), 200, headers, "application/json")
    as_picture = entry.calls == 1 and preferred_media_type(accept).startswith("image/")
    as_links = entry.has_links and not as_picture
    outcomes = await services.requests.outcomes_of(entry, _base_url(context), as_links=as_links)
    if as_picture and outcomes.images:
        image = outcomes.images[0]
        return PiecesResponse(list(image.picture.decoded()), image.mime_type, headers)
    result = services.task_formats[entry.route].result(outcomes, as_links=as_links)
    if outcomes.failures:
        fields["failed"] = [
            {"index": failure.index, "code": failure.error.code, "message": failure.error.message}
            for failure in outcomes.failures
        ]
    head = msgspec.json.encode(fields)
    return PiecesResponse([head[:-1], b',"result":', *result, b"}"], "application/json", headers)


def _base_url(context: Context) -> str:
    return base_url_of(context.request, context.services.public_url)


def _fields(entry: Entry, context: Context) -> dict[str, object]:
    """Return what is said of a task, all but its result."""
    fields = task_fields(entry, _base_url(context))
    if entry.state.is_active:
        return fields
    match entry.state:
        case State.COMPLETED:
            fields["http_status"] = 200
        case State.CANCELLED:
            fields["http_status"] = CALLER_LEFT
        case State.FAILED:
            error = error_in(entry) or expired()
            fields |= _failure(error, context.exchange, context.services.task_formats[entry.route].dialect)
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
