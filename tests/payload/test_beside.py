"""Megabytes that take their time: others are served meanwhile."""

import asyncio
import base64
import itertools
import json
import time
from typing import Any

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy

from banana.payload import lazyjson
from banana.payload.lazyjson import LazyJsonParser, LongString
from standin import faults
from standin.server import StandIn
from tests.pictures import png

NATIVE = "/v1beta/models/gemini-3-pro-image:generateContent"
PICTURE = base64.b64encode(png() + bytes(3_000_000)).decode()
ESCAPES = [r"\n", r"\\", r"\"", r"\/", r"\u00e4", r"\ud83d\ude00", r"\ud83d", r"\ude00", "ä", "漢", "😀", "x" * 7]
TEXTS: SearchStrategy[str] = st.lists(st.sampled_from(ESCAPES), min_size=1, max_size=60).map("".join)


def well_formed(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@given(TEXTS, st.integers(1, 30), st.integers(13, 40))
@settings(max_examples=150)
def test_a_string_means_the_same_in_whatever_blocks_it_is_decoded(text: str, cut: int, block_bytes: int) -> None:
    """No escape, no pair of escapes and no character is cut, however the chunks and blocks fall."""
    raw = text.encode()
    pieces = [raw[start : start + cut] for start in range(0, len(raw), cut)]
    before, lazyjson.BLOCK_BYTES = lazyjson.BLOCK_BYTES, block_bytes
    try:
        found = LongString(pieces, (0, 0), lenient=True)
        assert found.text() == well_formed(json.loads(f'"{text}"'))
        assert b"".join(found.unescaped()).decode() == found.text()
    finally:
        lazyjson.BLOCK_BYTES = before


@pytest.mark.parametrize("text", [r"\x", r"aaaa\u12g4" * 20, "\\", r"\u12"])
def test_what_is_no_escape_is_no_json(text: str) -> None:
    """Whatever stands around it."""
    for value in (text, "y" * 5000 + text, text + "y" * 5000):
        with pytest.raises(lazyjson.InvalidJson):
            LongString([value.encode()], (0, 0), lenient=True).text()


def body_of(kind: str) -> bytes:
    broken = r"\n".join(PICTURE[start : start + 4] for start in range(0, len(PICTURE), 4))
    match kind:
        case "line breaks":
            return b'{"prompt":"x","image_base64":"%s"}' % broken.encode()
        case "slashes":
            return b'{"prompt":"x","image_base64":"%s"}' % PICTURE.replace("A", r"\u0041").encode()
        case "native":
            return b'{"contents":[{"parts":[{"text":"%s"}]}]}' % (rb"\u6f22" * 1_000_000)
    return b'{"contents":[{"parts":[{"text":"%s"}]}]}' % (rb"\ud83d" * 1_000_000)


async def longest_turn_during(request: Any) -> tuple[httpx.Response, float]:
    """A response, and which part of the time until it was there was the longest in which others had no turn."""
    asking = asyncio.create_task(request)
    times = [time.perf_counter()]
    while not asking.done():
        await asyncio.sleep(0.001)
        times.append(time.perf_counter())
    return await asking, max(later - earlier for earlier, later in itertools.pairwise(times)) / (times[-1] - times[0])


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["line breaks", "slashes", "native", "surrogates"])
async def test_a_body_full_of_escapes_holds_nobody_up(client: httpx.AsyncClient, kind: str) -> None:
    """Its undoing takes a second; of all that time others wait for a part of it at once."""
    path = "/generate" if kind in ("line breaks", "slashes") else NATIVE
    response, longest = await longest_turn_during(
        client.post(
            path, content=body_of(kind), headers={"Content-Type": "application/json", "Idempotency-Key": kind[:4]}
        )
    )

    assert response.status_code == 200, response.text[:300]
    assert longest < 0.85


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("escape", [r"\/", r"\u002b", r"\n"])
async def test_a_response_full_of_escapes_holds_nobody_up(
    client: httpx.AsyncClient, stand_in: StandIn, escape: str
) -> None:
    """The image in it is the one that was sent."""
    data = (
        escape.join(PICTURE[start : start + 4] for start in range(0, len(PICTURE), 4)) if escape == r"\n" else PICTURE
    )
    data = data.replace("A", r"\u0041").replace("/", r"\/")
    document = '{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"%s"}}]},"finishReason":"STOP"}]}'
    stand_in.plan.append(faults.says(document % data))
    response, longest = await longest_turn_during(client.post("/generate", json={"prompt": "a banana"}))

    assert response.json()["images"] == [PICTURE]
    assert longest < 0.85


def test_the_length_of_what_has_escapes_is_known() -> None:
    """Of a long string without any there is nothing to be undone."""
    parser = LazyJsonParser()
    parser.feed(b'["%s","%s\\n"]' % (b"x" * 9000, b"y" * 5000))

    assert parser.escaped_bytes == 5002
