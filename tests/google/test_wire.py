"""Gemini's wire format, bytes in and out; what each fault means over a socket is in the tests of the routes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banana import errors
from banana.google.wire import Image, ImageParser, Words, error_of
from tests.pictures import encoded, png


def read(document: Any, cut: int = 10_000, *, takes_words: bool = False) -> Image | Words:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    parser = ImageParser(takes_words=takes_words)
    for start in range(0, len(raw), cut):
        parser.feed(raw[start : start + cut])
    return parser.close()


def parsed(document: Any, cut: int = 10_000) -> Image:
    found = read(document, cut)
    assert isinstance(found, Image)
    return found


def answer(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": "STOP"}]} | more


def image(data: bytes = b"picture", mime_type: str = "image/png", **more: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": encoded(data)}} | more


@given(st.integers(1, 300))
def test_an_image_is_found_in_any_cut(cut: int) -> None:
    """Wherever the chunks end, the last image that is no thought comes out, with its type and its tokens."""
    document = answer(
        image(b"draft"), image(png()), image(b"thought", thought=True), usageMetadata={"totalTokenCount": 12}
    )

    found = parsed(document, cut)

    assert b"".join(found.picture.decoded()) == png()
    assert (found.mime_type, found.usage) == ("image/png", {"totalTokenCount": 12})


BLOCKED = "Google blocked the prompt because its content is prohibited. Change the prompt or the input images."


@pytest.mark.parametrize("usage", [{}, [], 5, {"totalTokenCount": "5"}, {"a": [{"b": None}]}])
def test_an_odd_count_of_tokens_costs_no_picture(usage: Any) -> None:
    """A usage of any kind is decoration: the picture comes."""
    assert parsed(answer(image(), usageMetadata=usage)).usage == (usage if isinstance(usage, dict) else {})


@pytest.mark.parametrize("declared", ["application/x", "image/<b>", "", "image/p ng", "image/漢"])
def test_an_unknown_picture_has_no_type_that_could_do_harm(declared: str) -> None:
    """What Google declares counts only where it can stand in a header."""
    assert parsed(answer(image(b"unknown", declared))).mime_type == "application/octet-stream"


@pytest.mark.parametrize("odd", [b"NaN", b'"\\ud800"', b"9" * 400])
def test_what_is_odd_beside_a_picture_does_not_lose_it(odd: bytes) -> None:
    """NaN, a lone surrogate, an endless number: the picture counts."""
    raw = json.dumps(answer(image(png()))).encode()

    assert b"".join(parsed(raw[:-1] + b',"avgLogprobs":' + odd + b"}").picture.decoded()) == png()


@pytest.mark.parametrize("mime_type", ["text/plain", "audio/wav", "video/mp4"])
def test_what_is_declared_as_something_else_is_no_image(mime_type: str) -> None:
    """A later part that is no picture does not take the picture's place."""
    assert b"".join(parsed(answer(image(png()), image(b"words", mime_type))).picture.decoded()) == png()


PERMISSION = "You do not have permission to access the File abc or it may not exist."


