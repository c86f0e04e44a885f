"""Keys, as a caller sees them: what is sent to Google, counted, for every case; links; what is refused by name."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from banana.app import create_app
from banana.intervals import INTERVALS, Intervals
from banana.results.folder import FolderFiles
from banana.results.requests import KeptRequests
from standin import faults
from standin.server import StandIn
from tests.conftest import client_of, settings_for
from tests.patience import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KEY = {"Idempotency-Key": "order-1"}
GOOGLE = "/v1beta/models/gemini-3-pro-image:generateContent"
CONTENTS = {"contents": [{"parts": [{"text": "a banana"}]}]}
# Every route that takes a key, with a body of its own.
ROUTES = [
    ("/generate", {"prompt": "a banana"}),
    ("/v1/images/generations", {"prompt": "a banana"}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a banana"}]}),
    ("/v1/responses", {"input": "a banana"}),
    (GOOGLE, CONTENTS),
]

MakeClient = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def worker(stand_in: StandIn) -> AsyncIterator[MakeClient]:
    """Makes clients, each of a worker of its own; all share one `.state`."""
    async with AsyncExitStack() as stack:

        async def make(intervals: Intervals = INTERVALS, **values: Any) -> httpx.AsyncClient:
            settings = settings_for(stand_in, **{"rate_limit_per_minute": 1000} | values)
            app = create_app(settings, intervals=intervals)
            return await stack.enter_async_context(client_of(app))

        yield make


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_a_repeat_is_the_same_response_and_no_call(
    client: httpx.AsyncClient, stand_in: StandIn, path: str, body: dict[str, Any]
) -> None:
    """Byte for byte, with headers that say so, and an id of its own."""
    first = await client.post(path, json=body, headers=KEY)
    again = await client.post(path, json=body, headers=KEY)

    assert (first.status_code, again.status_code, len(stand_in.calls)) == (200, 200, 1)
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotent-replayed" not in first.headers
    assert (again.headers["idempotent-replayed"], again.headers["x-cost-usd"]) == ("true", "0.000000")
    assert again.headers["x-request-id"] != first.headers["x-request-id"]


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_another_worker_replays_it_too(
    worker: MakeClient, stand_in: StandIn, path: str, body: dict[str, Any]
) -> None:
    """What is kept is on the disk: a worker that knows nothing of the first has it."""
    first = await (await worker()).post(path, json=body, headers=KEY)
    again = await (await worker()).post(path, json=body, headers=KEY)

    assert (again.content, len(stand_in.calls)) == (first.content, 1)


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_forty_callers_with_one_key_are_one_call(
    worker: MakeClient, stand_in: StandIn, path: str, body: dict[str, Any]
) -> None:
    """Over four workers: joined while it runs, and equal."""
    stand_in.latency_seconds = 0.5
    workers = [await worker() for _ in range(4)]

    responses = await asyncio.gather(*(workers[n % 4].post(path, json=body, headers=KEY) for n in range(40)))

    assert {response.status_code for response in responses} == {200}
    assert len({response.content for response in responses}) == 1
    assert len(stand_in.calls) == 1
    assert sum("idempotent-replayed" not in response.headers for response in responses) == 1


async def test_replays_and_joins_spend_no_rate_limit(worker: MakeClient, stand_in: StandIn) -> None:
    """A used-up rate limit still replays what has ended; what is new is refused, and its key stays free."""
    stand_in.latency_seconds = 0.2
    client = await worker(rate_limit_per_minute=2)
    await asyncio.gather(*(client.post("/generate", json={"prompt": "x"}, headers=KEY) for _ in range(5)))
    second = await client.post("/generate", json={"prompt": "y"})
    refused = await client.post("/generate", json={"prompt": "z"}, headers={"Idempotency-Key": "other"})
    replayed = await client.post("/generate", json={"prompt": "x"}, headers=KEY)

    assert second.headers["x-ratelimit-remaining"] == "0"
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert (replayed.status_code, len(stand_in.calls)) == (200, 2)


async def test_replays_have_a_rate_limit_of_their_own(worker: MakeClient) -> None:
    """Ten times as large; beyond it 429."""
    client = await worker(rate_limit_per_minute=1)
    statuses = [(await client.post("/generate", json={"prompt": "x"}, headers=KEY)).status_code for _ in range(12)]

    assert statuses == [200] * 11 + [429]


@pytest.mark.parametrize(
    ("other", "status"),
    [
        (("/generate", {"prompt": "a pear"}), 422),
        (("/generate", {"prompt": "a banana", "number_of_images": 2}), 422),
        (("/generate", {"prompt": "a banana", "response_format": "url"}), 422),
        (("/v1/images/generations", {"prompt": "a banana"}), 400),
        ((GOOGLE, CONTENTS), 400),
    ],
)
async def test_another_request_with_the_key_is_refused(
    client: httpx.AsyncClient, stand_in: StandIn, other: tuple[str, dict[str, Any]], status: int
) -> None:
    """Another route or other content: a mismatch, in the shape of its route, and nothing is sent."""
    await client.post("/generate", json={"prompt": "a banana"}, headers=KEY)

    response = await client.post(other[0], json=other[1], headers=KEY)

    assert (response.status_code, len(stand_in.calls)) == (status, 1)
    assert "idempotency_mismatch" in response.text.lower()
    assert "idempotent-replayed" not in response.headers


async def test_the_same_content_written_otherwise_is_the_same_request(
    client: httpx.AsyncClient, stand_in: StandIn
) -> None:
    """Whitespace, the order of keys, a form instead of JSON, a data URI, defaults, quotes around the key: no difference."""
    picture = (await client.post("/generate", json={"prompt": "x"}, headers={"Accept": "image/*"})).content
    encoded = base64.b64encode(picture).decode()
    uri = f"data:image/jpeg;base64,{encoded}"
    first = await client.post("/generate", json={"prompt": "y", "image_base64": encoded}, headers=KEY)
    others = [
        await client.post("/generate", json={"image_base64": [uri], "prompt": "y", "number_of_images": 1}, headers=KEY),
        await client.post("/generate", content=f' {{"prompt" : "y","image_base64":"{encoded}"}}', headers=KEY),
        await client.post("/generate", data={"prompt": "y"}, files={"image": picture}, headers=KEY),
        await client.post(
            "/generate", json={"prompt": "y", "image_base64": encoded}, headers={"Idempotency-Key": '"order-1"'}
        ),
    ]

    assert [other.content for other in others] == [first.content] * 4
    assert len(stand_in.calls) == 2


async def test_google_content_written_otherwise_is_the_same_request(
    client: httpx.AsyncClient, stand_in: StandIn
) -> None:
    """Below another prefix, with other whitespace."""
    first = await client.post(GOOGLE, json=CONTENTS, headers=KEY)
    path = GOOGLE.replace("v1beta", "v1")
    again = await client.post(path, content=b'{"contents": [ {"parts":[{"text" :"a banana"}]}]}', headers=KEY)

    assert (again.content, len(stand_in.calls)) == (first.content, 1)


async def test_a_repeat_is_told_in_the_shape_it_asks_for(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """JSON first, then the picture itself, then events: one call."""
    whole = (await client.post("/generate", json={"prompt": "x"}, headers=KEY)).json()["images"][0]
    picture = await client.post("/generate", json={"prompt": "x"}, headers=KEY | {"Accept": "image/*"})
    events = await client.post("/generate", json={"prompt": "x"}, headers=KEY | {"Accept": "text/event-stream"})

    assert base64.b64encode(picture.content).decode() == whole
    assert picture.headers["content-type"] == "image/jpeg"
    assert whole in events.text
    assert events.text.startswith("event: image\n")
    assert "event: done\n" in events.text
    assert len(stand_in.calls) == 1


@pytest.mark.parametrize("remote", [False, True])
async def test_a_joined_stream_has_comments_then_every_event(
    worker: MakeClient, stand_in: StandIn, remote: bool
) -> None:
    """In the same worker and in another; the same events as the first."""
    stand_in.latency_seconds = 0.5
    one = await worker(Intervals(silence=0.05))
    other = await worker(Intervals(silence=0.05)) if remote else one
    headers = KEY | {"Accept": "text/event-stream"}

    first, joined = await asyncio.gather(
        *(
            client.post("/generate", json={"prompt": "x", "number_of_images": 2}, headers=headers)
            for client in (one, other)
        )
    )

    assert ": keep-alive" in joined.text
    assert sorted(events_of(joined.text)) == sorted(events_of(first.text))
    assert len(stand_in.calls) == 2


def events_of(text: str) -> list[str]:
    return [event for event in text.split("\n\n") if event and not event.startswith(":")]


async def test_a_join_ends_at_its_own_deadline(worker: MakeClient, stand_in: StandIn) -> None:
    """409 with the time to try again, and for OpenAI's SDKs the word that they may; then the result is there."""
    stand_in.latency_seconds = 2
    slow, hasty, openai = (
        await worker(),
        await worker(request_timeout_seconds=0.3),
        await worker(request_timeout_seconds=0.3),
    )
    body = {"prompt": "x"}
    task = asyncio.create_task(slow.post("/v1/images/generations", json=body, headers=KEY))
    await eventually(lambda: len(stand_in.calls) == 1)

    joined = await hasty.post("/v1/images/generations", json=body, headers=KEY)
    first = await task
    again = await openai.post("/v1/images/generations", json=body, headers=KEY)

    assert (joined.status_code, joined.json()["error"]["code"]) == (409, "in_progress")
    assert joined.headers["retry-after"] == "3"
    assert joined.headers["x-should-retry"] == "true"
    assert (again.content, len(stand_in.calls)) == (first.content, 1)


