"""OpenAI's responses; what its SDK makes of them: test_sdks."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from banana.app import create_app
from banana.ledger.ledger import LedgerError
from banana.ledger.sqlite import SQLiteLedger
from banana.results.folder import FolderFiles
from banana.routes.openai_responses import is_chat_model
from standin import faults
from standin.server import StandIn, signature
from tests.conftest import client_of, served, settings_for
from tests.pictures import encoded, opened, png, signed

pytestmark = pytest.mark.anyio
BLOCKED = "Google blocked the prompt because its content is prohibited. Change the prompt or the input images."
RESPONSES = "/v1/responses"
TOOL: dict[str, Any] = {"type": "image_generation"}
ASKED: dict[str, Any] = {"model": "gpt-5.5", "input": "a banana", "tools": [TOOL]}
KEY = {"Idempotency-Key": "response-1"}
PREVIOUS = "previous_response_id"


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a stream; each is named twice, and they are numbered without gaps."""
    events = []
    for event in text.removesuffix("\n\n").split("\n\n"):
        name, data = [line for line in event.split("\n") if not line.startswith(":")]
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


async def test_a_response_holds_the_picture(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """As the call of a tool, with its true size and format; what was asked is said again."""
    asked = ASKED | {"instructions": "In colour.", "metadata": {"a": "b"}, "temperature": 1, "reasoning": {}}
    made = (await client.post(RESPONSES, json=asked)).json()

    item, message = made["output"]
    assert (message["type"], message["content"][0]["text"]) == ("message", "")
    assert (made["object"], made["status"], made["model"]) == ("response", "completed", "gemini-3-pro-image")
    assert (made["instructions"], made["metadata"], made["store"]) == ("In colour.", {"a": "b"}, True)
    assert (item["type"], item["status"]) == ("image_generation_call", "completed")
    assert (item["output_format"], item["size"], item["quality"]) == ("jpeg", "1024x1024", "medium")
    assert (item["id"][3:], made["id"][:5]) == (made["id"][5:], "resp_")
    assert opened(item["result"]).size == (1024, 1024)
    assert made["usage"] == {
        "input_tokens": 8,
        "input_tokens_details": {"cached_tokens": 0, "image_tokens": 0},
        "output_tokens": 1345,
        "output_tokens_details": {"reasoning_tokens": 225, "image_tokens": 1120},
        "total_tokens": 1353,
        "cost": 0.137116,
    }
    sent = stand_in.calls[0].body
    assert sent["systemInstruction"] == {"parts": [{"text": "In colour."}]}
    assert sent["generationConfig"] == {"responseModalities": ["IMAGE"]}


async def test_the_tool_says_how_the_picture_is_to_be(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Size, format, compression and model; hints are taken."""
    tool = TOOL | {"size": "1536x1024", "output_format": "webp", "output_compression": 60, "model": "dall-e-2"}
    hints = {"quality": "high", "moderation": "low", "partial_images": 2, "input_fidelity": "low", "action": "generate"}
    made = (await client.post(RESPONSES, json=ASKED | {"tools": [tool | hints]})).json()

    picture = opened(made["output"][0]["result"])
    assert (picture.format, made["output"][0]["size"]) == ("WEBP", "1248x832")
    assert stand_in.calls[0].model == "gemini-nano-banana-2.1"
    assert stand_in.calls[0].body["generationConfig"]["imageConfig"] == {"aspectRatio": "3:2", "imageSize": "1K"}


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "image_generation"}])
async def test_a_choice_of_tool_is_said_again(client: httpx.AsyncClient, choice: Any) -> None:
    """There is one tool."""
    assert (await client.post(RESPONSES, json=ASKED | {"tool_choice": choice})).json()["tool_choice"] == choice


async def test_an_input_is_a_conversation(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """An earlier picture that is sent again is the model's part; reasoning says nothing here."""
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "like this"}, shown(png("red"))]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Here."}]},
        {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": encoded(png("blue"))},
        {"type": "message", "role": "user", "content": "make it night"},
    ]
    assert (await client.post(RESPONSES, json=ASKED | {"input": items})).status_code == 200

    inline = [{"inlineData": {"mimeType": "image/png", "data": encoded(png(colour))}} for colour in ("red", "blue")]
    assert stand_in.calls[0].body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert stand_in.calls[0].body["contents"] == [
        {"role": "user", "parts": [{"text": "like this"}, inline[0]]},
        {"role": "model", "parts": [signed({"text": "Here."}), signed(inline[1])]},
        {"role": "user", "parts": [{"text": "make it night"}]},
    ]


