"""Tasks, polled, listed, cancelled and deleted."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from banana.app import create_app
from banana.server.protocol import ServerProtocol
from standin import faults
from standin.server import StandIn, answer
from tests.conftest import client_of, settings_for

pytestmark = pytest.mark.anyio
TASKS = "/v1/images/tasks"
GOOGLE = "/v1beta/models/gemini-3-pro-image:generateContent"
CONTENTS = {"contents": [{"parts": [{"text": "a banana"}]}]}
ASYNC = {"Prefer": "respond-async"}


async def begun(client: httpx.AsyncClient, path: str = "/v1/images/generations/async", **body: Any) -> dict[str, Any]:
    """Begin a task; return what the response says of it."""
    response = await client.post(path, json=body or {"prompt": "x"}, headers=ASYNC)
    assert response.status_code == 202, response.text
    task: dict[str, Any] = response.json()
    return task


async def polled(client: httpx.AsyncClient, task: dict[str, Any], wait: int = 20) -> dict[str, Any]:
    response = await client.get(task["poll_url"], params={"wait": wait})
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    found: dict[str, Any] = response.json()
    return found


async def test_a_task_is_processing_then_completed(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """The poll waits as long as it is asked to, and no longer."""
    seen_early = asyncio.Event()

    async def held(request: Request, picture: str) -> Response:
        await seen_early.wait()
        return faults.answered(answer("gemini-3-pro-image", picture))

    stand_in.plan.append(held)
    task = await begun(client)
    early = await polled(client, task, wait=0)
    seen_early.set()
    late = await polled(client, task)

    assert early == task
    assert (late["status"], late["http_status"]) == ("completed", 200)
    assert {name: late[name] for name in ("id", "task_id", "object", "created_at", "poll_url")} == {
        name: task[name] for name in ("id", "task_id", "object", "created_at", "poll_url")
    }
    assert late["expires_at"] >= task["expires_at"]


async def test_the_result_is_what_the_route_would_answer(client: httpx.AsyncClient) -> None:
    """Links, unless base64 was requested; Google's is inline."""
    ours = await polled(client, await begun(client, "/generate", prompt="x", number_of_images=2))
    inline = await polled(client, await begun(client, "/generate", prompt="x", response_format="b64"))
    openai = await polled(client, await begun(client, prompt="x"))
    openai_inline = await polled(client, await begun(client, prompt="x", response_format="b64_json"))
    google = await polled(client, await begun(client, GOOGLE, **CONTENTS))

    assert list(ours["result"]) == ["images", "metadata"]
    assert all(url.startswith("http://127.0.0.1/results/") for url in ours["result"]["images"])
    assert len(inline["result"]["images"][0]) > 1000
    assert list(openai["result"]) == ["created", "data", "background", "output_format", "quality", "size", "usage"]
    assert list(openai["result"]["data"][0]) == ["url"]
    assert list(openai_inline["result"]["data"][0]) == ["b64_json"]
    assert "inlineData" in str(google["result"]["candidates"])


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/generate", {"prompt": "x"}, 422, {"code": "blocked", "reason": "IMAGE_SAFETY"}),
        ("/v1/images/generations/async", {"prompt": "x"}, 400, {"code": "moderation_blocked"}),
    ],
)
async def test_a_failed_task_has_the_error_of_its_route(
    client: httpx.AsyncClient, stand_in: StandIn, path: str, body: dict[str, Any], status: int, error: dict[str, Any]
) -> None:
    """The inner object of its API format, with the status that the route would have answered."""
    stand_in.plan.append("image-safety")
    found = await polled(client, await begun(client, path, **body))

    assert (found["status"], found["http_status"]) == ("failed", status)
    assert error.items() <= found["error"].items()
    assert "result" not in found