@pytest.mark.parametrize("fault", ["reset", "hang-up", "reset-inside", "truncated", "hang", "hang-inside", "not-http"])
@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_what_was_sent_and_never_answered_is_unknown_for_ever(
    worker: MakeClient, stand_in: StandIn, path: str, body: dict[str, Any], fault: str
) -> None:
    """`outcome_unknown`, kept: the repeat is the same error with the first id, and no call. 424 where programs repeat 502."""
    stand_in.plan.append(fault)
    client = await worker(request_timeout_seconds=2)
    first = await client.post(path, json=body, headers=KEY | {"X-Request-ID": "the-first"})
    again = await (await worker()).post(path, json=body, headers=KEY)

    status = 502 if path in ("/generate", GOOGLE) else 424
    assert (first.status_code, again.status_code, len(stand_in.calls)) == (status, status, 1)
    assert "outcome_unknown" in first.text.lower()
    assert "the-first" in again.text
    assert again.content == first.content


@pytest.mark.parametrize("fault", ["400", "404", "413", "429-long", "429-day", "400-key", "401", "400-precondition"])
@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_what_cannot_have_been_billed_may_be_tried_again(
    client: httpx.AsyncClient, stand_in: StandIn, path: str, body: dict[str, Any], fault: str
) -> None:
    """Google's refusals: the key is free, and its next request is carried out."""
    stand_in.plan.append(fault)
    refused = await client.post(path, json=body, headers=KEY)
    assert refused.status_code >= 400

    # Where the key was refused or rests, nothing is sent for a while: another key would be; here it is a new request.
    again = await client.post(path, json=body, headers=KEY)

    assert "idempotent-replayed" not in again.headers