async def test_what_came_out_goes_in_again(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """As programs keep a conversation: the output of each response, refusals too, is the next one's input."""
    stand_in.plan.append("blocked")
    conversation: list[Any] = [{"role": "user", "content": "a banana"}]
    for words in ("another", "at night", "in rain"):
        made = (await client.post(RESPONSES, json={"input": conversation})).json()
        conversation += [*made["output"], {"role": "user", "content": words}]
    response = await client.post(RESPONSES, json={"input": conversation})

    assert response.status_code == 200
    turns = stand_in.calls[-1].body["contents"]
    assert [turn["role"] for turn in turns] == ["user", "model"] * 3 + ["user"]
    assert turns[1]["parts"] == [signed({"text": BLOCKED})]


def shown(picture: bytes) -> dict[str, Any]:
    return {"type": "input_image", "image_url": f"data:image/png;base64,{encoded(picture)}", "detail": "auto"}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [TOOL | {"background": "transparent"}]}, "tools.0.background"),
        ({"tools": [TOOL | {"input_image_mask": {"image_url": "x"}}]}, "tools.0.input_image_mask"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"metadata": {"a": "x" * 3000}}, "metadata.a"),
        ({"metadata": {"a": {"b": 1}}}, "metadata.a"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tool_choice": "always"}, "tool_choice"),
        ({"tool_choice": {"type": ["x"]}}, "tool_choice"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [5]}, "input"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input"),
        ({"input": [{"role": "system", "content": [shown(png())]}, {"role": "user", "content": "x"}]}, "input"),
        ({"input": [{"type": "image_generation_call", "result": "!!"}]}, "input"),
        ({"input": [{"type": "image_generation_call", "id": "ig_" + "0" * 32}]}, "input"),
        ({PREVIOUS: "resp_" + "0" * 32}, PREVIOUS),
        ({PREVIOUS: "resp_of_openai"}, PREVIOUS),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    client: httpx.AsyncClient, stand_in: StandIn, more: dict[str, Any], param: str
) -> None:
    """400, the field named, nothing sent."""
    response = await client.post(RESPONSES, json=ASKED | more)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not stand_in.calls


@pytest.mark.parametrize(
    ("name", "talks"),
    [
        *((name, True) for name in ("gpt-5.5", "gpt-4o", "o3", "o4-mini", "chatgpt-4o-latest", "codex-mini-latest")),
        *((name, False) for name in ("gpt-image-2", "chatgpt-image-latest", "gemini-3-pro-image", "dall-e-3", "other")),
    ],
)
def test_a_model_that_talks_has_the_default_one_draw(name: str, talks: bool) -> None:
    """By OpenAI's names."""
    assert is_chat_model(name) is talks


async def test_a_stream_is_typed_events(client: httpx.AsyncClient) -> None:
    """In OpenAI's order; the picture in its item and in the whole response."""
    response = await client.post(RESPONSES, json=ASKED | {"stream": True})
    events = events_of(response.text)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.image_generation_call.in_progress",
        "response.image_generation_call.generating",
        "response.image_generation_call.completed",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    created, completed = events[0]["response"], events[-1]["response"]
    assert (created["status"], created["output"], completed["status"]) == ("in_progress", [], "completed")
    assert (created["id"], created["created_at"]) == (completed["id"], completed["created_at"])
    image = events[6]["item"]
    assert completed["output"] == [image, events[-2]["item"]]
    assert {event["item_id"] for event in events[3:6]} == {image["id"]}
    assert opened(image["result"]).size == (1024, 1024)


