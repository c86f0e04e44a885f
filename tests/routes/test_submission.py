"""How a task is begun, in every API format: 202 and where to poll."""

from typing import Any

import httpx
import pytest

from banana.app import create_app
from standin.server import StandIn
from tests.conftest import client_of, settings_for

pytestmark = pytest.mark.anyio
GOOGLE = "/v1beta/models/gemini-3-pro-image:generateContent"
CONTENTS = {"contents": [{"parts": [{"text": "a banana"}]}]}
ASYNC = {"Prefer": "respond-async"}
ROUTES = [
    ("/v1/images/generations/async", {"prompt": "x"}, {}),
    ("/v1/images/generations", {"prompt": "x"}, ASYNC),
    ("/generate", {"prompt": "x"}, ASYNC),
    (GOOGLE, CONTENTS, ASYNC),
]


@pytest.mark.parametrize(("path", "body", "headers"), ROUTES)
async def test_a_task_is_accepted(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    """At once, with the fields and headers of the contract."""
    response = await client.post(path, json=body, headers=headers)
    task = response.json()

    assert response.status_code == 202
    assert list(task) == ["id", "task_id", "object", "status", "created_at", "expires_at", "poll_url"]
    assert (task["object"], task["status"], task["task_id"]) == ("image.generation.task", "processing", task["id"])
    assert task["expires_at"] - task["created_at"] == 86_400
    assert task["poll_url"] == f"http://127.0.0.1/v1/images/tasks/{task['id']}"
    assert response.headers["location"] == task["poll_url"]
    assert response.headers["retry-after"] == "3"
    assert response.headers["preference-applied"] == "respond-async"
    assert response.headers["cache-control"] == "no-store"


async def test_edits_are_tasks_too(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """With a form, whose picture is in the order."""
    picture = (await client.post("/generate", json={"prompt": "x"}, headers={"Accept": "image/*"})).content
    response = await client.post("/v1/images/edits/async", data={"prompt": "y"}, files={"image": picture})
    polled = (await client.get(response.json()["poll_url"], params={"wait": 20})).json()

    assert polled["status"] == "completed"
    assert (await client.get(polled["result"]["data"][0]["url"])).status_code == 200
    assert "inlineData" in str(stand_in.calls[1].body)


@pytest.mark.parametrize(("path", "body", "headers"), ROUTES)
async def test_a_key_given_twice_is_one_task(
    client: httpx.AsyncClient, stand_in: StandIn, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    """The same response, while it runs and afterwards."""
    first = await client.post(path, json=body, headers=headers | {"Idempotency-Key": "k"})
    await client.get(first.json()["poll_url"], params={"wait": 20})
    again = await client.post(path, json=body, headers=headers | {"Idempotency-Key": "k"})

    assert (again.status_code, again.content, len(stand_in.calls)) == (202, first.content, 1)
    assert again.headers["idempotent-replayed"] == "true"


async def test_a_task_and_a_plain_repeat_are_one(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Whichever comes first: the other finds it, in the shape that it asks for."""
    key = {"Idempotency-Key": "k"}
    task = (await client.post("/generate", json={"prompt": "x"}, headers=ASYNC | key)).json()
    whole = await client.post("/generate", json={"prompt": "x"}, headers=key)
    key = {"Idempotency-Key": "l"}
    plain = await client.post("/generate", json={"prompt": "x"}, headers=key)
    later = (await client.post("/generate", json={"prompt": "x"}, headers=ASYNC | key)).json()
    polled = (await client.get(later["poll_url"])).json()

    assert len(whole.json()["images"][0]) > 1000
    assert (await client.get(task["poll_url"])).json()["result"]["images"][0].startswith("http://127.0.0.1/results/")
    assert (plain.status_code, polled["status"], len(stand_in.calls)) == (200, "completed", 2)


async def test_one_that_ends_while_it_is_waited_for_is_its_result(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """`wait` answers as the route would; when it takes longer, with the task."""
    quick = await client.post("/generate", json={"prompt": "x"}, headers={"Prefer": "respond-async, wait=20"})
    stand_in.latency_seconds = 3
    slow = await client.post("/generate", json={"prompt": "x"}, headers={"Prefer": "respond-async, wait=1"})
    stand_in.plan.append("image-safety")
    failed = await client.post("/generate", json={"prompt": "x"}, headers={"Prefer": "respond-async, wait=20"})

    assert (quick.status_code, list(quick.json())) == (200, ["images", "metadata"])
    assert quick.headers["x-cost-usd"] == "0.137116"
    assert slow.status_code == 202
    assert (failed.status_code, failed.json()["error"]["code"]) == (422, "blocked")


async def test_a_task_has_no_stream(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """The route for tasks refuses it by name; a preference gives way to the stream."""
    refused = await client.post("/v1/images/generations/async", json={"prompt": "x", "stream": True})
    streamed = await client.post("/v1/images/generations", json={"prompt": "x", "stream": True}, headers=ASYNC)

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "stream")
    assert streamed.headers["content-type"].startswith("text/event-stream")


async def test_what_is_wrong_with_it_is_said_at_once(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """There is no task for a body that is none."""
    response = await client.post("/v1/images/generations/async", json={"prompt": " "})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt")
    assert (await client.get("/v1/images/tasks")).json()["data"] == []


async def test_a_task_counts_as_a_request(stand_in: StandIn) -> None:
    """It makes something; polls have a rate limit of their own."""
    async with client_of(create_app(settings_for(stand_in, rate_limit_per_minute=1))) as client:
        first = await client.post("/v1/images/generations/async", json={"prompt": "x"})
        second = await client.post("/v1/images/generations/async", json={"prompt": "x"})
        polls = [(await client.get(first.json()["poll_url"])).status_code for _ in range(11)]

    assert (first.status_code, second.status_code) == (202, 429)
    assert polls == [200] * 10 + [429]


async def test_the_order_of_a_task_is_gone_when_it_is_sent(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """It lies beside the results until then."""
    from pathlib import Path

    stand_in.latency_seconds = 0.2
    task = (await client.post("/v1/images/generations/async", json={"prompt": "x"})).json()
    await client.get(task["poll_url"], params={"wait": 20})

    assert list(Path(".state/results/orders").iterdir()) == []


async def test_the_address_is_the_public_one(stand_in: StandIn) -> None:
    """PUBLIC_URL, else what the request was sent to; a host that is none is not repeated."""
    async with client_of(create_app(settings_for(stand_in, public_url="https://pictures.example.org/"))) as client:
        task = (await client.post("/v1/images/generations/async", json={"prompt": "x"})).json()
    async with client_of(create_app(settings_for(stand_in))) as client:
        named = await client.post("/generate", json={"prompt": "x"}, headers=ASYNC | {"Host": "localhost:9000"})

    assert task["poll_url"].startswith("https://pictures.example.org/v1/images/tasks/")
    assert named.json()["poll_url"].startswith("http://localhost:9000/v1/images/tasks/")