@pytest.mark.parametrize("fault", ["503", "500"])
async def test_what_google_could_not_do_may_be_tried_again(
    client: httpx.AsyncClient, stand_in: StandIn, fault: str
) -> None:
    """After the retries: not billed, not kept."""
    stand_in.plan.extend([fault] * 3)
    refused = await client.post("/generate", json={"prompt": "x"}, headers=KEY)
    stand_in.plan.clear()
    again = await client.post("/generate", json={"prompt": "x"}, headers=KEY)

    assert refused.status_code in (502, 503)
    assert (again.status_code, "idempotent-replayed" in again.headers) == (200, False)


async def test_our_own_refusal_keeps_nothing(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """A body that is wrong does not use up the key."""
    wrong = await client.post("/generate", json={"prompt": " "}, headers=KEY)
    right = await client.post("/generate", json={"prompt": "x"}, headers=KEY)

    assert (wrong.status_code, right.status_code) == (422, 200)


async def test_a_connection_that_failed_keeps_nothing(worker: MakeClient, stand_in: StandIn) -> None:
    """Nobody listens: nothing was sent, and the key is free."""
    client = await worker()
    await stand_in.stop()
    refused = await client.post("/generate", json={"prompt": "x"}, headers=KEY)
    port = int(stand_in.base_url.rpartition(":")[2].partition("/")[0])
    await stand_in.start(port)
    again = await client.post("/generate", json={"prompt": "x"}, headers=KEY)

    assert (refused.status_code, again.status_code, len(stand_in.calls)) == (502, 200, 1)


@pytest.mark.parametrize("fault", ["blocked", "image-safety", "text-only", "garbage", "empty", "bad-base64"])
async def test_what_google_answered_is_kept_as_it_is(worker: MakeClient, stand_in: StandIn, fault: str) -> None:
    """A refusal by policy, words only, a whole response that is none: 200 at Google, perhaps billed, never sent again."""
    stand_in.plan.append(fault)
    first = await (await worker()).post("/generate", json={"prompt": "x"}, headers=KEY)
    again = await (await worker()).post("/generate", json={"prompt": "x"}, headers=KEY)

    assert (first.status_code >= 400, len(stand_in.calls)) == (True, 1)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert first.json()["error"]["request_id"] == first.headers["x-request-id"]


async def test_a_partial_success_is_kept_as_it_is(worker: MakeClient, stand_in: StandIn) -> None:
    """What failed stays failed; the images keep their order."""
    stand_in.plan.extend([None, "503", "image-safety"])
    body = {"prompt": "x", "number_of_images": 3}
    client = await worker(retries=0)
    first = await client.post("/generate", json=body, headers=KEY)
    again = await client.post("/generate", json=body, headers=KEY)

    assert (first.status_code, first.json()["metadata"]["returned"]) == (200, 1)
    assert (again.content, len(stand_in.calls)) == (first.content, 3)


async def test_of_several_that_failed_one_unknown_decides(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """It may have been billed, whatever the first one's error is."""
    stand_in.plan.extend(["image-safety", "reset"])
    body = {"prompt": "x", "number_of_images": 2}
    first = await client.post("/generate", json=body, headers=KEY)
    again = await client.post("/generate", json=body, headers=KEY)

    assert first.json()["error"]["code"] == again.json()["error"]["code"] == "outcome_unknown"
    assert len(stand_in.calls) == 2


async def test_a_picture_that_is_gone_is_never_made_again(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """410 until the key's own time is over, also as events."""
    await client.post("/generate", json={"prompt": "x"}, headers=KEY)
    for picture in Path(".state/results").glob("*.jpg"):
        picture.unlink()

    for accept in ("application/json", "text/event-stream"):
        again = await client.post("/generate", json={"prompt": "x"}, headers=KEY | {"Accept": accept})
        assert (again.status_code, again.json()["error"]["code"]) == (410, "expired")
    assert len(stand_in.calls) == 1


async def test_keys_are_their_callers(worker: MakeClient, stand_in: StandIn) -> None:
    """Two callers may choose the same key."""
    client = await worker(access_tokens=("ann:a1", "bob:b1"))
    for token in ("a1", "b1"):
        await client.post("/generate", json={"prompt": "x"}, headers=KEY | {"Authorization": f"Bearer {token}"})

    assert len(stand_in.calls) == 2


@pytest.mark.parametrize("key", ["", " ", '""', "a b", "\u00e4", "x" * 256, "tab\there"])
async def test_a_key_that_is_none_is_refused_by_name(client: httpx.AsyncClient, stand_in: StandIn, key: str) -> None:
    """1 to 255 visible ASCII characters."""
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    response = await client.post("/generate", json={"prompt": "x"}, headers=headers)

    assert (response.status_code, stand_in.calls) == (422, [])
    assert response.json()["error"]["fields"][0]["field"] == "Idempotency-Key"


@pytest.mark.parametrize("method", [":streamGenerateContent", ":countTokens"])
async def test_other_post_routes_refuse_a_key_by_name(
    client: httpx.AsyncClient, stand_in: StandIn, method: str
) -> None:
    """They cannot honour it; a GET ignores it."""
    response = await client.post(GOOGLE.replace(":generateContent", method), json=CONTENTS, headers=KEY)
    listed = await client.get("/v1/models", headers=KEY)

    assert (response.status_code, stand_in.calls) == (400, [])
    assert "Idempotency-Key" in response.json()["error"]["message"]
    assert listed.status_code == 200


async def test_a_caller_with_a_key_may_leave_and_come_back(worker: MakeClient, stand_in: StandIn) -> None:
    """The call goes on, and its picture is there for the repeat."""
    stand_in.latency_seconds = 0.5
    client = await worker()
    leaving = asyncio.create_task(client.post("/generate", json={"prompt": "x"}, headers=KEY))
    await eventually(lambda: len(stand_in.calls) == 1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)

    again = await client.post("/generate", json={"prompt": "x"}, headers=KEY)

    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert (len(stand_in.calls), stand_in.calls[0].aborted) == (1, False)


async def test_what_cannot_be_recorded_is_not_sent(worker: MakeClient, stand_in: StandIn) -> None:
    """A ledger that is no database: keys and tasks are 503, everything else goes on, and readiness says so."""
    client = await worker(Intervals(file_look=0))
    for file in Path(".state").glob("ledger.db*"):
        file.unlink()
    Path(".state/ledger.db").write_bytes(b"this is no database, and longer than a header of one has to be" * 100)

    keyed = await client.post("/generate", json={"prompt": "x"}, headers=KEY)
    task = await client.post("/v1/images/generations/async", json={"prompt": "x"})
    plain = await client.post("/generate", json={"prompt": "x"})
    ready = (await client.get("/ready")).json()

    assert (keyed.status_code, task.status_code, plain.status_code) == (503, 503, 200)
    assert keyed.headers["retry-after"] == "5"
    assert (ready["status"], ready["degraded"], len(stand_in.calls)) == ("ready", ["ledger"], 1)


async def test_a_picture_that_cannot_be_kept_still_arrives(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """As base64, and as a data URI where a link was asked for; readiness says so; its key is never sent again."""
    Path(".state").mkdir(exist_ok=True)
    Path(".state/results").write_text("a file where the folder should be")

    keyed = await client.post("/generate", json={"prompt": "x"}, headers=KEY)
    linked = await client.post("/generate", json={"prompt": "x", "response_format": "url"})
    openai = await client.post("/v1/images/generations", json={"prompt": "x", "response_format": "url"})
    again = await client.post("/generate", json={"prompt": "x"}, headers=KEY)

    assert len(keyed.json()["images"][0]) > 1000
    assert linked.json()["images"][0].startswith("data:image/jpeg;base64,")
    assert openai.json()["data"][0]["url"].startswith("data:image/jpeg;base64,")
    assert (again.status_code, len(stand_in.calls)) == (410, 3)
    assert (await client.get("/ready")).json()["degraded"] == ["results"]


async def test_what_cannot_be_read_now_is_not_gone(
    client: httpx.AsyncClient, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk with an error: 503, and later the same response."""
    first = await client.post("/generate", json={"prompt": "x"}, headers=KEY)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", fail_to_read)
        again = await client.post("/generate", json={"prompt": "x"}, headers=KEY)
    later = await client.post("/generate", json={"prompt": "x"}, headers=KEY)

    assert (again.status_code, later.content, len(stand_in.calls)) == (503, first.content, 1)


def fail_to_read(path: Path) -> bytes:
    raise OSError(5, "Input/output error")


async def test_a_caller_of_links_who_leaves_takes_the_calls_along(worker: MakeClient, stand_in: StandIn) -> None:
    """Without a key it will not come back: also as events."""
    client = await worker()
    for accept in ("application/json", "text/event-stream"):
        stand_in.plan.append("hang")
        body = {"prompt": "x", "response_format": "url"}
        leaving = asyncio.create_task(client.post("/generate", json=body, headers={"Accept": accept}))
        await eventually(lambda: bool(stand_in.calls) and not stand_in.calls[-1].ended)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await eventually(lambda: stand_in.calls[-1].aborted)


async def test_an_unkeyed_request_leaves_nothing(client: httpx.AsyncClient) -> None:
    """No entry, no file."""
    await client.post("/generate", json={"prompt": "x"})

    assert list(Path(".state").glob("results*")) == []


async def test_the_ledger_holds_no_prompt(client: httpx.AsyncClient) -> None:
    """Nor the order of a task that was sent; a digest stands for both."""
    await client.post("/generate", json={"prompt": "a very secret prompt"}, headers=KEY)
    task = await client.post("/v1/images/generations/async", json={"prompt": "a very secret prompt"})
    await client.get(task.json()["poll_url"], params={"wait": 10})

    for file in Path(".state").rglob("*"):
        assert not file.is_file() or b"secret" not in file.read_bytes(), file


class TestNothingKept:
    """KEEP_RESULTS_SECONDS=0."""

    @pytest.mark.parametrize(
        ("path", "body", "headers", "name"),
        [
            ("/generate", {"prompt": "x"}, KEY, "Idempotency-Key"),
            ("/generate", {"prompt": "x"}, {"Prefer": "respond-async"}, "Prefer"),
            ("/generate", {"prompt": "x", "response_format": "url"}, {}, "response_format"),
            ("/v1/images/generations/async", {"prompt": "x"}, {}, "/v1/images/generations/async"),
        ],
    )
    async def test_what_needs_it_is_refused_by_name(
        self, worker: MakeClient, stand_in: StandIn, path: str, body: dict[str, Any], headers: dict[str, str], name: str
    ) -> None:
        """With the setting that is in the way; nothing is sent, and nothing written."""
        client = await worker(keep_results_seconds=0)
        response = await client.post(path, json=body, headers=headers)

        assert (response.status_code in (400, 422), stand_in.calls) == (True, [])
        assert name in response.text
        assert "KEEP_RESULTS_SECONDS" in response.text
        assert not list(Path(".state").rglob("results/*"))

    async def test_openai_gets_a_data_uri(self, worker: MakeClient) -> None:
        """Which is a URL, and works."""
        client = await worker(keep_results_seconds=0)
        response = await client.post("/v1/images/generations", json={"prompt": "x", "response_format": "url"})

        assert response.json()["data"][0]["url"].startswith("data:image/jpeg;base64,")

    async def test_there_are_no_tasks(self, worker: MakeClient) -> None:
        """An empty list, and 404."""
        client = await worker(keep_results_seconds=0)

        assert (await client.get("/v1/images/tasks")).json()["data"] == []
        assert (await client.get("/v1/images/tasks/x")).status_code == 404
        assert (await client.delete("/v1/images/tasks/x")).status_code == 404


def test_the_class_has_what_stands_for_it() -> None:
    """Both have the same methods."""
    from banana.results.requests import NothingKept

    for name in vars(NothingKept):
        assert name.startswith("__") or hasattr(KeptRequests, name)


async def test_a_task_that_is_refused_is_no_promise(worker: MakeClient, stand_in: StandIn) -> None:
    """Whoever joined it before it was refused can poll why."""
    client = await worker(rate_limit_per_minute=1)
    await client.post("/generate", json={"prompt": "the one"})
    headers = KEY | {"Prefer": "respond-async"}
    begun = [client.post("/generate", json={"prompt": "x"}, headers=headers) for _ in range(3)]
    responses = await asyncio.gather(*begun)

    assert 429 in [response.status_code for response in responses]
    for response in responses:
        if response.status_code == 202:
            polled = (await client.get(f"/v1/images/tasks/{response.json()['id']}")).json()
            assert (polled["status"], polled["http_status"]) == ("failed", 429)
    assert len(stand_in.calls) == 1


async def test_a_task_that_was_never_sent_leaves_no_order(worker: MakeClient, stand_in: StandIn) -> None:
    """It found no room in its time; its prompt is gone with it."""
    stand_in.plan.append("hang")
    client = await worker(max_connections=1, request_timeout_seconds=60, task_timeout_seconds=0.5)
    busy = asyncio.create_task(client.post("/generate", json={"prompt": "busy"}))
    while not stand_in.calls:
        await asyncio.sleep(0.01)
    task = (await client.post("/v1/images/generations/async", json={"prompt": "secret"})).json()
    polled = (await client.get(f"/v1/images/tasks/{task['id']}?wait=20")).json()
    async with asyncio.timeout(20):
        while list(Path(".state/results/orders").iterdir()):
            await asyncio.sleep(0.01)
    busy.cancel()

    assert (polled["status"], polled["http_status"], len(stand_in.calls)) == ("failed", 504, 1)


async def test_a_task_that_there_is_no_room_for_is_refused_at_once(worker: MakeClient, stand_in: StandIn) -> None:
    """Not accepted first, and failed then."""
    stand_in.plan.append("hang")
    client = await worker(max_connections=1, max_waiting=0, request_timeout_seconds=60)
    busy = asyncio.create_task(client.post("/generate", json={"prompt": "busy"}))
    while not stand_in.calls:
        await asyncio.sleep(0.01)
    refused = await client.post("/v1/images/generations/async", json={"prompt": "x"})
    busy.cancel()

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert (await client.get("/v1/images/tasks")).json()["data"] == []


async def test_of_a_task_what_is_there_can_be_fetched(worker: MakeClient) -> None:
    """One of its pictures made room: the others are not lost with it. A key's response is the same or none."""
    client = await worker()
    body = {"prompt": "x", "number_of_images": 3}
    task = (await client.post("/generate", json=body, headers=KEY | {"Prefer": "respond-async"})).json()
    await client.get(f"/v1/images/tasks/{task['id']}?wait=20")
    next(Path(".state/results").glob("*-1.*")).unlink()
    links = (await client.get(f"/v1/images/tasks/{task['id']}")).json()
    inline = body | {"response_format": "b64"}
    kept = (await client.post("/generate", json=inline, headers={"Prefer": "respond-async"})).json()
    await client.get(f"/v1/images/tasks/{kept['id']}?wait=20")
    next(Path(".state/results").glob(f"{kept['id']}-0.*")).unlink()
    polled = (await client.get(f"/v1/images/tasks/{kept['id']}")).json()

    assert len(polled["result"]["images"]) == 2
    assert [(failed["index"], failed["code"]) for failed in polled["failed"]] == [(0, "expired")]
    assert links["status"] == "completed"
    assert (await client.post("/generate", json=body, headers=KEY)).status_code == 410


async def test_a_task_deleted_by_a_caller_who_leaves_is_deleted(
    worker: MakeClient, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its picture's link leads nowhere."""
    client = await worker()
    task = (await client.post("/v1/images/generations/async", json={"prompt": "x"})).json()
    place = f"/v1/images/tasks/{task['id']}"
    link = (await client.get(f"{place}?wait=20")).json()["result"]["data"][0]["url"]
    removing, gate = asyncio.Event(), asyncio.Event()
    remove = FolderFiles.remove

    async def slow_remove(self: FolderFiles, entry_id: str) -> None:
        removing.set()
        await gate.wait()
        await remove(self, entry_id)

    monkeypatch.setattr(FolderFiles, "remove", slow_remove)
    deleting = asyncio.create_task(client.delete(place))
    await removing.wait()
    deleting.cancel()
    await asyncio.gather(deleting, return_exceptions=True)
    gate.set()
    async with asyncio.timeout(20):
        while (await client.get(place)).status_code != 404:
            await asyncio.sleep(0.01)

    assert (await client.get(link)).status_code == 410


async def test_a_picture_that_cannot_be_removed_can_be_deleted_again(
    worker: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told that it is gone while it is there."""
    client = await worker()
    task = (await client.post("/v1/images/generations/async", json={"prompt": "x"})).json()
    place = f"/v1/images/tasks/{task['id']}"
    link = (await client.get(f"{place}?wait=20")).json()["result"]["data"][0]["url"]

    async def failing_remove(self: FolderFiles, entry_id: str) -> None:
        raise OSError("read-only")

    with monkeypatch.context() as broken:
        broken.setattr(FolderFiles, "remove", failing_remove)
        refused = await client.delete(place)
    deleted = await client.delete(place)

    assert (refused.status_code, deleted.status_code, (await client.get(link)).status_code) == (503, 204, 410)


async def test_a_repeat_of_a_refusal_by_policy_says_so(worker: MakeClient, stand_in: StandIn) -> None:
    """Also where another of its calls found no room: coming back would be in vain."""
    stand_in.plan.extend(["503", "image-safety"])
    client = await worker(retries=0)
    body = {"prompt": "x", "number_of_images": 2}
    first, again = [await client.post("/generate", json=body, headers=KEY) for _ in range(2)]

    assert (first.status_code, first.json()["error"]["code"]) == (422, "blocked")
    assert again.content == first.content
    assert len(stand_in.calls) == 2


async def test_a_response_in_text_is_replayed_as_it_was(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Whatever type Google, or what stands before it, gives: it is bytes that passed, and no words."""
    stand_in.plan.append(faults.says(b'{"candidates": []}', "text/plain"))
    bodies = [(await client.post(GOOGLE, json=CONTENTS, headers=KEY)).content for _ in range(2)]

    assert bodies[0] == bodies[1] == b'{"candidates": []}'
    assert len(stand_in.calls) == 1