async def test_without_the_tool_there_may_be_words(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """With a picture, instead of one, or alone where the tool is not to be used."""
    both = (await client.post(RESPONSES, json={"input": "x"})).json()["output"]
    alone = (await client.post(RESPONSES, json=ASKED | {"tool_choice": "none"})).json()["output"]
    streamed = events_of((await client.post(RESPONSES, json={"input": "x", "stream": True})).text)

    assert [item["type"] for item in both] == ["image_generation_call", "message"]
    assert both[1]["content"] == [{"type": "output_text", "text": "Here it is.", "annotations": [], "logprobs": []}]
    assert [item["type"] for item in alone] == ["message"]
    types = [event["type"] for event in streamed]
    assert types[-7:-1] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert [item["type"] for item in streamed[-1]["response"]["output"]] == ["image_generation_call", "message"]


async def test_a_refusal_is_said_in_each_shape(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """With the tool it is OpenAI's error; without it an incomplete response with the words of the refusal."""
    stand_in.plan.extend(["blocked", "blocked", "blocked"])
    refused = await client.post(RESPONSES, json=ASKED)
    whole = (await client.post(RESPONSES, json={"input": "x"})).json()
    streamed = events_of((await client.post(RESPONSES, json={"input": "x", "stream": True})).text)

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "moderation_blocked")
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert whole["output"][0]["content"] == [{"type": "refusal", "refusal": BLOCKED}]
    assert streamed[-1]["type"] == "response.incomplete"


async def test_an_error_keeps_its_status_until_the_first_byte(impatient: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Behind a silence it is a failed response."""
    stand_in.plan.extend(["400", "400"])
    for stream in (False, True):
        response = await impatient.post(RESPONSES, json=ASKED | {"stream": stream})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")

    async def late(request: Any, picture: str) -> Any:
        await asyncio.sleep(0.3)
        return faults.error(400, "INVALID_ARGUMENT", "No.")

    stand_in.plan.append(late)
    text = (await impatient.post(RESPONSES, json=ASKED | {"stream": True})).text
    end = events_of(text)[-1]

    assert ": keep-alive" in text
    assert (end["type"], end["response"]["status"]) == ("response.failed", "failed")
    assert end["response"]["error"] == {"code": "invalid_request", "message": "No."}


async def test_a_response_in_the_background_is_polled(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Queued at once, the same id all the while, then whole; and gone when it is deleted."""
    begun = (await client.post(RESPONSES, json=ASKED | {"background": True})).json()
    await client.get(f"/v1/images/tasks/{begun['id'][5:]}?wait=20")
    ended = (await client.get(f"{RESPONSES}/{begun['id']}")).json()
    deleted = await client.delete(f"{RESPONSES}/{begun['id']}")
    gone = await client.get(f"{RESPONSES}/{begun['id']}")

    assert (begun["status"], begun["output"], begun["background"]) == ("queued", [], True)
    assert (ended["status"], ended["id"], ended["created_at"]) == ("completed", begun["id"], begun["created_at"])
    assert opened(ended["output"][0]["result"]).size == (1024, 1024)
    assert deleted.json() == {"id": begun["id"], "object": "response", "deleted": True}
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")


async def test_a_response_in_the_background_can_be_cancelled(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Twice is once; its call ends; what has ended stays as it is."""
    ended = (await client.post(RESPONSES, json=ASKED | {"store": True})).json()
    stand_in.latency_seconds = 30
    begun = (await client.post(RESPONSES, json=ASKED | {"background": True})).json()
    async with asyncio.timeout(20):
        while len(stand_in.calls) < 2:
            await asyncio.sleep(0.01)
    statuses = [(await client.post(f"{RESPONSES}/{begun['id']}/cancel")).json()["status"] for _ in range(2)]
    async with asyncio.timeout(20):
        while not stand_in.calls[1].aborted:
            await asyncio.sleep(0.01)

    assert statuses == ["cancelled", "cancelled"]
    assert (await client.get(f"{RESPONSES}/{begun['id']}")).json()["status"] == "cancelled"
    assert (await client.post(f"{RESPONSES}/{ended['id']}/cancel")).json()["status"] == "completed"


async def test_a_key_is_for_what_makes_something(client: httpx.AsyncClient) -> None:
    """To cancel is once anyway: a key is refused by name there, as everywhere where it means nothing."""
    kept = (await client.post(RESPONSES, json=ASKED | {"store": True})).json()["id"]
    response = await client.post(f"{RESPONSES}/{kept}/cancel", headers=KEY)

    assert (response.status_code, response.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_a_failed_response_says_why(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """With its error, as it was."""
    stand_in.plan.append("400")
    begun = (await client.post(RESPONSES, json=ASKED | {"background": True})).json()
    await client.get(f"/v1/images/tasks/{begun['id'][5:]}?wait=20")
    ended = (await client.get(f"{RESPONSES}/{begun['id']}")).json()

    assert (ended["status"], ended["error"]["code"]) == ("failed", "invalid_request")


async def test_a_response_in_the_background_can_be_followed(client: httpx.AsyncClient) -> None:
    """As events, while it is found by its id as well."""
    events = events_of((await client.post(RESPONSES, json=ASKED | {"background": True, "stream": True})).text)
    found = (await client.get(f"{RESPONSES}/{events[0]['response']['id']}")).json()

    assert events[-1]["type"] == "response.completed"
    assert found["output"] == events[-1]["response"]["output"]


async def test_a_conversation_goes_on_from_what_is_kept(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """By the response's id the whole conversation, by its picture's that: the model's part, signed as it was."""
    first = (await client.post(RESPONSES, json=ASKED | {"store": True})).json()
    picture = base64.b64decode(first["output"][0]["result"])
    night = {"role": "user", "content": "make it night"}
    by_response = await client.post(RESPONSES, json=ASKED | {"input": [night], PREVIOUS: first["id"]})
    call = {"type": "image_generation_call", "id": first["output"][0]["id"]}
    by_picture = await client.post(RESPONSES, json=ASKED | {"input": [call, night]})

    assert (by_response.status_code, by_picture.status_code) == (200, 200)
    assert stand_in.calls[1].body["contents"][0] == stand_in.calls[0].body["contents"][0]
    for sent in stand_in.calls[1:]:
        *_, model, user = sent.body["contents"]
        (part,) = model["parts"]
        assert (model["role"], user["parts"]) == ("model", [{"text": "make it night"}])
        assert base64.b64decode(part["inlineData"]["data"]) == picture
        assert part["thoughtSignature"] == signature(picture)


async def test_anothers_response_is_not_there(stand_in: StandIn) -> None:
    """To get, to cancel, to delete, to go on from; nor is a task of another format."""
    tokens = ("anna:anna-token", "bert:bert-token")
    async with client_of(create_app(settings_for(stand_in, access_tokens=tokens))) as client:
        anna, bert = ({"Authorization": f"Bearer {name}-token"} for name in ("anna", "bert"))
        kept = (await client.post(RESPONSES, json=ASKED | {"store": True}, headers=anna)).json()["id"]
        task = (await client.post("/v1/images/generations/async", json={"prompt": "x"}, headers=anna)).json()["id"]
        paths = [
            ("GET", f"/{kept}"),
            ("POST", f"/{kept}/cancel"),
            ("DELETE", f"/{kept}"),
            ("GET", "/resp_x"),
            ("GET", "/x"),
        ]
        statuses = [(await client.request(m, RESPONSES + path, headers=bert)).status_code for m, path in paths]
        stolen = await client.post(RESPONSES, json=ASKED | {PREVIOUS: kept}, headers=bert)
        other = await client.get(f"{RESPONSES}/resp_{task}", headers=anna)
        own = await client.get(f"{RESPONSES}/{kept}", headers=anna)

    assert (statuses, stolen.status_code) == ([404] * 5, 400)
    assert (other.status_code, own.status_code) == (404, 200)


@pytest.mark.parametrize("more", [{"store": True}, {"background": True}, {PREVIOUS: "resp_" + "0" * 32}])
async def test_where_nothing_is_kept_it_is_refused_by_name(stand_in: StandIn, more: dict[str, Any]) -> None:
    """KEEP_RESULTS_SECONDS=0; what needs nothing to be kept goes on."""
    async with client_of(create_app(settings_for(stand_in, keep_results_seconds=0))) as client:
        response = await client.post(RESPONSES, json=ASKED | more)
        plain = await client.post(RESPONSES, json=ASKED)

    assert (response.status_code, response.json()["error"]["param"]) == (400, next(iter(more)))
    assert plain.status_code == 200


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"store": True}, {"background": True}])
async def test_a_repeat_of_a_key_is_the_same_to_the_byte(
    client: httpx.AsyncClient, stand_in: StandIn, more: dict[str, Any]
) -> None:
    """One call, one id, one response."""
    bodies = [(await client.post(RESPONSES, json=ASKED | more, headers=KEY)).content for _ in range(2)]

    for task in (await client.get("/v1/images/tasks")).json()["data"]:
        await client.get(f"/v1/images/tasks/{task['id']}?wait=20")

    assert bodies[0] == bodies[1]
    assert len(stand_in.calls) == 1