@pytest.mark.parametrize(
    ("status", "message", "reason", "kind"),
    [
        (403, PERMISSION, None, errors.InvalidRequest),
        (403, PERMISSION, "IAM_PERMISSION_DENIED", errors.InvalidRequest),
        (403, "Your API key was reported as leaked.", None, errors.RejectedKey),
        (403, "Consumer 'api_key:AIza' has been suspended.", "CONSUMER_SUSPENDED", errors.RejectedKey),
        (403, "Requests from this address are blocked.", "API_KEY_IP_ADDRESS_BLOCKED", errors.RejectedKey),
        (400, "API key not valid.", "API_KEY_INVALID", errors.RejectedKey),
        (400, "The word api key is in the prompt.", None, errors.InvalidRequest),
        (401, "Request had invalid authentication credentials.", None, errors.RejectedKey),
    ],
)
def test_a_key_is_refused_only_by_what_concerns_keys(
    status: int, message: str, reason: str | None, kind: type[errors.BananaError]
) -> None:
    """A caller's file of another project is the caller's error, in Google's words; a key is not condemned for it."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}] if reason else []
    body = {"error": {"code": status, "message": message, "status": "PERMISSION_DENIED", "details": details}}

    error = error_of(status, json.dumps(body).encode())

    assert type(error) is kind
    assert (message in error.message) is (kind is errors.InvalidRequest)


@given(st.integers(400, 599), st.one_of(st.binary(max_size=80), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["error", "code", "message", "status", "details", "retryDelay", "violations", "reason"]), inner),
    max_leaves=8).map(lambda document: json.dumps(document).encode())))  # fmt: skip
def test_an_error_of_any_kind_is_one_of_ours(status: int, body: bytes) -> None:
    """Whatever stands in the body, there is an error with a message."""
    error = error_of(status, body)

    assert isinstance(error, errors.BananaError)
    assert error.message
    assert len(error.message) < 2000


PNG = image(png())


@pytest.mark.parametrize(
    "document",
    [
        answer(PNG, image(b'{"a":1}', "application/json")),
        answer(PNG, image(b"%PDF-1.7 and more", "application/pdf")),
        answer(PNG, image(b"anything", "application/octet-stream")),
        answer(PNG, image(b"words", "TEXT/plain")),
        answer(PNG, {"inlineData": {"data": encoded(b"no type")}}),
        answer(PNG, {"inlineData": {"mimeType": "image/png", "data": "no base64!"}}),
        answer(PNG, {"inlineData": {"mimeType": "image/png", "data": 5}}),
        answer(PNG, {"inlineData": {"mimeType": "image/png", "data": {"a": 1}}}),
        {"candidates": [{"content": {"parts": [None, "odd", PNG, 5]}}]},
        {"candidates": [None, {"content": {"parts": [PNG]}}, {"content": "odd"}, {"content": {"parts": "odd"}}]},
        answer(PNG, error={"code": 400, "message": "odd"}),
        [answer(PNG)],
        answer(PNG, **{"k" * 2000: "v" * 2000}),
        answer(PNG, usageMetadata={"deep": json.loads("[" * 600 + "]" * 600)}),
    ],
)  # fmt: skip
def test_what_stands_beside_a_picture_does_not_take_its_place(document: Any) -> None:
    """Documents, broken pictures, odd parts and candidates: the picture that is one is delivered."""
    assert b"".join(parsed(document).picture.decoded()) == png()


def test_words_that_cannot_be_written_are_made_so() -> None:
    """Half an emoji in Google's words: the error can be written in every shape."""
    raw = rb'{"candidates":[{"content":{"parts":[{"text":"sorry \ud83d"}]},"finishReason":"NO_IMAGE\udc00"}]}'
    with pytest.raises(errors.NoImage) as caught:
        parsed(raw)

    assert caught.value.message.encode()
    assert str(caught.value.extra["reason"]).encode()


def test_a_callers_words_do_not_condemn_a_key() -> None:
    """A 403 that quotes a file's name is the request's, whatever the name is."""
    message = "You do not have permission to access the File Your API key api_key:x or it may not exist."
    body = json.dumps({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": message}}).encode()

    assert type(error_of(403, body)) is errors.InvalidRequest


def test_words_beside_an_image_come_with_it() -> None:
    """Joined as they stand, thoughts left out."""
    document = answer({"text": "Here "}, {"text": "hm", "thought": True}, image(png()), {"text": "it is."})

    assert read(document, takes_words=True).text == "Here it is."


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (answer({"text": "No picture."}), Words("No picture.", "STOP", usage={"totalTokenCount": 3})),
        (
            {"candidates": [{"content": {"parts": [{"text": "Half"}]}, "finishReason": "MAX_TOKENS"}]},
            Words("Half", "MAX_TOKENS", usage={"totalTokenCount": 3}),
        ),
        (
            {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}},
            Words(BLOCKED, "PROHIBITED_CONTENT", True, {"totalTokenCount": 3}),
        ),
        (
            {"candidates": [{"finishReason": "IMAGE_SAFETY", "finishMessage": "Unsafe."}]},
            Words("Unsafe.", "IMAGE_SAFETY", True, {"totalTokenCount": 3}),
        ),
    ],
)
def test_words_alone_are_a_result_where_they_count(document: dict[str, Any], words: Words) -> None:
    """So is a refusal, in Google's words; without that both are errors."""
    document["usageMetadata"] = {"totalTokenCount": 3}

    assert read(document, takes_words=True) == words
    with pytest.raises((errors.NoImage, errors.Blocked)):
        read(document)


def test_neither_words_nor_an_image_is_an_error_everywhere() -> None:
    """An empty response is no answer, whoever waits for it."""
    with pytest.raises(errors.NoImage):
        read(answer(), takes_words=True)


@pytest.mark.parametrize("size", [12, 4096])
def test_the_signature_of_the_image_that_counts_comes_with_it(size: int) -> None:
    """As it stands in the response, however long it is."""
    signature = "c2ln" * (size // 4)

    found = parsed(answer(image(b"draft", thoughtSignature="b3RoZXI="), image(png(), thoughtSignature=signature)))

    assert b"".join(found.signature) == signature.encode()
