"""What Google charges and answers, through the whole service: tiers, searches, signatures, quotas, retired models, free answers."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

import config
from banana.app import create_app
from standin import faults
from standin.server import STAND_IN_SIGNATURE, StandIn
from tests.conftest import client_of, error_of, settings_for
from tests.patience import eventually, logged

pytestmark = pytest.mark.anyio
MODEL = "gemini-3-pro-image"
NATIVE = f"/v1beta/models/{MODEL}:generateContent"
TURNS = {"contents": [{"parts": [{"text": "a banana"}]}]}
MESSAGES = [{"role": "user", "content": "a banana"}]
# Of one 1K image of gemini-3-pro-image at the stand-in: input, thinking and image.
COST = Decimal("0.137116")
# Each API format's way to ask for an image.
FORMATS: dict[str, dict[str, Any]] = {
    "/generate": {"prompt": "a banana"},
    "/v1/images/generations": {"prompt": "a banana"},
    "/v1/images": {"prompt": "a banana"},
    "/v1/chat/completions": {"messages": MESSAGES, "modalities": ["image"]},
    "/v1/responses": {"input": "a banana", "tools": [{"type": "image_generation"}]},
}


@asynccontextmanager
async def service(stand_in: StandIn, **values: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(settings_for(stand_in, rate_limit_per_minute=10_000, **values))) as client:
        yield client


@pytest.mark.parametrize("path", FORMATS)
@pytest.mark.parametrize(("tier", "times"), [("flex", "0.5"), ("priority", "1.8"), ("default", "1"), (None, "1")])
async def test_a_tier_is_sent_and_charged(
    client: httpx.AsyncClient, stand_in: StandIn, path: str, tier: str | None, times: str
) -> None:
    """In every format that writes its own request."""
    response = await client.post(path, json=FORMATS[path] | {"service_tier": tier})

    assert response.status_code == 200, response.text[:300]
    assert stand_in.calls[0].body.get("serviceTier") == (tier if tier in ("flex", "priority") else None)
    assert response.headers["X-Cost-USD"] == f"{COST * Decimal(times):.6f}"


async def test_the_tier_that_was_served_is_charged(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Also where Google serves another one than was asked for, and in Google's own format."""
    document = faults.says(
        {
            "candidates": [{"content": {"parts": [faults.text("")]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 1000, "totalTokenCount": 1000, "trafficType": "ON_DEMAND_FLEX"},
        }
    )
    stand_in.plan.append(document)
    served = await client.post(NATIVE, json=TURNS | {"serviceTier": "priority"})
    asked = await client.post(NATIVE, json=TURNS | {"serviceTier": "flex"})

    assert served.headers["X-Cost-USD"] == "0.001000"
    assert asked.headers["X-Cost-USD"] == f"{COST / 2:.6f}"


async def test_searches_are_charged(client: httpx.AsyncClient) -> None:
    """0.014 USD each, whatever the tier."""
    response = await client.post(NATIVE, json=TURNS | {"tools": [{"googleSearch": {}}], "serviceTier": "priority"})

    assert response.headers["X-Cost-USD"] == f"{COST * Decimal('1.8') + Decimal('0.014'):.6f}"


async def test_the_model_that_answered_is_charged_and_named(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Google may route a model to another one in silence."""
    stand_in.answers_as[MODEL] = "gemini-nano-banana-2.1"
    cheap = Decimal("8") * Decimal("1.5") + Decimal("225") * Decimal("7.5") + Decimal("1120") * 30
    for path, body in (*FORMATS.items(), (NATIVE, TURNS)):
        response = await client.post(path, json=body)
        assert response.headers["X-Model"] == "gemini-nano-banana-2.1"
        assert response.headers["X-Cost-USD"] == f"{cheap / 1_000_000:.6f}"


async def test_googles_404_decides_which_model_is_retired(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """The successor is asked once, and at once for an hour; with the size that it has; its cost is charged."""
    stand_in.retired |= {"gemini-3.1-flash-image", "gemini-unknown-image"}
    body = {"prompt": "a banana", "model": "gemini-3.1-flash-image", "image_size": "512"}
    responses = [await client.post("/generate", json=body) for _ in range(2)]
    native = await client.post("/v1beta/models/gemini-3.1-flash-image:generateContent", json=TURNS)
    unknown = await client.post("/generate", json={"prompt": "a banana", "model": "gemini-unknown-image"})

    assert [response.status_code for response in responses] == [200, 200]
    assert {response.headers["X-Model"] for response in (*responses, native)} == {"gemini-nano-banana-2.1"}
    successor = "gemini-nano-banana-2.1"
    assert [call.model for call in stand_in.calls[:4]] == ["gemini-3.1-flash-image", successor, successor, successor]
    assert (unknown.status_code, error_of(unknown)["code"], len(stand_in.calls)) == (404, "model_not_found", 5)


@pytest.mark.parametrize(
    "message", ["Corrupted thought signature.", "Image part is missing a thought_signature in content position 2."]
)
async def test_a_refused_signature_is_replaced_once(client: httpx.AsyncClient, stand_in: StandIn, message: str) -> None:
    """By the value that Google documents, on every part of the model's; without a retry being left."""
    messages = [*MESSAGES, {"role": "assistant", "content": "Here it is."}, {"role": "user", "content": "at night"}]
    stand_in.plan.append(faults.fails(400, "INVALID_ARGUMENT", message))
    mended = await client.post("/v1/chat/completions", json={"messages": messages})
    stand_in.plan.extend([faults.fails(400, "INVALID_ARGUMENT", message)] * 9)
    refused = await client.post("/v1/chat/completions", json={"messages": messages})

    assert (mended.status_code, refused.status_code, len(stand_in.calls)) == (200, 400, 4)
    (part,) = stand_in.calls[1].body["contents"][1]["parts"]
    assert part["thoughtSignature"] == STAND_IN_SIGNATURE


@pytest.mark.parametrize("kept", [86_400, 0])
async def test_the_second_turn_of_a_picture_chat_is_signed(stand_in: StandIn, kept: int) -> None:
    """With results stored or not, re-encoded or not; the stand-in refuses what is unsigned, as Google does."""
    async with service(stand_in, keep_results_seconds=kept) as client:
        first = (await client.post("/v1/chat/completions", json={"messages": MESSAGES})).json()["choices"][0]["message"]
        messages = [*MESSAGES, first, {"role": "user", "content": "at night"}]
        chat = await client.post("/v1/chat/completions", json={"messages": messages})
        tool = {"type": "image_generation", "output_format": "webp"}
        made = (await client.post("/v1/responses", json={"input": "a banana", "tools": [tool]})).json()["output"]
        turn = [{"role": "user", "content": "a banana"}, *made, {"role": "user", "content": "at night"}]
        responses = await client.post("/v1/responses", json={"input": turn, "tools": [tool]})

    assert (chat.status_code, responses.status_code) == (200, 200), chat.text[:300] + responses.text[:300]


async def test_a_spent_window_rests_its_key_for_every_model(stand_in: StandIn) -> None:
    """One call, 429 with the time; the next request, of another model, is not sent."""
    stand_in.troubles["test-key-1"] = "429-spend"
    async with service(stand_in) as client:
        first = await client.post("/generate", json={"prompt": "a banana"})
        second = await client.post("/generate", json={"prompt": "a banana", "model": "gemini-nano-banana-2.1"})

    assert [response.status_code for response in (first, second)] == [429, 429]
    assert 50 <= int(first.headers["Retry-After"]) <= 61
    assert "Nothing was sent" in error_of(second)["message"]
    assert len(stand_in.calls) == 1


@pytest.mark.parametrize("fault", ["429-cap", "429-prepaid"])
async def test_a_key_without_money_is_set_aside_and_said(stand_in: StandIn, fault: str) -> None:
    """Asked once, whatever the model; the others serve; metric, /ready and one log line with Google's address tell."""
    stand_in.troubles["poor"] = fault
    async with service(stand_in, gemini_api_key=("poor", "rich")) as client:
        for model in (MODEL, "gemini-nano-banana-2.1") * 3:
            response = await client.post("/generate", json={"prompt": "a banana", "model": model})
            assert response.status_code == 200
        ready = (await client.get("/ready")).json()
        seen = (await client.get("/metrics")).text
        (line,) = await logged(lambda line: line["event"] == "key_out_of_money")

    assert [call.key for call in stand_in.calls].count("poor") == 1
    assert (ready["status"], ready["degraded"]) == ("ready", ["keys_out_of_money"])
    assert "banana_keys_out_of_money 1.0" in seen
    assert "https://ai.studio/" in line["message"]
    assert "poor" not in json.dumps(line)


async def test_a_service_without_money_says_so(stand_in: StandIn) -> None:
    """Google's words with 429, nothing sent any more, not ready."""
    stand_in.troubles["test-key-1"] = "429-cap"
    async with service(stand_in) as client:
        responses = [await client.post("/generate", json={"prompt": "a banana"}) for _ in range(3)]
        ready = await client.get("/ready")

    assert [response.status_code for response in responses] == [429] * 3
    assert all("monthly spending cap" in error_of(response)["message"] for response in responses)
    assert (ready.status_code, ready.json()["reasons"]) == (503, ["no API key has money left"])
    assert len(stand_in.calls) == 1


@pytest.mark.parametrize("fault", ["429-contention", "429-contention-vertex"])
async def test_contention_is_retried(client: httpx.AsyncClient, stand_in: StandIn, fault: str) -> None:
    """With the same key, which is not set aside."""
    stand_in.plan.extend([fault, fault])
    response = await client.post("/generate", json={"prompt": "a banana"})
    stand_in.plan.extend([fault] * 9)
    refused = await client.post("/generate", json={"prompt": "a banana"})

    assert (response.status_code, refused.status_code, len(stand_in.calls)) == (200, 429, 6)


@pytest.mark.parametrize("fault", ["unbilled", "unbilled-words"])
async def test_an_answer_that_is_free_is_asked_for_once_more(stand_in: StandIn, fault: str) -> None:
    """With another key; twice free is an error that was not billed, and frees the Idempotency-Key."""
    stand_in.plan.append(fault)
    async with service(stand_in, gemini_api_key=("a", "b")) as client:
        response = await client.post("/generate", json={"prompt": "a banana"})
        keys = [call.key for call in stand_in.calls]
        stand_in.plan.extend([fault] * 2)
        headers = {"Idempotency-Key": "k"}
        failed = await client.post("/generate", json={"prompt": "a banana"}, headers=headers)
        openai = len(stand_in.calls)
        again = await client.post("/generate", json={"prompt": "a banana"}, headers=headers)

    assert (response.status_code, sorted(keys)) == (200, ["a", "b"])
    assert (failed.status_code, error_of(failed)["code"], error_of(failed)["may_be_billed"]) == (502, "no_image", False)
    assert (again.status_code, openai) == (200, 4)


@pytest.mark.parametrize("fault", ["model-armor", "escalation", "language"])
async def test_newer_reasons_of_policy_are_blocks(client: httpx.AsyncClient, stand_in: StandIn, fault: str) -> None:
    """Once, with the reason."""
    stand_in.plan.append(fault)
    response = await client.post("/generate", json={"prompt": "a banana"})

    assert (response.status_code, error_of(response)["code"]) == (422, "blocked")
    assert error_of(response)["reason"] == fault.replace("-", "_").upper()
    assert len(stand_in.calls) == 1


@pytest.mark.parametrize("path", FORMATS)
@pytest.mark.parametrize(
    ("fault", "code", "may_be_billed"),
    [("empty-parts", "no_image", True), ("html", "upstream_invalid", True), ("reset", "upstream_error", True),
     ("truncated", "upstream_invalid", True), ("500", "upstream_error", False), ("503", "overloaded", False)],
)  # fmt: skip
async def test_what_may_have_been_billed_is_said(
    client: httpx.AsyncClient, stand_in: StandIn, path: str, fault: str, code: str, may_be_billed: bool
) -> None:
    """424 where programs repeat every 5xx; elsewhere in the body; also as events, which begin with an outcome."""
    stand_in.plan.extend([fault] * 9)
    is_ours = path == "/generate"
    for events in (False, True):
        stand_in.plan.extend([fault] * 9)
        headers = {"Accept": "text/event-stream"} if is_ours and events else {}
        body = FORMATS[path] | ({"stream": True} if events and path != "/generate" and path != "/v1/images" else {})
        response = await client.post(path, json=body, headers=headers)
        error = response.json()["error"]
        assert error["code"] == code
        assert (response.status_code == 424) == (may_be_billed and not is_ours)
        if is_ours:
            assert error["may_be_billed"] is may_be_billed


@pytest.mark.parametrize("path", FORMATS)
async def test_a_used_up_budget_is_402_as_events_too(stand_in: StandIn, path: str) -> None:
    """Before the stream begins."""
    async with service(stand_in, budgets="*=0.01/day") as client:
        headers = {"Accept": "text/event-stream"} if path == "/generate" else {}
        body = FORMATS[path] | ({"stream": True} if path not in ("/generate", "/v1/images") else {})
        response = await client.post(path, json=body, headers=headers)

    assert response.status_code == 402
    assert not stand_in.calls


async def test_nothing_of_the_demo_is_seen_with_a_real_key(stand_in: StandIn) -> None:
    """No result, no key, no cent: it has a folder of its own."""
    headers = {"Idempotency-Key": "order-1"}
    demo = config.read(demo=True, gemini_base_url=stand_in.base_url, gemini_api_key=("demo",), workers=1)
    async with client_of(create_app(demo)) as client:
        await client.post("/generate", json={"prompt": "a banana"}, headers=headers)
    assert list(Path(".state/demo/results").glob("*.jpg"))
    async with service(stand_in) as client:
        spent = (await client.get("/v1/key")).json()["data"]["usage"]
        real = await client.post("/generate", json={"prompt": "a banana"}, headers=headers)
        tasks = (await client.get("/v1/images/tasks")).json()["data"]
        await eventually(lambda: len(stand_in.calls) == 2)

    assert (spent, tasks, "Idempotent-Replayed" in real.headers) == (0, [], False)