async def test_what_is_stored_does_not_wait_longer_than_its_request(stand_in: StandIn) -> None:
    """Its deadline is the request's, although it is found again by its id."""
    stand_in.latency_seconds = 30
    async with client_of(create_app(settings_for(stand_in, request_timeout_seconds=2))) as client:
        response = await client.post(RESPONSES, json=ASKED | {"store": True})
        tasks = (await client.get("/v1/images/tasks")).json()["data"]

    assert (response.status_code, response.json()["error"]["code"]) == (424, "outcome_unknown")
    assert [task["status"] for task in tasks] == ["failed"]


async def test_a_stream_of_a_response_cannot_be_joined_later(client: httpx.AsyncClient) -> None:
    """It is polled; the error says so."""
    kept = (await client.post(RESPONSES, json=ASKED | {"store": True})).json()["id"]
    response = await client.get(f"{RESPONSES}/{kept}?stream=true")

    assert (response.status_code, response.json()["error"]["param"]) == (400, "stream")


async def test_a_task_of_another_format_is_none_of_its(client: httpx.AsyncClient) -> None:
    """It is neither shown, nor cancelled, nor deleted here."""
    task = (await client.post("/v1/images/generations/async", json={"prompt": "x"})).json()["id"]
    await client.get(f"/v1/images/tasks/{task}?wait=20")
    paths = [("GET", ""), ("POST", "/cancel"), ("DELETE", "")]
    statuses = [(await client.request(m, f"{RESPONSES}/resp_{task}{path}")).status_code for m, path in paths]
    polled = await client.get(f"/v1/images/tasks/{task}")

    assert (statuses, polled.json()["status"]) == ([404] * 3, "completed")