async def test_googles_error_is_googles(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """As it came; its key may be used again."""
    stand_in.plan.append("404")
    found = await polled(client, await begun(client, GOOGLE, **CONTENTS))

    assert (found["status"], found["http_status"], found["error"]["status"]) == ("failed", 404, "NOT_FOUND")


async def test_a_reset_is_unknown(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """It may have been billed: the task says so, for as long as it is kept."""
    stand_in.plan.append("reset")
    found = await polled(client, await begun(client))

    assert (found["status"], found["error"]["code"], found["http_status"]) == ("failed", "outcome_unknown", 424)


async def test_a_partial_success_is_a_success(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """With what failed in `metadata`."""
    stand_in.plan.extend([None, "image-safety"])
    found = await polled(client, await begun(client, "/generate", prompt="x", number_of_images=2))

    assert (found["status"], found["result"]["metadata"]["returned"]) == ("completed", 1)
    assert [item["code"] for item in found["failed"]] == ["blocked"]


async def test_tasks_are_listed_newest_first(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """In pages, with their state and without their pictures."""
    stand_in.plan.extend([None, "image-safety", None])
    tasks = []
    for _ in range(3):
        tasks.append(await begun(client))
        await polled(client, tasks[-1])
    first = (await client.get(TASKS, params={"limit": 2})).json()
    second = (await client.get(TASKS, params={"limit": 2, "after": first["data"][-1]["id"]})).json()

    assert (first["object"], first["has_more"], second["has_more"]) == ("list", True, False)
    assert [task["id"] for task in first["data"] + second["data"]] == [task["id"] for task in reversed(tasks)]
    assert [task["status"] for task in first["data"]] == ["completed", "failed"]
    assert [task["http_status"] for task in first["data"]] == [200, 400]
    assert first["data"][1]["error"]["code"] == "moderation_blocked"
    assert "result" not in first["data"][0]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "wait=x", "wait=1e3", "limit=٣"])
async def test_numbers_that_are_none_are_refused_by_name(client: httpx.AsyncClient, query: str) -> None:
    """And too large ones are as large as may be."""
    name = query.partition("=")[0]
    path = TASKS if name == "limit" else f"{TASKS}/{'a' * 32}"
    response = await client.get(f"{path}?{query}")

    assert (response.status_code, response.json()["error"]["param"]) == (400, name)
    assert (await client.get(TASKS, params={"limit": 10**8})).status_code == 200


@pytest.mark.parametrize("sent", [True, False])
async def test_a_running_task_is_cancelled(stand_in: StandIn, sent: bool) -> None:
    """Its call ends at once; it reads `cancelled` until it expires."""
    async with client_of(create_app(settings_for(stand_in, max_connections=1))) as client:
        stand_in.plan.append("hang")
        first = await begun(client)
        waiting = await begun(client)
        async with asyncio.timeout(20):
            while not stand_in.calls:
                await asyncio.sleep(0.01)
        task = first if sent else waiting
        deleted = await client.delete(f"{TASKS}/{task['id']}")
        found = await polled(client, task)

        assert (deleted.status_code, deleted.content) == (204, b"")
        assert (found["status"], found["http_status"]) == ("cancelled", 499)
        if sent:
            async with asyncio.timeout(20):
                while not stand_in.calls[0].aborted:
                    await asyncio.sleep(0.01)
        else:
            await client.delete(f"{TASKS}/{first['id']}")
            assert len(stand_in.calls) == 1


@pytest.mark.parametrize("sent", [True, False])
async def test_the_key_of_a_cancelled_task_is_free_unless_it_was_sent(stand_in: StandIn, sent: bool) -> None:
    """What was sent may have been billed."""
    headers = {"Idempotency-Key": "k"}
    async with client_of(create_app(settings_for(stand_in, max_connections=1))) as client:
        stand_in.plan.append("hang")
        if not sent:
            await begun(client)
        task = (await client.post("/generate", json={"prompt": "x"}, headers=ASYNC | headers)).json()
        async with asyncio.timeout(20):
            while not stand_in.calls:
                await asyncio.sleep(0.01)
        calls = len(stand_in.calls)
        for known in (await client.get(TASKS)).json()["data"]:
            await client.delete(f"{TASKS}/{known['id']}")
        again = await client.post("/generate", json={"prompt": "x"}, headers=headers)

    assert task["status"] == "processing"
    assert again.status_code == (502 if sent else 200)
    assert len(stand_in.calls) == calls + (not sent)


async def test_a_finished_task_is_deleted_with_its_pictures(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """404 from then on; its key is used all the same."""
    headers = {"Idempotency-Key": "k"}
    task = (await client.post("/generate", json={"prompt": "x"}, headers=ASYNC | headers)).json()
    url = (await polled(client, task))["result"]["images"][0]
    first = await client.delete(f"{TASKS}/{task['id']}")
    second = await client.delete(f"{TASKS}/{task['id']}")
    gone = await client.get(task["poll_url"])
    repeat = await client.post("/generate", json={"prompt": "x"}, headers=headers)
    as_task = await client.post("/generate", json={"prompt": "x"}, headers=headers | ASYNC)

    assert (first.status_code, second.status_code, gone.status_code) == (204, 404, 404)
    assert (await client.get(url)).status_code == 410
    assert (repeat.status_code, as_task.status_code, len(stand_in.calls)) == (410, 410, 1)
    assert list(Path(".state/results").glob("*.jpg")) == []


async def test_a_task_that_has_ended_says_what_is_known_of_it(client: httpx.AsyncClient) -> None:
    """The model, the tokens, the cost, when it ended, and the request that began it; also in the list."""
    response = await client.post("/generate", json={"prompt": "x"}, headers=ASYNC)
    task = await polled(client, response.json())
    (listed,) = (await client.get(TASKS)).json()["data"]

    assert task["model"] == listed["model"] == "gemini-3-pro-image"
    assert task["usage"] == listed["usage"]
    assert task["usage"]["output_tokens_details"] == {"image_tokens": 1120, "text_tokens": 0, "reasoning_tokens": 225}
    assert task["created_at"] <= task["completed_at"] <= task["expires_at"]
    assert task["request_id"] == response.headers["x-request-id"]
    assert task["cost_usd"] == task["usage"]["cost"]


async def test_a_task_of_one_picture_is_the_picture_where_that_is_wanted(client: httpx.AsyncClient) -> None:
    """As the route would answer `Accept: image/*`; before it has ended, of several, and of none, it is the document."""
    one = await begun(client, "/generate", prompt="x")
    link = (await polled(client, one))["result"]["images"][0]
    picture = await client.get(one["poll_url"], headers={"Accept": "image/*"})
    several = await begun(client, "/generate", prompt="x", number_of_images=2)
    await polled(client, several)
    of_several = await client.get(several["poll_url"], headers={"Accept": "image/*"})
    blocked = await begun(client, "/generate", prompt="[fault:image-safety]")
    await polled(client, blocked)
    of_none = await client.get(blocked["poll_url"], headers={"Accept": "image/*"})

    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.headers["etag"] == '"ended"'
    assert picture.content == (await client.get(link)).content
    assert len(of_several.json()["result"]["images"]) == 2
    assert of_none.json()["error"]["code"] == "blocked"


async def test_a_cancel_can_spare_what_has_ended(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """With `If-Match: "processing"` a finished task is not deleted, however late the cancel comes."""
    cancel = {"If-Match": '"processing"'}
    finished = await begun(client)
    assert (await polled(client, finished))["status"] == "completed"
    late = await client.delete(finished["poll_url"], headers=cancel)
    stand_in.plan.append("hang")
    running = await begun(client)
    polled_early = await client.get(running["poll_url"])
    cancelled = await client.delete(running["poll_url"], headers=cancel)
    unknown = await client.delete(f"{TASKS}/{'0' * 32}", headers=cancel)
    other = await client.delete(running["poll_url"], headers={"If-Match": '"x"'})

    assert (late.status_code, late.json()["error"]["code"]) == (412, "precondition_failed")
    assert (await polled(client, finished))["status"] == "completed"
    assert polled_early.headers["etag"] == '"processing"'
    assert cancelled.status_code == 204
    assert (await polled(client, running))["status"] == "cancelled"
    assert (unknown.status_code, other.status_code) == (404, 400)


async def test_anothers_task_is_not_there(stand_in: StandIn) -> None:
    """404 for whoever did not begin it; not in the list; not to be deleted."""
    settings = settings_for(stand_in, access_tokens=("ann:a1", "bob:b1"))
    ann, bob = ({"Authorization": f"Bearer {token}"} for token in ("a1", "b1"))
    async with client_of(create_app(settings)) as client:
        task = (await client.post("/generate", json={"prompt": "x"}, headers=ASYNC | ann)).json()

        assert (await client.get(task["poll_url"], headers=bob)).status_code == 404
        assert (await client.delete(task["poll_url"], headers=bob)).status_code == 404
        assert (await client.get(TASKS, headers=bob)).json()["data"] == []
        assert (await client.get(TASKS, params={"after": task["id"]}, headers=bob)).status_code == 404
        assert (await client.get(task["poll_url"])).status_code == 401
        assert (await client.get(task["poll_url"], headers=ann)).status_code == 200


async def test_a_plain_request_with_a_key_is_no_task(client: httpx.AsyncClient) -> None:
    """It is neither listed nor polled nor deleted."""
    await client.post("/generate", json={"prompt": "x"}, headers={"Idempotency-Key": "k"})
    (picture,) = Path(".state/results").glob("*.jpg")
    entry_id = picture.name.partition("-")[0]

    assert (await client.get(TASKS)).json()["data"] == []
    assert (await client.get(f"{TASKS}/{entry_id}")).status_code == 404
    assert (await client.delete(f"{TASKS}/{entry_id}")).status_code == 404


async def test_a_task_whose_pictures_are_gone_says_so(client: httpx.AsyncClient) -> None:
    """410, as its links."""
    task = await begun(client)
    await polled(client, task)
    for picture in Path(".state/results").glob("*.jpg"):
        picture.unlink()

    response = await client.get(task["poll_url"])

    assert (response.status_code, response.json()["error"]["code"]) == (410, "expired")


async def test_a_task_has_a_deadline_of_its_own(stand_in: StandIn) -> None:
    """Longer than a request's, and an end all the same."""
    stand_in.latency_seconds = 1
    settings = settings_for(stand_in, request_timeout_seconds=0.5, task_timeout_seconds=20)
    async with client_of(create_app(settings)) as client:
        longer = await polled(client, await begun(client))
    stand_in.plan.append("hang")
    async with client_of(create_app(settings_for(stand_in, task_timeout_seconds=0.5))) as client:
        ended = await polled(client, await begun(client))

    assert longer["status"] == "completed"
    assert (ended["status"], ended["error"]["code"]) == ("failed", "outcome_unknown")


async def test_a_poll_does_not_hold_up_a_worker_that_is_to_end(
    client: httpx.AsyncClient, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers with the task as it is, and the next poll finds another worker."""
    stand_in.plan.append("hang")
    task = await begun(client)
    poll = asyncio.create_task(polled(client, task, wait=60))
    await asyncio.sleep(0.1)
    assert not poll.done()
    monkeypatch.setattr(ServerProtocol, "draining", True)

    found = await asyncio.wait_for(poll, 30)

    assert found["status"] == "processing"
    await client.delete(task["poll_url"])


async def test_a_stop_finishes_what_runs(stand_in: StandIn) -> None:
    """The application closes when its tasks have ended; the next one has them."""
    stand_in.latency_seconds = 0.5
    async with client_of(create_app(settings_for(stand_in))) as client:
        task = await begun(client)
    async with client_of(create_app(settings_for(stand_in))) as client:
        found = await polled(client, task, wait=0)

    assert (found["status"], len(stand_in.calls)) == ("completed", 1)
