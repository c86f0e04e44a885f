"""Google's count of tokens: read, and found in what passes by."""

import json
from typing import Any

import pytest

from banana.google.usage import TAIL_BYTES, Usage, UsageFinder

WHOLE = {
    "promptTokenCount": 10,
    "toolUsePromptTokenCount": 5,
    "candidatesTokenCount": 1130,
    "thoughtsTokenCount": 225,
    "totalTokenCount": 1370,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7}, {"modality": "IMAGE", "tokenCount": 3}],
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}, {"modality": "TEXT", "tokenCount": 10}],
}


def test_every_count_is_read() -> None:
    """Thinking is part of what was made."""
    assert Usage.of(WHOLE) == Usage(15, 3, 1355, 225, 1120, 1370)


@pytest.mark.parametrize("value", ["5", -5, 7.5, None, True, 10**30, [], {}])
def test_what_is_no_count_is_nothing(value: Any) -> None:
    """Whatever Google sends."""
    details = [{"modality": "IMAGE", "tokenCount": value}]

    assert Usage.of({"promptTokenCount": value, "totalTokenCount": value}) == Usage(0, 0, 0, 0, None, 0)
    assert Usage.of({"candidatesTokensDetails": details}).output == 0


@pytest.mark.parametrize(
    "odd", [{"\ud800": 1}, {"promptTokensDetails": [{"\ud800": 1}]}, {"promptTokensDetails": {"\ud800": 1}}]
)
def test_what_is_no_unicode_costs_no_picture(odd: dict[str, Any]) -> None:
    """The rest is read."""
    assert Usage.of(odd | {"totalTokenCount": 7}).total == 7


@pytest.mark.parametrize("details", [None, [], {}, "IMAGE", [None, 5, {"tokenCount": 5}, {"modality": 5}]])
def test_modalities_that_are_not_said_are_unknown(details: Any) -> None:
    """They are not taken for none."""
    assert Usage.of({"candidatesTokenCount": 5, "candidatesTokensDetails": details}).output_images is None


def test_more_of_a_modality_than_of_all_counts() -> None:
    """The careful reading."""
    usage = Usage.of({"candidatesTokenCount": 11, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 20}]})

    assert (usage.output, usage.output_images) == (20, 20)


def found(body: bytes, cut: int = 0) -> dict[str, Any] | None:
    finder = UsageFinder()
    for at in range(0, len(body), cut or max(1, len(body))):
        finder.feed(body[at : at + (cut or len(body))])
    return finder.close()


def response(text: str = "x", **more: Any) -> dict[str, Any]:
    part = {"candidates": [{"content": {"parts": [{"text": text}]}}], "usageMetadata": WHOLE}
    return part | {"modelVersion": "m", "responseId": "r"} | more


@pytest.mark.parametrize("cut", [0, 1, 7, 5000])
def test_it_is_found_at_the_end(cut: int) -> None:
    """However the response is cut, behind a picture, and of several the last."""
    picture = response("x" * 100_000)
    events = b"".join(b"data: %s\r\n\r\n" % json.dumps(part).encode() for part in (response(usageMetadata={}), picture))

    for body in (json.dumps(picture).encode(), json.dumps(picture, indent=2).encode(), events):
        assert found(body, cut) == WHOLE


def test_what_a_model_says_is_not_taken_for_it() -> None:
    """Its text stands in quotes that are escaped, and before the count."""
    assert found(json.dumps(response('"usageMetadata": {"promptTokenCount": 0}')).encode()) == WHOLE


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"usageMetadata"', b'{"usageMetadata": ', b'{"usageMetadata": 5}', b'{"usageMetadata": {"a": ',
     b'"usageMetadata" {}', b'{"usageMetadata": {}}' + b" " * TAIL_BYTES, b'{"usageMetadata": ' + b"[" * 15_000],
)  # fmt: skip
def test_where_there_is_none_none_is_found(body: bytes) -> None:
    """Also where it is cut, or far from the end."""
    assert found(body) is None


@pytest.mark.parametrize("step", [1, 7, 50, 1000])
def test_searches_are_counted_however_the_response_is_cut(step: int) -> None:
    """Their name may stand on a border; a later event of a stream names them again."""
    event = b'data: {"candidates":[{"groundingMetadata":{"webSearchQueries":["a","b \\"]\\" c"]}}],"modelVersion":"m-1"}\r\n\r\n'
    text = event * 2
    finder = UsageFinder()
    for start in range(0, len(text), step):
        finder.feed(text[start : start + step])

    assert (finder.searches, finder.model) == (2, "m-1")