async def test_a_repeat_after_deletion_is_gone(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """410: nobody waits for what does not exist, and nothing is paid again."""
    asked = ASKED | {"background": True}
    begun = (await client.post(RESPONSES, json=asked, headers=KEY)).json()["id"]
    await client.get(f"/v1/images/tasks/{begun[5:]}?wait=20")
    await client.delete(f"{RESPONSES}/{begun}")
    again = await client.post(RESPONSES, json=asked, headers=KEY)

    assert (again.status_code, len(stand_in.calls)) == (410, 1)


async def test_what_is_kept_says_its_id_at_once(stand_in: StandIn) -> None:
    """Whoever loses the connection can come back for it."""
    stand_in.latency_seconds = 30
    async with (
        served(create_app(settings_for(stand_in))) as address,
        httpx.AsyncClient(base_url=address) as client,
        client.stream("POST", RESPONSES, json=ASKED | {"background": True, "stream": True}) as response,
    ):
        async with asyncio.timeout(20):
            line = await anext(aiter(response.aiter_lines()))
        tasks = (await client.get("/v1/images/tasks")).json()["data"]
        await client.post(f"{RESPONSES}/resp_{tasks[0]['id']}/cancel")

    assert line == "event: response.created"


async def test_a_words_id_is_its_words(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """As clients refer to what they believe to be kept."""
    kept = (await client.post(RESPONSES, json={"input": "x", "store": True})).json()["output"]
    references = [{"type": "item_reference", "id": item["id"]} for item in kept]
    response = await client.post(RESPONSES, json=ASKED | {"input": [*references, {"role": "user", "content": "x"}]})
    unknown = {"input": [{"type": "item_reference", "id": "rs_1"}, {"role": "user", "content": "x"}]}
    refused = (await client.post(RESPONSES, json=ASKED | unknown)).json()["error"]

    model = stand_in.calls[1].body["contents"][0]
    assert response.status_code == 200
    assert (model["role"], len(model["parts"]), model["parts"][1]) == ("model", 2, signed({"text": "Here it is."}))
    assert (refused["param"], "store: true" in refused["message"]) == ("input", False)


async def test_words_in_json_are_refused_by_name(client: httpx.AsyncClient) -> None:
    """As in a chat."""
    text = {"format": {"type": "json_schema", "name": "x", "schema": {}}}
    response = await client.post(RESPONSES, json=ASKED | {"text": text})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "text.format.type")


async def test_a_response_is_stored_unless_it_says_not_to(client: httpx.AsyncClient) -> None:
    """As OpenAI's own: read by its id, streamed or not; with `store: false` there is nothing to read."""
    whole = (await client.post(RESPONSES, json=ASKED)).json()
    streamed = events_of((await client.post(RESPONSES, json=ASKED | {"stream": True})).text)[-1]["response"]
    left_out = (await client.post(RESPONSES, json=ASKED | {"store": False})).json()
    read = [await client.get(f"{RESPONSES}/{made['id']}") for made in (whole, streamed, left_out)]
    deleted = await client.delete(f"{RESPONSES}/{whole['id']}")

    assert [response.status_code for response in read] == [200, 200, 404]
    assert read[0].json()["output"] == whole["output"]
    assert (whole["store"], streamed["store"], left_out["store"]) == (True, True, False)
    assert (deleted.status_code, (await client.get(f"{RESPONSES}/{whole['id']}")).status_code) == (200, 404)


async def test_a_service_that_stores_nothing_answers_all_the_same(stand_in: StandIn) -> None:
    """KEEP_RESULTS_SECONDS=0; only who insists is refused, by name."""
    async with client_of(create_app(settings_for(stand_in, keep_results_seconds=0))) as client:
        made = await client.post(RESPONSES, json=ASKED)
        insists = await client.post(RESPONSES, json=ASKED | {"store": True})
        goes_on = await client.post(RESPONSES, json=ASKED | {PREVIOUS: made.json()["id"]})

    assert (made.status_code, made.json()["store"]) == (200, False)
    assert (insists.status_code, insists.json()["error"]["param"]) == (400, "store")
    assert (goes_on.status_code, goes_on.json()["error"]["param"]) == (400, PREVIOUS)


async def test_a_conversation_is_continued_whole(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Over three turns: every prompt, every image that came with one, and what the model made, in their order."""
    shown = {"type": "input_image", "image_url": f"data:image/png;base64,{encoded(png('blue'))}"}
    begins = {"role": "user", "content": [{"type": "input_text", "text": "this at sea"}, shown]}
    first = (await client.post(RESPONSES, json=ASKED | {"input": [begins]})).json()
    second = (await client.post(RESPONSES, json=ASKED | {"input": "at night", PREVIOUS: first["id"]})).json()
    third = (await client.post(RESPONSES, json=ASKED | {"input": "wider", PREVIOUS: second["id"]})).json()

    sent = stand_in.calls[2].body["contents"]
    assert third["status"] == "completed"
    assert [turn["role"] for turn in sent] == ["user", "model", "user", "model", "user"]
    assert [turn["parts"][0].get("text") for turn in sent] == ["this at sea", None, "at night", None, "wider"]
    assert base64.b64decode(sent[0]["parts"][1]["inlineData"]["data"]) == png("blue")
    for turn, made in ((sent[1], first), (sent[3], second)):
        picture = base64.b64decode(made["output"][0]["result"])
        assert base64.b64decode(turn["parts"][0]["inlineData"]["data"]) == picture
        assert turn["parts"][0]["thoughtSignature"] == signature(picture)


async def test_a_conversation_whose_beginning_is_gone_is_refused(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """By the name of what is gone: without it, another image would be paid for."""
    first = (await client.post(RESPONSES, json=ASKED)).json()
    second = (await client.post(RESPONSES, json=ASKED | {"input": "at night", PREVIOUS: first["id"]})).json()
    await client.delete(f"{RESPONSES}/{first['id']}")
    third = await client.post(RESPONSES, json=ASKED | {"input": "wider", PREVIOUS: second["id"]})

    error = third.json()["error"]
    assert (third.status_code, error["param"], first["id"] in error["message"]) == (400, PREVIOUS, True)
    assert len(stand_in.calls) == 2


async def test_a_keyed_response_is_found_by_its_id(client: httpx.AsyncClient) -> None:
    """Read, continued and deleted, as one without a key; its key replays it until then."""
    first = (await client.post(RESPONSES, json=ASKED, headers=KEY)).json()
    again = (await client.post(RESPONSES, json=ASKED, headers=KEY)).json()
    read = await client.get(f"{RESPONSES}/{first['id']}")
    second = await client.post(RESPONSES, json=ASKED | {"input": "at night", PREVIOUS: first["id"]})
    deleted = await client.delete(f"{RESPONSES}/{first['id']}")

    assert (again["id"], read.json()["output"], second.status_code) == (first["id"], first["output"], 200)
    assert (deleted.status_code, (await client.get(f"{RESPONSES}/{first['id']}")).status_code) == (200, 404)


async def test_a_disk_that_fails_costs_no_response(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key or without; and the worker ends."""

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FolderFiles, "_write", fails)
    app = create_app(settings_for(stand_in))
    async with client_of(app) as client:
        made = [await client.post(RESPONSES, json=ASKED, headers=headers) for headers in ({}, KEY)]

    assert [response.status_code for response in made] == [200, 200]
    assert len(stand_in.calls) == 2


async def test_what_failed_leaves_no_input_behind(stand_in: StandIn) -> None:
    """There is no id by which it could be deleted; what succeeded leaves its own."""
    async with client_of(create_app(settings_for(stand_in))) as client:
        stand_in.plan.append("400")
        statuses = [(await client.post(RESPONSES, json=ASKED)).status_code for _ in range(2)]

    # When the worker has ended, nothing is written any more.
    assert statuses == [400, 200]
    assert len(list(Path(".state/results").glob("*-input.json"))) == 1


async def test_an_image_that_is_sent_again_is_stored_once(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """By its digest, as clients send the whole conversation with every turn."""
    shown = {"type": "input_image", "image_url": f"data:image/png;base64,{encoded(png('green'))}"}
    body = ASKED | {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}, shown]}]}
    for _ in range(3):
        assert (await client.post(RESPONSES, json=body)).status_code == 200

    assert len(list(Path(".state/results").glob("*.input"))) == 1
    assert len(list(Path(".state/results").glob("*-input.json"))) == 3


