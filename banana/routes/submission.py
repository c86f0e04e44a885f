"""Requests that become tasks, in every API format: how they are begun, and how the response says so."""

import asyncio

import msgspec
from starlette.responses import Response

from banana.http.addresses import base_url_of
from banana.http.responses import PiecesResponse
from banana.ledger.ledger import Entry, State
from banana.results.links import expired
from banana.results.requests import RETRY_AFTER_SECONDS, Submission
from banana.results.works import Job
from banana.routes.deps import Context, Result
from banana.routes.kept import preference_of

TASKS_PATH = "/v1/images/tasks"
STATUSES = {
    State.BEGUN: "processing",
    State.SENT: "processing",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


def submission_of(job: Job, context: Context, *, is_task: bool = False) -> Submission:
    """Return what a request submits."""
    exchange, services = context.exchange, context.services
    admit_claim = exchange.admit_claim  # the client may disconnect before it is asked

    async def admit(is_new: bool) -> None:
        """Count a request with a key, which was not counted before; begin no task that there is no room or budget for."""
        if admit_claim is not None:
            await admit_claim(is_new)
        if is_new and is_task:
            services.client.check_room()
            await services.budgets.check(exchange, job.limit)

    return Submission(job, exchange, exchange.idempotency_key, is_task, admit)


async def accepted(job: Job, result: Result, context: Context, *, as_links: bool) -> Response:
    """Begin a task; return 202 with its address, or its `result` when it ends as soon as `Prefer: wait` says."""
    request, exchange, services = context.request, context.exchange, context.services
    submission = submission_of(job, context, is_task=True)
    await services.requests.submit(submission)
    entry = submission.entry
    assert entry is not None
    check_kept(entry)
    base_url = base_url_of(request, services.public_url)
    left_seconds = max(0, exchange.deadline - asyncio.get_running_loop().time() - 1)
    if wait_seconds := min(preference_of(request.headers).wait_seconds, left_seconds):
        entry = await services.requests.task(entry.id, context.caller, wait_seconds)
        if entry.state in (State.COMPLETED, State.FAILED):
            outcomes = await services.requests.outcomes_of(entry, base_url, as_links=as_links)
            exchange.cost_usd = None if submission.is_replay else outcomes.cost_usd
            return PiecesResponse(result(outcomes, as_links=as_links), "application/json")
    document = msgspec.json.encode(_accepted_fields(entry, base_url))
    return Response(document, 202, _ACCEPTED_HEADERS | {"Location": poll_url(entry, base_url)}, "application/json")


def check_kept(entry: Entry) -> None:
    """Return when what an entry became is there, or will be. Raises Expired."""
    if not entry.state.is_active and not entry.result:
        raise expired()


def poll_url(entry: Entry, base_url: str) -> str:
    """Return where a task is polled."""
    return f"{base_url}{TASKS_PATH}/{entry.id}"


def task_fields(entry: Entry, base_url: str) -> dict[str, object]:
    """Return what is said of a task everywhere."""
    return _accepted_fields(entry, base_url) | {
        "status": STATUSES[entry.state],
        "expires_at": int(entry.expires_at),
    }


def _accepted_fields(entry: Entry, base_url: str) -> dict[str, object]:
    """Return what is said of a task that was begun: the same, however often its request is repeated."""
    return {
        "id": entry.id,
        "task_id": entry.id,
        "object": "image.generation.task",
        "status": STATUSES[State.BEGUN],
        "created_at": int(entry.created_at),
        "expires_at": int(entry.created_at + entry.keep_seconds),
        "poll_url": poll_url(entry, base_url),
    }


_ACCEPTED_HEADERS = {
    "Retry-After": str(RETRY_AFTER_SECONDS),
    "Preference-Applied": "respond-async",
    "Cache-Control": "no-store",
}
