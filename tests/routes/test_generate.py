"""`POST /generate` in front of the stand-in: the README's contract, and the table of errors."""

import asyncio
import base64
import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image

from banana.app import create_app
from standin import faults
from standin.server import StandIn, answer
from tests.conftest import KEY, client_of, error_of, settings_for
from tests.gemini import Gemini
from tests.pictures import encoded, opened, png

pytestmark = pytest.mark.anyio
BLOCKED = "Google blocked the prompt because its content is prohibited. Change the prompt or the input images."


async def test_a_prompt_alone_gives_one_picture(client: httpx.AsyncClient) -> None:
    """The answer is exactly that of the README, its keys in that order, and the picture opens."""
    response = await client.post("/generate", json={"prompt": "a banana"})

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.content))
    assert list(response.json()) == ["images", "metadata"]
    assert response.json()["metadata"] is None
    assert response.text.startswith('{"images":["/9j/')
    assert response.text.endswith('"],"metadata":null}')
    assert opened(response.json()["images"][0]).size == (1024, 1024)


async def test_the_call_is_googles(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Key in the header, images only, the retired default sent as its successor, the deadline told."""
    await client.post("/generate", json={"prompt": 'quotes " and 香蕉', "aspect_ratio": "16:9", "image_size": "2K"})

    (call,) = stand_in.calls
    assert call.key == KEY
    assert call.model == "gemini-3-pro-image"
    assert call.body == {
        "contents": [{"role": "user", "parts": [{"text": 'quotes " and 香蕉'}]}],
        "generationConfig": {
            "responseModalities": ["IMAGE"],
            "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"},
        },
    }
    assert call.headers["x-server-timeout"] == "20"
    assert call.headers["accept-encoding"] == "identity"
    assert "transfer-encoding" not in call.headers


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,"])
@pytest.mark.parametrize("bulk", [0, 300_000])
async def test_a_picture_goes_with_the_words(
    client: httpx.AsyncClient, stand_in: StandIn, prefix: str, bulk: int
) -> None:
    """Bare base64 and a data URI arrive at Google as the same bytes under their true type; small and large."""
    picture = encoded(png() + bytes(bulk))

    response = await client.post("/generate", json={"prompt": "like this", "image_base64": prefix + picture})

    assert response.status_code == 200
    part = stand_in.calls[0].body["contents"][0]["parts"][1]
    assert part == {"inlineData": {"mimeType": "image/png", "data": picture}}


async def test_fourteen_pictures_keep_their_order(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """A list of pictures goes as that list."""
    pictures = [encoded(png(f"hsl({n * 20}, 50%, 50%)")) for n in range(14)]

    await client.post("/generate", json={"prompt": "all of these", "image_base64": pictures})

    parts = stand_in.calls[0].body["contents"][0]["parts"]
    assert [part["inlineData"]["data"] for part in parts[1:]] == pictures


async def test_slashes_may_be_escaped(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    r"""PHP writes `\/` in JSON; the picture is the same."""
    picture = encoded(png() + b"\xff" * 3000)
    body = json.dumps({"prompt": "x", "image_base64": picture}).replace("/", "\\/")

    response = await client.post("/generate", content=body)

    assert response.status_code == 200
    assert stand_in.calls[0].body["contents"][0]["parts"][1]["inlineData"]["data"] == picture


async def test_n_images_are_n_calls_and_keep_their_order(stand_in: StandIn) -> None:
    """Four images are four calls; what failed among them is told, and the rest is given in the order of the calls."""
    waits = [0.1, 0.05, 0.0, 0.0]  # the first ends last
    calls = 0

    async def answered(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        index = calls - 1
        await asyncio.sleep(waits[index])
        if index == 1:
            return httpx.Response(200, json={"promptFeedback": {"blockReason": "OTHER"}})
        if index == 3:
            return httpx.Response(400, json={"error": {"message": "Request contains an invalid argument."}})
        return httpx.Response(200, json=answer("m", base64.b64encode(b"picture %d" % index).decode()))

    app = create_app(settings_for(stand_in), Gemini(side_effect=answered).transport)
    async with client_of(app) as client:
        response = await client.post("/generate", json={"prompt": "four", "number_of_images": 4})

    assert response.status_code == 200
    assert calls == 4
    assert [base64.b64decode(image) for image in response.json()["images"]] == [b"picture 0", b"picture 2"]
    assert response.json()["metadata"] == {
        "requested": 4,
        "returned": 2,
        "failed": [
            {
                "index": 1,
                "code": "blocked",
                "message": BLOCKED.replace("because its content is prohibited", "without saying why"),
            },
            {"index": 3, "code": "invalid_request", "message": "Request contains an invalid argument."},
        ],
    }


async def test_when_all_fail_the_answer_is_the_first_error(stand_in: StandIn) -> None:
    """Of several failures the first is told."""
    stand_in.plan.extend(["image-safety", "404"])

    async with client_of(create_app(settings_for(stand_in, max_connections=1))) as client:  # one after the other
        response = await client.post("/generate", json={"prompt": "two", "number_of_images": 2})

    assert response.status_code == 422
    assert error_of(response)["reason"] == "IMAGE_SAFETY"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("image/*", "image/jpeg"),
        ("image/png", "image/jpeg"),
        ("image/webp, application/json;q=0.5", "image/jpeg"),
        ("*/*", "application/json"),
        ("application/json, image/*", "application/json"),
        ("image/*;q=0", "application/json"),
        ("image/*;q=x", "application/json"),
    ],
)
async def test_accept_image_gives_the_picture_itself(client: httpx.AsyncClient, accept: str, content_type: str) -> None:
    """Who likes a picture best gets it, with its true type; everyone else gets JSON."""
    response = await client.post("/generate", json={"prompt": "a banana"}, headers={"Accept": accept})

    assert response.headers["content-type"] == content_type
    assert response.headers["content-length"] == str(len(response.content))
    if content_type == "image/jpeg":
        assert Image.open(io.BytesIO(response.content)).size == (1024, 1024)


GOOD = ["drafts", "unflagged-drafts", "thought-only", "thought-after-image", "snake", "escaped"]


@pytest.mark.parametrize("fault", GOOD)
async def test_the_image_that_counts_is_found(client: httpx.AsyncClient, stand_in: StandIn, fault: str) -> None:
    """Among drafts and thoughts, in both spellings and alphabets, escaped or not, the one final image comes back."""
    stand_in.plan.append(fault)

    response = await client.post("/generate", json={"prompt": "a banana"}, headers={"Accept": "image/*"})

    assert response.status_code == 200, response.text
    assert Image.open(io.BytesIO(response.content)).size == (1024, 1024)


async def test_escaped_answers_are_json_that_callers_read(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """An answer with escapes in the data is legal JSON on our side too, and the same picture."""
    stand_in.plan.append("escaped")

    response = await client.post("/generate", json={"prompt": "a banana"})

    assert opened(response.json()["images"][0]).size == (1024, 1024)


# Fault, status, code, calls that reach Google, more keys of the error.
FAULTS: list[tuple[str, int, str, int, dict[str, Any]]] = [
    ("400", 422, "invalid_request", 1, {}),
    ("400-precondition", 502, "upstream_error", 1, {}),
    ("400-key", 502, "upstream_rejected_key", 1, {}),
    ("401", 502, "upstream_rejected_key", 1, {}),
    ("403", 502, "upstream_rejected_key", 1, {}),
    ("404", 404, "model_not_found", 1, {}),
    ("413", 413, "too_large", 1, {}),
    ("429", 429, "upstream_quota", 1, {}),
    ("429-long", 429, "upstream_quota", 1, {"retry_after": 6776}),
    ("429-day", 429, "upstream_quota", 1, {"retry_after": 600}),
    ("500", 502, "upstream_error", 2, {}),
    ("502", 502, "upstream_error", 2, {}),
    ("504", 502, "upstream_error", 2, {}),
    ("503", 503, "overloaded", 3, {"retry_after": 5}),
    ("blocked", 422, "blocked", 1, {"reason": "PROHIBITED_CONTENT"}),
    ("image-safety", 422, "blocked", 1, {"reason": "IMAGE_SAFETY"}),
    ("refused-draft", 422, "blocked", 1, {"reason": "IMAGE_SAFETY"}),
    ("null-parts", 502, "no_image", 1, {"reason": "IMAGE_OTHER"}),
    ("empty-content", 502, "no_image", 1, {"reason": "NO_IMAGE"}),
    ("empty-parts", 502, "no_image", 1, {"reason": "STOP"}),
    ("unknown-reason", 502, "no_image", 1, {"reason": "IMAGE_MOON_PHASE"}),
    ("text-only", 502, "no_image", 1, {"reason": "STOP"}),
    ("bad-base64", 502, "upstream_invalid", 1, {}),
    ("garbage", 502, "upstream_invalid", 1, {}),
    ("html", 502, "upstream_invalid", 1, {}),
    ("empty", 502, "upstream_invalid", 1, {}),
    ("wrong-shape", 502, "upstream_invalid", 1, {}),
    ("other-json", 502, "upstream_invalid", 1, {}),
    ("error-as-200", 502, "upstream_invalid", 1, {}),
    ("truncated", 502, "upstream_invalid", 1, {}),
    ("not-http", 502, "upstream_invalid", 1, {}),
    ("reset", 502, "upstream_error", 1, {}),
    ("hang-up", 502, "upstream_error", 1, {}),
    ("reset-inside", 502, "upstream_invalid", 1, {}),
]


@pytest.mark.parametrize(("fault", "status", "code", "calls", "extra"), FAULTS, ids=[row[0] for row in FAULTS])
async def test_every_fault_has_its_row_in_the_table(
    client: httpx.AsyncClient, stand_in: StandIn, fault: str, status: int, code: str, calls: int, extra: dict[str, Any]
) -> None:
    """Each way to fail gives the status and the code of the table, after exactly as many calls as it allows."""
    stand_in.plan.extend([fault] * 5)

    response = await client.post("/generate", json={"prompt": "a banana"})

    error = error_of(response)
    assert (response.status_code, error["code"], len(stand_in.calls)) == (status, code, calls), error
    assert {name: error.get(name) for name in extra} == extra
    assert response.headers.get("retry-after") == (str(error["retry_after"]) if "retry_after" in error else None)
    assert KEY not in response.text


async def test_the_models_words_reach_the_caller(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """A model that asks back instead of drawing is quoted."""
    stand_in.plan.append("text-only")

    response = await client.post("/generate", json={"prompt": "a banana"})

    assert "What colour should it have?" in error_of(response)["message"]


@pytest.mark.parametrize("fault", ["hang", "hang-inside", "drip"])
async def test_nothing_outlasts_the_deadline(stand_in: StandIn, fault: str) -> None:
    """A hang before or inside the answer and a slow drip end at the deadline, and the call is cancelled."""
    stand_in.plan.append(fault)
    async with client_of(create_app(settings_for(stand_in, request_timeout_seconds=0.5))) as client:
        response = await client.post("/generate", json={"prompt": "a banana"})

    assert (response.status_code, error_of(response)["code"]) == (504, "timeout")


async def test_an_answer_over_the_cap_is_not_read_on(stand_in: StandIn) -> None:
    """Memory is bounded: what is over MAX_RESPONSE_BYTES is refused."""
    async with client_of(create_app(settings_for(stand_in, max_response_bytes=20_000))) as client:
        response = await client.post("/generate", json={"prompt": "a banana"})

    assert (response.status_code, error_of(response)["code"]) == (502, "upstream_invalid")


GIF = base64.b64encode(b"GIF89a" + bytes(40)).decode()
BAD: list[tuple[object, list[str]]] = [
    ({}, ["prompt"]),
    ([], ["body"]),
    ("text", ["body"]),
    (None, ["body"]),
    ({"prompt": None}, ["prompt"]),
    ({"prompt": 5}, ["prompt"]),
    ({"prompt": ""}, ["prompt"]),
    ({"prompt": " \n\t"}, ["prompt"]),
    ({"prompt": ["x"]}, ["prompt"]),
    ({"prompt": "x", "model": ""}, ["model"]),
    ({"prompt": "x", "model": "../../etc"}, ["model"]),
    ({"prompt": "x", "model": "models/"}, ["model"]),
    ({"prompt": "x", "model": 3}, ["model"]),
    ({"prompt": "x", "number_of_images": 0}, ["number_of_images"]),
    ({"prompt": "x", "number_of_images": 11}, ["number_of_images"]),
    ({"prompt": "x", "number_of_images": 1.5}, ["number_of_images"]),
    ({"prompt": "x", "number_of_images": True}, ["number_of_images"]),
    ({"prompt": "x", "number_of_images": "many"}, ["number_of_images"]),
    ({"prompt": "x", "number_of_images": 10**40}, ["number_of_images"]),
    ({"prompt": "x", "image_base64": ""}, ["image_base64"]),
    ({"prompt": "x", "image_base64": 7}, ["image_base64"]),
    ({"prompt": "x", "image_base64": {}}, ["image_base64"]),
    ({"prompt": "x", "image_base64": "not a picture"}, ["image_base64"]),
    ({"prompt": "x", "image_base64": "A" * 5001}, ["image_base64"]),
    ({"prompt": "x", "image_base64": GIF}, ["image_base64"]),
    ({"prompt": "x", "image_base64": [encoded(png()), GIF]}, ["image_base64"]),
    ({"prompt": "x", "image_base64": [encoded(png()), 3]}, ["image_base64"]),
    ({"prompt": "x", "image_base64": [encoded(png())] * 15}, ["image_base64"]),
    ({"prompt": "x", "aspect_ratio": "7:5"}, ["aspect_ratio"]),
    ({"prompt": "x", "image_size": "2k"}, ["image_size"]),
    ({"prompt": "x", "image_size": 512}, ["image_size"]),
    ({"prompt": "x", "strength": 1}, ["strength"]),
    (
        {"promt": "x", "number_of_images": 99, "image_base64": GIF},
        ["prompt", "image_base64", "number_of_images", "promt"],
    ),
]


@pytest.mark.parametrize(("body", "fields"), BAD, ids=[str(body)[:40] for body, _ in BAD])
async def test_bad_input_names_every_field(
    client: httpx.AsyncClient, stand_in: StandIn, body: object, fields: list[str]
) -> None:
    """Whatever is wrong is named, all of it at once, and nothing is sent to Google."""
    response = await client.post("/generate", json=body)

    error = error_of(response)
    assert (response.status_code, error["code"]) == (422, "invalid_request")
    assert [item["field"] for item in error["fields"]] == fields
    assert all(field in error["message"] for field in fields)
    assert not stand_in.calls


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"prompt":"x"} x', b"\xff\xfe", b'{"prompt":"\xff"}', b'{"prompt":"\\ud800"}', b"[" * 100_000, b"prompt=x"]
)  # fmt: skip
async def test_a_body_that_is_not_json_is_said_so(client: httpx.AsyncClient, body: bytes) -> None:
    """Bytes of any kind are a 422, never a 500."""
    response = await client.post("/generate", content=body)

    assert (response.status_code, error_of(response)["fields"][0]["field"]) == (422, "body")


async def test_nulls_are_what_is_left_out(client: httpx.AsyncClient) -> None:
    """Clients that send every field, null where there is nothing, are understood."""
    fields = ("image_base64", "model", "number_of_images", "aspect_ratio", "image_size")
    response = await client.post("/generate", json={"prompt": "x"} | dict.fromkeys(fields))

    assert response.status_code == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_413(stand_in: StandIn, declared: bool) -> None:
    """A large body is refused, by its Content-Length or while it arrives."""
    body = json.dumps({"prompt": "x" * 5000}).encode()

    async def chunks() -> Any:
        for start in range(0, len(body), 500):
            yield body[start : start + 500]

    async with client_of(create_app(settings_for(stand_in, max_request_bytes=2000))) as client:
        response = await client.post("/generate", content=body if declared else chunks())

    assert (response.status_code, error_of(response)["code"]) == (413, "too_large")
    assert "2000 bytes" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("gemini-3-pro-image-preview", "gemini-3-pro-image"),
        ("models/gemini-3-pro-image", "gemini-3-pro-image"),
        ("gemini-2.5-flash-image-preview", "gemini-nano-banana-2.1"),
        ("gemini-3.1-flash-image", "gemini-3.1-flash-image"),
    ],
)
async def test_retired_models_are_sent_as_their_successors(
    client: httpx.AsyncClient, stand_in: StandIn, name: str, sent: str
) -> None:
    """A retired name works; a current one goes as it is."""
    response = await client.post("/generate", json={"prompt": "x", "model": name})

    assert response.status_code == 200
    assert stand_in.calls[0].model == sent


async def test_the_sixty_first_request_is_429(stand_in: StandIn) -> None:
    """The rate limit is 60 a minute, in headers on every response, bad requests included."""
    async with client_of(create_app(settings_for(stand_in))) as client:
        answers = [await client.post("/generate", json={}) for _ in range(61)]
        health = await client.get("/health")

    assert [answer.status_code for answer in answers] == [422] * 60 + [429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == [str(n) for n in range(59, -1, -1)] + [
        "0"
    ]
    assert error_of(answers[-1])["code"] == "rate_limited"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert health.status_code == 200
    assert "x-ratelimit-limit" not in health.headers


@pytest.mark.parametrize("flag", [True, False])
async def test_googles_store_flag_is_sent_when_it_is_set(stand_in: StandIn, flag: bool) -> None:
    """GEMINI_STORE reaches Google as `store`."""
    async with client_of(create_app(settings_for(stand_in, gemini_store=flag))) as client:
        await client.post("/generate", json={"prompt": "x"})

    assert stand_in.calls[0].body["store"] is flag


@pytest.mark.parametrize("deep", [[], {}])
async def test_a_prompt_nested_deep_is_422(client: httpx.AsyncClient, deep: Any) -> None:
    """However deep, it is no string."""
    nested = "[" * 490 + "]" * 490 if isinstance(deep, list) else '{"a":' * 490 + "1" + "}" * 490

    response = await client.post("/generate", content=f'{{"prompt":{nested}}}')

    assert (response.status_code, error_of(response)["fields"][0]["field"]) == (422, "prompt")


async def test_a_model_of_many_letters_is_422(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """A name that no model has goes nowhere."""
    response = await client.post("/generate", json={"prompt": "x", "model": "m" * 70_000})

    assert (response.status_code, error_of(response)["fields"][0]["field"]) == (422, "model")
    assert not stand_in.calls


async def test_json_with_a_byte_order_mark_is_json(client: httpx.AsyncClient) -> None:
    """As Windows' editors save it."""
    assert (await client.post("/generate", content=b'\xef\xbb\xbf{"prompt":"x"}')).status_code == 200


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_words_that_are_no_unicode_cost_no_picture(
    client: httpx.AsyncClient, stand_in: StandIn, accept: str
) -> None:
    """One of four answers has half an emoji in its words: the other three are delivered, and the fourth is told."""
    odd = faults.says(r'{"candidates":[{"content":{"parts":[{"text":"sorry \ud83d"}]},"finishReason":"NO_IMAGE"}]}')
    stand_in.plan.extend([odd, None, None, None])
    response = await client.post("/generate", json={"prompt": "x", "number_of_images": 4}, headers={"Accept": accept})

    assert response.status_code == 200
    if accept == "application/json":
        assert len(response.json()["images"]) == 3
        assert [failed["code"] for failed in response.json()["metadata"]["failed"]] == ["no_image"]
    else:
        assert [response.text.count(f"event: {name}\n") for name in ("image", "failed", "done")] == [3, 1, 1]


async def test_a_file_is_one_picture(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Two with `Accept: image/*` would be JSON in a .jpg, and paid for: refused before anything is sent."""
    body, headers = {"prompt": "x", "number_of_images": 2}, {"Accept": "image/*"}
    refused = await client.post("/generate", json=body, headers=headers)

    assert (refused.status_code, error_of(refused)["fields"][0]["field"]) == (422, "number_of_images")
    assert not stand_in.calls


@pytest.mark.parametrize("prefix", ["openai/", "gemini/", "google/", "vertex_ai/", "openrouter/google/", "models/"])
@pytest.mark.parametrize("path", ["/generate", "/v1/images/generations"])
async def test_prefixes_of_other_gateways_are_taken_off(
    client: httpx.AsyncClient, stand_in: StandIn, path: str, prefix: str
) -> None:
    """As their users have them in their programs."""
    response = await client.post(path, json={"prompt": "x", "model": f"{prefix}gemini-3-pro-image"})

    assert (response.status_code, stand_in.calls[0].model) == (200, "gemini-3-pro-image")


async def test_a_project_without_billing_is_told_so(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Google says that a quota of 0 was exceeded."""
    message = (
        "You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded for metric:"
        " generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0, model: gemini-3-pro-image"
    )
    stand_in.plan.append(faults.exhausted(message, faults.retry_info("20s")))
    response = await client.post("/generate", json={"prompt": "x"})

    assert (response.status_code, len(stand_in.calls)) == (429, 1)
    assert "enable billing" in error_of(response)["message"]