@pytest.mark.parametrize("choice", [None, "auto", "none"])
async def test_functions_are_taken_and_never_called(
    client: httpx.AsyncClient, stand_in: StandIn, choice: str | None
) -> None:
    """A model may always choose so; what stands of them in a conversation is words."""
    function = {"type": "function", "name": "search", "parameters": {"description": "x" * 24_000}}
    calls = [
        {"type": "function_call", "call_id": "1", "name": "search", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "found"},
    ]
    body = {"input": [{"role": "user", "content": "x"}, *calls], "tools": [function], "tool_choice": choice}
    response = await client.post(RESPONSES, json=body)

    assert response.status_code == 200, response.text
    assert stand_in.calls[0].body["contents"][0]["parts"] == [{"text": "x"}, {"text": "found"}]
    assert "search" not in json.dumps(stand_in.calls[0].body)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "search"}])
async def test_a_function_that_must_be_called_is_refused_by_name(client: httpx.AsyncClient, choice: Any) -> None:
    """Before anything is sent."""
    body = {"input": "x", "tools": [{"type": "function", "name": "search"}], "tool_choice": choice}
    error = (await client.post(RESPONSES, json=body)).json()["error"]

    assert error["param"] == "tool_choice"


async def test_a_ledger_that_fails_costs_no_response(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not insist on storing gets the image all the same."""

    def fails(*_: object) -> None:
        raise LedgerError("no ledger")

    async with client_of(create_app(settings_for(stand_in))) as client:
        monkeypatch.setattr(SQLiteLedger, "begin", fails)
        made = await client.post(RESPONSES, json=ASKED)
        insists = await client.post(RESPONSES, json=ASKED | {"store": True})

    assert (made.status_code, insists.status_code) == (200, 503)
    assert len(stand_in.calls) == 1
