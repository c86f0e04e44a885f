"""What requests cost, as callers see it in every API format, and budgets that hold over several workers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from banana.app import create_app
from banana.ledger.spend import Spent
from banana.ledger.sqlite import SQLiteLedger
from standin import faults
from standin.server import StandIn, answer
from tests.conftest import client_of, error_of, served, settings_for
from tests.patience import eventually, logged
from tests.pictures import encoded, png

pytestmark = pytest.mark.anyio
CALLER = "127.0.0.1"
COST = 0.137116
LIMIT = 0.183568  # what such a request may cost at the most: image, 4096 tokens of thinking, 8 bytes of prompt
GOOGLE = "/v1beta/models/gemini-3-pro-image:generateContent"
STREAM = "/v1beta/models/gemini-3-pro-image:streamGenerateContent?alt=sse"
CONTENTS = {"contents": [{"parts": [{"text": "a banana"}]}]}
PROMPT = {"prompt": "a banana"}
CHAT = {"messages": [{"role": "user", "content": "a banana"}], "modalities": ["image"]}
ROUTES = [
    ("/generate", PROMPT),
    ("/v1/images/generations", PROMPT),
    ("/v1/chat/completions", CHAT),
    ("/v1/responses", {"input": "a banana", "tools": [{"type": "image_generation"}]}),
    (GOOGLE, CONTENTS),
]
Worker = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def worker(stand_in: StandIn) -> AsyncIterator[Worker]:
    """Makes clients, each of a worker of its own; all share one `.state`."""
    async with AsyncExitStack() as stack:

        async def make(**values: Any) -> httpx.AsyncClient:
            app = create_app(settings_for(stand_in, **{"rate_limit_per_minute": 1000} | values))
            return await stack.enter_async_context(client_of(app))

        yield make


def spent(caller: str = CALLER) -> Spent:
    return SQLiteLedger(Path(".state/ledger.db")).spend.spent(caller)


async def until_spent(amount: float) -> None:
    """Wait until so much was recorded, and nothing is reserved."""
    async with asyncio.timeout(20):
        while spent().ever != round(amount * 1e9) or spent().reserved_day:
            await asyncio.sleep(0.02)


def counted(before: str, after: str, series: str) -> float:
    """How much a series has grown."""
    first, second = (
        sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(series))
        for text in (before, after)
    )
    return round(second - first, 6)


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_a_response_says_what_it_cost(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    """In the header, and in the log."""
    response = await client.post(path, json=body)
    lines = Path("logs/app.log").read_text(encoding="utf-8").splitlines()
    request = next(line for line in map(json.loads, lines) if line["event"] == "request" and line["path"] == path)

    assert response.headers["x-cost-usd"] == f"{COST:.6f}"
    assert request["cost_usd"] == COST


async def test_openais_usage_has_the_cost(client: httpx.AsyncClient) -> None:
    """Of all pictures together; in events of each."""
    body = PROMPT | {"n": 2}
    whole = (await client.post("/v1/images/generations", json=body)).json()
    events = (await client.post("/v1/images/generations", json=body | {"stream": True})).text

    assert whole["usage"]["cost"] == round(2 * COST, 6)
    assert [json.loads(line[6:])["usage"]["cost"] for line in events.splitlines() if line[:5] == "data:"] == [
        COST,
        COST,
    ]


async def test_input_pictures_cost_too(client: httpx.AsyncClient) -> None:
    """560 tokens more of input."""
    response = await client.post("/generate", json=PROMPT | {"image_base64": encoded(png())})

    assert response.headers["x-cost-usd"] == f"{COST + 560 * 2e-6:.6f}"


async def test_events_end_with_the_cost(client: httpx.AsyncClient) -> None:
    """Their header has it where it is known by the first of them."""
    response = await client.post("/generate", json=PROMPT, headers={"Accept": "text/event-stream"})

    assert json.loads(response.text.rpartition("data: ")[2])["cost_usd"] == COST
    assert response.headers["x-cost-usd"] == f"{COST:.6f}"


async def test_googles_stream_is_counted(client: httpx.AsyncClient) -> None:
    """Its last count of tokens is read as it passes."""
    before = (await client.get("/metrics")).text
    response = await client.post(STREAM, json=CONTENTS)
    after = (await client.get("/metrics")).text

    assert "x-cost-usd" not in response.headers
    assert counted(before, after, 'banana_cost_usd_total{caller="anonymous",model="gemini-3-pro-image"}') == COST
    assert (await client.get("/v1/key")).json()["data"]["usage"] == COST


async def test_a_task_says_what_it_cost(client: httpx.AsyncClient) -> None:
    """Polled and listed, when it has ended; a replay costs nothing."""
    begun = (await client.post("/v1/images/generations/async", json=PROMPT, headers={"Idempotency-Key": "k"})).json()
    polled = (await client.get(f"/v1/images/tasks/{begun['id']}?wait=20")).json()
    listed = (await client.get("/v1/images/tasks")).json()["data"]
    replay = await client.post("/v1/images/generations", json=PROMPT, headers={"Idempotency-Key": "k"})

    assert (polled["cost_usd"], polled["result"]["usage"]["cost"], listed[0]["cost_usd"]) == (COST, COST, COST)
    assert (replay.headers["x-cost-usd"], replay.json()["usage"]["cost"]) == ("0.000000", COST)
    assert "cost_usd" not in begun
    assert (await client.get("/v1/key")).json()["data"]["usage"] == COST


@pytest.mark.parametrize("budgets", ["", "*=1/day"])
async def test_a_request_with_a_key_is_charged_once(worker: Worker, budgets: str) -> None:
    """Its caller's response says what it cost, and is not what pays; nor are those who join."""
    client = await worker(**({"budgets": budgets} if budgets else {}))
    before = (await client.get("/metrics")).text
    headers = {"Idempotency-Key": "k"}
    made = await asyncio.gather(*(client.post("/generate", json=PROMPT, headers=headers) for _ in range(3)))
    after = (await client.get("/metrics")).text

    assert sorted(response.headers["x-cost-usd"] for response in made) == ["0.000000", "0.000000", f"{COST:.6f}"]
    assert (await client.get("/v1/key")).json()["data"]["usage"] == COST
    assert counted(before, after, "banana_cost_usd_total") == COST


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_replay_is_the_same_also_in_its_cost(client: httpx.AsyncClient, accept: str) -> None:
    """Byte for byte."""
    headers = {"Idempotency-Key": "k", "Accept": accept}
    first, again = [await client.post("/generate", json=PROMPT, headers=headers) for _ in range(2)]

    assert first.content == again.content
    assert again.headers["x-cost-usd"] == "0.000000"


async def test_what_was_billed_without_a_picture_says_so(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """An error with its cost, counted apart as what reached nobody; of two calls both count."""
    words = {"promptTokenCount": 1000, "candidatesTokenCount": 500, "totalTokenCount": 1500}
    details = [{"modality": "TEXT", "tokenCount": 500}]
    refused = faults.says(
        {"candidates": [{"finishReason": "STOP"}], "usageMetadata": words | {"candidatesTokensDetails": details}}
    )
    stand_in.plan.extend([refused, refused, None])
    before = (await client.get("/metrics")).text
    alone = await client.post("/generate", json=PROMPT)
    one_of_two = await client.post("/generate", json=PROMPT | {"number_of_images": 2})
    after = (await client.get("/metrics")).text

    assert error_of(alone)["code"] == "no_image"
    assert alone.headers["x-cost-usd"] == "0.008000"
    assert one_of_two.headers["x-cost-usd"] == f"{COST + 0.008:.6f}"
    assert counted(before, after, "banana_cost_usd_total") == round(COST + 0.016, 6)
    lost = 'banana_cost_undelivered_usd_total{caller="anonymous",model="gemini-3-pro-image",reason="no_image"}'
    assert counted(before, after, lost) == 0.016


@pytest.mark.parametrize("fault", ["400", "503-once", "403"])
async def test_where_nothing_was_billed_nothing_is_said(
    client: httpx.AsyncClient, stand_in: StandIn, fault: str
) -> None:
    """Nor when the price of the model is not known."""
    stand_in.plan.extend(["503"] if fault == "503-once" else [fault])
    response = await client.post("/generate", json=PROMPT | {"model": "gemini-unheard-of-image"})

    assert "x-cost-usd" not in response.headers
    assert (await client.get("/v1/key")).json()["data"]["usage"] == 0


async def test_prices_of_ones_own_count(worker: Worker) -> None:
    """By the name that a caller uses, too."""
    client = await worker(prices="gemini-3-pro-image-preview=100/10/1")

    assert (await client.post("/generate", json=PROMPT)).headers["x-cost-usd"] == f"{0.112 + 0.00225 + 0.000008:.6f}"


async def test_a_call_for_nothing_is_not_billed(client: httpx.AsyncClient) -> None:
    """Counting tokens and listing models are free."""
    counted_tokens = await client.post("/v1beta/models/gemini-3-pro-image:countTokens", json=CONTENTS)
    listed = await client.get("/v1/models", headers={"x-goog-api-key": "k"})

    assert (counted_tokens.status_code, listed.status_code) == (200, 200)
    assert (await client.get("/v1/key")).json()["data"]["usage"] == 0


@pytest.mark.parametrize(
    ("path", "body", "place", "expected"),
    [("/generate", PROMPT, "code", "budget_exceeded"), ("/v1/images/generations", PROMPT, "type", "insufficient_quota"),
     (GOOGLE, CONTENTS, "status", "FAILED_PRECONDITION"), (STREAM, CONTENTS, "status", "FAILED_PRECONDITION"),
     ("/v1/images/generations/async", PROMPT, "code", "budget_exceeded")],
)  # fmt: skip
async def test_over_its_budget_a_caller_is_refused(
    worker: Worker, stand_in: StandIn, path: str, body: dict[str, Any], place: str, expected: str
) -> None:
    """In each dialect's shape, without a call; what is left stands in the header."""
    client = await worker(budgets="*=0.1/day")

    response = await client.post(path, json=body)

    assert (response.status_code, response.json()["error"][place]) == (402, expected)
    assert response.headers["x-budget-remaining-usd"] == "0.100000"
    assert response.headers.get("x-should-retry", "false") == "false"
    assert stand_in.calls == []


@pytest.mark.parametrize("key", [None, "k"])
async def test_events_over_budget_are_an_error(worker: Worker, stand_in: StandIn, key: str | None) -> None:
    """And nothing is kept of it: with room it is carried out."""
    client = await worker(budgets="*=0.1/day")
    headers = {"Accept": "text/event-stream"} | ({"Idempotency-Key": key} if key else {})

    response = await client.post("/generate", json=PROMPT, headers=headers)

    assert "budget_exceeded" in response.text
    assert stand_in.calls == []
    richer = await worker(budgets="*=1/day")
    assert "event: image" in (await richer.post("/generate", json=PROMPT, headers=headers)).text


async def statuses_of(asked: Sequence[Awaitable[httpx.Response]], made: int, stand_in: StandIn) -> list[int]:
    """The statuses of requests that are made at once: Google answers when all but `made` of them have been refused."""
    all_refused = asyncio.Event()

    async def answers_late(request: Request, picture: str) -> Response:
        await all_refused.wait()
        return faults.answered(answer("m", picture))

    stand_in.plan.extend([answers_late] * len(asked))
    statuses: list[int] = []
    for response in asyncio.as_completed(asked):
        statuses.append((await response).status_code)
        if len(statuses) == len(asked) - made:
            all_refused.set()
    return statuses


async def test_of_sixty_at_once_no_more_are_made_than_fit(worker: Worker, stand_in: StandIn) -> None:
    """Over four workers, in every format: what is refused reaches nobody, and what is spent is within the budget."""
    workers = [await worker(budgets="*=1/day", request_timeout_seconds=60) for _ in range(4)]
    asked = [workers[number % 4].post(path, json=body) for number in range(20) for path, body in ROUTES]
    statuses = await statuses_of(asked, made=int(1 / LIMIT), stand_in=stand_in)

    assert set(statuses) == {200, 402}
    assert statuses.count(200) == len(stand_in.calls) == int(1 / LIMIT)
    await until_spent(statuses.count(200) * COST)


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_one_after_the_other_most_of_a_budget_is_usable(worker: Worker, path: str, body: dict[str, Any]) -> None:
    """All but what one request may cost at the most."""
    client = await worker(budgets="*=1/month")
    costs = [float((await client.post(path, json=body)).headers.get("x-cost-usd", 0)) for _ in range(9)]

    assert 0.7 < sum(costs) <= 1
    assert sum(cost > 0 for cost in costs) == 6


async def test_of_a_request_for_several_all_fit_or_none(worker: Worker, stand_in: StandIn) -> None:
    """Nobody gets half of what it asked for."""
    client = await worker(budgets="*=1/day")

    assert (await client.post("/generate", json=PROMPT | {"number_of_images": 6})).status_code == 402
    assert (await client.post("/generate", json=PROMPT | {"number_of_images": 5})).status_code == 200
    assert len(stand_in.calls) == 5


@pytest.mark.parametrize("fault", ["400", "500", "403", "429-day"])
async def test_what_cannot_have_been_billed_is_given_back(worker: Worker, stand_in: StandIn, fault: str) -> None:
    """At once: the response says so."""
    client = await worker(budgets="*=1/day", retries=0)
    stand_in.plan.append(fault)

    assert (await client.post("/generate", json=PROMPT)).headers["x-budget-remaining-usd"] == "1.000000"
    assert spent() == Spent()


@pytest.mark.parametrize("key", [None, "k"])
async def test_an_outcome_that_was_never_learnt_is_charged_as_reserved(
    worker: Worker, stand_in: StandIn, key: str | None
) -> None:
    """A reset after the request was sent, in a keyed request too."""
    client = await worker(budgets="*=1/day")
    stand_in.plan.append("reset")
    response = await client.post("/generate", json=PROMPT, headers={"Idempotency-Key": key} if key else {})

    assert response.status_code == 502
    assert "x-cost-usd" not in response.headers
    await until_spent(LIMIT)


async def test_a_caller_who_leaves_is_charged_as_reserved(stand_in: StandIn) -> None:
    """Its call may have been billed; what had come is what it cost, and nobody has it."""
    stand_in.plan.extend([None, "hang"])
    app = create_app(settings_for(stand_in, budgets="*=1/day", request_timeout_seconds=60))
    async with served(app) as address, httpx.AsyncClient(timeout=60) as client:
        before = (await client.get(f"{address}/metrics")).text
        asked = asyncio.create_task(client.post(f"{address}/generate", json=PROMPT | {"number_of_images": 2}))
        await logged(lambda line: line.get("outcome") == "ok")
        await eventually(lambda: len(stand_in.calls) == 2)
        asked.cancel()
        await logged(lambda line: line["event"] == "request" and line["status"] == 499)  # counted before it is written
        await until_spent(COST + LIMIT)
        after = (await client.get(f"{address}/metrics")).text

    lost = 'banana_cost_undelivered_usd_total{caller="anonymous",model="gemini-3-pro-image",reason='
    assert counted(before, after, f'{lost}"caller_left"}}') == COST
    assert counted(before, after, f'{lost}"unknown"}}') == LIMIT
    assert counted(before, after, "banana_cost_usd_total") == round(COST + LIMIT, 6)


async def test_a_replay_is_served_over_budget(worker: Worker) -> None:
    """It costs nothing; another request is refused."""
    client = await worker(budgets="*=0.2/day")
    headers = {"Idempotency-Key": "k"}
    first, again = [await client.post("/generate", json=PROMPT, headers=headers) for _ in range(2)]
    other = await client.post("/generate", json=PROMPT)

    assert (first.status_code, again.status_code, other.status_code) == (200, 200, 402)
    assert again.content == first.content


async def test_a_task_is_charged_too(worker: Worker) -> None:
    """Whichever worker carries it out; cancelled while it runs, as reserved."""
    client = await worker(budgets="*=1/day")
    task = (await client.post("/v1/images/generations/async", json=PROMPT)).json()
    await client.get(f"/v1/images/tasks/{task['id']}?wait=20")

    await until_spent(COST)


async def test_a_cancelled_task_is_charged_as_reserved(worker: Worker, stand_in: StandIn) -> None:
    """Its call may have been billed."""
    client = await worker(budgets="*=1/day")
    stand_in.plan.append("hang")
    task = (await client.post("/v1/images/generations/async", json=PROMPT)).json()
    async with asyncio.timeout(20):
        while not stand_in.calls:
            await asyncio.sleep(0.02)
    await client.delete(f"/v1/images/tasks/{task['id']}")

    await until_spent(LIMIT)


async def test_a_model_without_a_price_is_refused_under_a_budget(worker: Worker, stand_in: StandIn) -> None:
    """By the name of the setting that would help."""
    client = await worker(budgets="*=1/day")
    response = await client.post("/generate", json=PROMPT | {"model": "gemini-9-image"})

    assert (response.status_code, stand_in.calls) == (402, [])
    assert "price of gemini-9-image is not known" in error_of(response)["message"]
    assert "PRICES" in error_of(response)["message"]


async def test_googles_size_is_reserved(worker: Worker, stand_in: StandIn) -> None:
    """4K costs more, and is refused where 1K fits; so is a body that cannot be read."""
    client = await worker(budgets="*=0.2/day")
    large = CONTENTS | {"generationConfig": {"imageConfig": {"imageSize": "4K"}}}

    assert (await client.post(GOOGLE, json=large)).status_code == 402
    assert (await client.post(GOOGLE, content=b"{" * 20)).status_code == 402
    assert (await client.post(GOOGLE, json=CONTENTS)).status_code == 200


async def test_a_key_that_has_spent_what_it_may_gives_way_to_another(worker: Worker, stand_in: StandIn) -> None:
    """When none has room: 429 with the time until there is, in Google's shape too."""
    client = await worker(gemini_api_key=("key-1", "key-2"), key_spend_per_10_minutes="0.5")
    statuses = [(await client.post("/generate", json=PROMPT)).status_code for _ in range(6)]
    refused = await client.post(GOOGLE, json=CONTENTS)

    assert statuses == [200] * 6
    assert {call.key for call in stand_in.calls} == {"key-1", "key-2"}
    assert refused.status_code == 429
    assert 590 <= int(refused.headers["retry-after"]) <= 600
    assert refused.json()["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert "KEY_SPEND_PER_10_MINUTES" in refused.json()["error"]["message"]


async def test_no_key_spends_more_than_it_may_over_several_workers(worker: Worker, stand_in: StandIn) -> None:
    """Forty at once: what a call may cost at the most is taken before it is sent."""
    limits: dict[str, Any] = {"key_spend_per_10_minutes": "1", "request_timeout_seconds": 60}
    workers = [await worker(gemini_api_key=("key-1", "key-2"), **limits) for _ in range(4)]
    asked = [workers[number % 4].post("/generate", json=PROMPT) for number in range(40)]
    statuses = await statuses_of(asked, made=2 * int(1 / LIMIT), stand_in=stand_in)

    assert set(statuses) == {200, 429}
    assert statuses.count(200) == len(stand_in.calls)
    for key in ("key-1", "key-2"):
        assert sum(call.key == key for call in stand_in.calls) == int(1 / LIMIT)


async def test_a_key_has_room_again_when_its_calls_cost_less(worker: Worker, stand_in: StandIn) -> None:
    """What was only reserved is not held for ten minutes; a call that failed leaves nothing."""
    client = await worker(key_spend_per_10_minutes="0.35", retries=0)
    stand_in.plan.extend(["500", "400", "503"])
    statuses = [(await client.post("/generate", json=PROMPT)).status_code for _ in range(6)]

    assert statuses == [502, 422, 503, 200, 200, 429]


@pytest.mark.parametrize(
    "usage", [None, {}, [], "x", {"candidatesTokenCount": -5}, {"totalTokenCount": 1e300}, {"promptTokenCount": True}]
)
async def test_an_odd_count_of_tokens_is_charged_as_reserved(worker: Worker, stand_in: StandIn, usage: Any) -> None:
    """The picture comes; nobody gets it for nothing."""
    picture = {"inlineData": {"mimeType": "image/png", "data": encoded(png())}}
    document = {"candidates": [{"content": {"parts": [picture]}, "finishReason": "STOP"}]}
    stand_in.plan.extend([faults.says(document if usage is None else document | {"usageMetadata": usage})] * 5)
    client = await worker(budgets="*=5/day")
    responses = [await client.post(path, json=body) for path, body in ROUTES]

    assert [response.status_code for response in responses] == [200] * 5
    assert ["x-cost-usd" in response.headers for response in responses] == [False] * 5
    await until_spent(5 * LIMIT + 17 * 2e-6)  # Google's body has names of fields as well


@pytest.mark.parametrize(
    "query", ["fields=candidates", "$fields=candidates", "FIELDS=candidates", "callback=f&alt=json"]
)
async def test_a_caller_does_not_choose_what_is_counted(worker: Worker, stand_in: StandIn, query: str) -> None:
    """Google would leave its count of tokens out, or a part of it."""
    client = await worker(budgets="*=1/day")
    paths: list[str] = []

    async def path_of(request: Request, picture: str) -> Response:
        paths.append(request.url.query)
        return faults.answered(answer("m", picture))

    stand_in.plan.append(path_of)
    response = await client.post(f"{GOOGLE}?{query}", json=CONTENTS)

    assert response.headers["x-cost-usd"] == f"{COST:.6f}"
    assert not any(word in paths[0].lower() for word in ("fields", "callback"))


async def test_a_picture_for_the_price_of_its_prompt_is_none(worker: Worker, stand_in: StandIn) -> None:
    """A count of nothing that was made is no count; where nothing was made it is."""
    picture = {"inlineData": {"mimeType": "image/png", "data": encoded(png())}}
    made = {"candidates": [{"content": {"parts": [picture]}}], "usageMetadata": {"promptTokenCount": 8}}
    refused = {"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": {"promptTokenCount": 8}}
    stand_in.plan.extend([faults.says(made), faults.says(refused)])
    client = await worker(budgets="*=1/day")
    first, second = [await client.post("/generate", json=PROMPT) for _ in range(2)]

    assert "x-cost-usd" not in first.headers
    assert second.headers["x-cost-usd"] == "0.000016"
    await until_spent(LIMIT + 0.000016)


async def test_an_absurd_count_is_none(worker: Worker, stand_in: StandIn) -> None:
    """It disturbs nobody's accounts."""
    absurd = {"promptTokenCount": 8, "candidatesTokenCount": (1 << 53) - 1}
    picture = {"inlineData": {"mimeType": "image/png", "data": encoded(png())}}
    stand_in.plan.append(faults.says({"candidates": [{"content": {"parts": [picture]}}], "usageMetadata": absurd}))
    client = await worker(budgets="*=1/day")
    statuses = [(await client.post("/generate", json=PROMPT)).status_code for _ in range(2)]

    assert statuses == [200, 200]
    await until_spent(LIMIT + COST)


async def test_a_stranger_learns_nothing_of_budgets(worker: Worker) -> None:
    """Without a token, no header."""
    client = await worker(budgets="*=1/day", access_tokens="ann:a")

    assert "x-budget-remaining-usd" not in (await client.post("/generate", json=PROMPT)).headers


async def test_a_task_cancelled_again_and_again_ends(worker: Worker, stand_in: StandIn) -> None:
    """Its cost is counted once, and its worker can stop."""
    client = await worker(budgets="*=1/day")
    stand_in.plan.append("hang")
    before = (await client.get("/metrics")).text
    task = (await client.post("/v1/images/generations/async", json=PROMPT)).json()
    while not stand_in.calls:
        await asyncio.sleep(0.01)
    place = f"/v1/images/tasks/{task['id']}"
    await asyncio.gather(*(client.delete(place) for _ in range(4)))
    await until_spent(LIMIT)
    await logged(lambda line: line["event"] == "carried_out")

    assert counted(before, (await client.get("/metrics")).text, "banana_cost_usd_total") == LIMIT
