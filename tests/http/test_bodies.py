"""Bodies: JSON strictly, forms as pydantic reads strings, long strings where they lie, however deep."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.types import Message

from banana import errors
from banana.http.bodies import BodyReader
from banana.payload.lazyjson import LONG_STRING_BYTES, LongString
from banana.routes.fields import Pictures, Text
from tests.pictures import encoded, png

pytestmark = pytest.mark.anyio
MULTIPART = "multipart/form-data; boundary=b"


class Part(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    text: Text | None = None
    picture: Pictures = ()
    raw: Any = None


class Chat(BaseModel):
    """A body like a chat's: strings and pictures deep inside."""

    model_config = ConfigDict(extra="forbid")

    messages: list[list[Part]] = []
    n: int = 1
    stream: bool = False
    user: Text = ""


def request_of(chunks: Sequence[bytes], content_type: str = "application/json") -> Request:
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    return Request({"type": "http", "headers": [(b"content-type", content_type.encode())]}, receive)


async def read(body: object, content_type: str = "application/json") -> Chat:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    deadline = asyncio.get_running_loop().time() + 5
    return await BodyReader(30).read(request_of([raw], content_type), Chat, deadline, files="messages")


def form(**fields: str) -> bytes:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    return ("".join(parts) + "--b--\r\n").encode()


async def test_a_picture_deep_inside_stays_where_it_lies() -> None:
    """A data URI in a message is pieces of the body; a long text beside it is a string."""
    picture, text = encoded(png() + bytes(3000)), "word " * LONG_STRING_BYTES
    part = {"text": text, "picture": f"data:image/png;base64,{picture}", "raw": "x" * LONG_STRING_BYTES}
    raw = json.dumps({"messages": [[part]]}).encode()

    ((read_part,),) = (await read(raw)).messages

    assert read_part.text == text
    (found,) = read_part.picture
    assert b"".join(found.pieces).decode() == picture
    assert all(isinstance(piece, memoryview) and piece.obj == raw for piece in found.pieces)
    assert isinstance(read_part.raw, LongString)


@pytest.mark.parametrize(("body", "field"), [
    ({"n": "2"}, "n"), ({"n": 2.0}, "n"), ({"stream": "true"}, "stream"), ({"user": 5}, "user"),
    ({"messages": [[{"text": 5}]]}, "messages.0.0.text"), ({"x": "y" * 5000}, "x"),
])  # fmt: skip
async def test_json_means_what_it_says(body: object, field: str) -> None:
    """A string is no number and no truth value; what is wrong is named, however deep and however long."""
    with pytest.raises(errors.InvalidRequest) as caught:
        await read(body)

    assert caught.value.extra["fields"][0]["field"] == field  # type: ignore[index]
    assert len(caught.value.message) < 300


async def test_a_form_means_what_its_strings_mean() -> None:
    """Numbers and truth values are read from strings, in every field that is one."""
    chat = await read(form(n="3", stream="true", user="5"), MULTIPART)

    assert (chat.n, chat.stream, chat.user) == (3, True, "5")


@pytest.mark.parametrize("value", ["many", "--5", " " * 25 + "x", "", "1.5", "9" * 5000])
async def test_a_form_with_a_wrong_number_names_it(value: str) -> None:
    """Whatever stands where a number should is a clear error."""
    with pytest.raises(errors.InvalidRequest) as caught:
        await read(form(n=value), MULTIPART)

    assert caught.value.message.startswith("n: ")


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [(b"{", "application/json", "body: is not JSON"), (b"x", MULTIPART, "body: is not a form"), (b"[]", "", "body: is not a JSON object"),
     (b'{"user":"\\ud800' + b"x" * 5000 + b'"}', "", "user: is not a JSON string")],
)  # fmt: skip
async def test_what_cannot_be_read_is_an_error_that_says_why(body: bytes, content_type: str, message: str) -> None:
    """Neither JSON nor a form, or an escape that is none."""
    with pytest.raises(errors.InvalidRequest) as caught:
        await read(body, content_type)

    assert caught.value.message.startswith(message)


async def test_a_body_that_does_not_come_ends_at_the_deadline() -> None:
    """Who sends half a body is not waited for longer than the deadline."""

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    request = Request({"type": "http", "headers": []}, receive)
    with pytest.raises(errors.DeadlineExceeded, match="before the whole request arrived"):
        await BodyReader(30).read_bytes(request, asyncio.get_running_loop().time() + 0.05)


async def test_bytes_are_the_chunks_they_came_in() -> None:
    """What is passed through is not joined."""
    chunks = [b"a" * 100_000, b"b" * 70_000, b"the end"]

    assert await BodyReader(30).read_bytes(request_of(chunks), asyncio.get_running_loop().time() + 5) == chunks


@pytest.mark.parametrize("deep", ["[" * 700 + "]" * 700, '{"a":' * 700 + "1" + "}" * 700])
async def test_deep_json_beside_a_long_string_is_refused(deep: str) -> None:
    """It is a clear error, whatever Python's stack holds."""
    with pytest.raises(errors.InvalidRequest):
        await read(f'{{"user":"{"x" * 3000}","messages":{deep}}}'.encode())


async def test_at_most_twenty_fields_are_named() -> None:
    """Whatever is sent, the error stays small and is there at once."""
    body = {"x" * 700: 1} | {f"unknown-{number}": 1 for number in range(15_000)}
    started = time.process_time()
    with pytest.raises(errors.InvalidRequest) as refused:
        await read(json.dumps(body).encode())

    fields = refused.value.extra["fields"]
    assert isinstance(fields, list)
    assert len(fields) == 21
    assert fields[-1] == {"field": "body", "message": "has 14981 more problems"}
    assert len(refused.value.message) < 5000
    assert time.process_time() - started < 2


async def test_a_form_has_at_most_a_hundred_parts() -> None:
    """More are no form that anybody means."""
    with pytest.raises(errors.InvalidRequest, match="more than 100 parts"):
        await read(form(**{f"field-{number}": "x" for number in range(101)}), MULTIPART)


async def test_a_body_that_stops_is_not_waited_for() -> None:
    """After the seconds without one byte it ends, long before the deadline; slow ones go on."""
    pauses: list[float] = [0.05] * 6 + [60]

    async def receive() -> Message:
        await asyncio.sleep(pauses.pop(0))
        return {"type": "http.request", "body": b"x", "more_body": True}

    request = Request({"type": "http", "headers": [], "method": "POST"}, receive)
    with pytest.raises(errors.DeadlineExceeded, match="The request's body stopped arriving"):
        await BodyReader(1).read_bytes(request, asyncio.get_running_loop().time() + 30)

    assert pauses == []


async def test_a_body_in_single_bytes_takes_no_more_than_itself() -> None:
    """A picture that comes byte by byte is kept in pieces of some kilobytes."""
    text = "A" * 50_000
    raw = json.dumps({"messages": [[{"raw": text}]]}).encode()
    request = request_of([raw[at : at + 1] for at in range(len(raw))])
    chat = await BodyReader(30).read(request, Chat, asyncio.get_running_loop().time() + 20, files="messages")

    kept = chat.messages[0][0].raw
    assert isinstance(kept, LongString)
    assert kept.text() == text
    assert len(kept.pieces) <= 8


async def test_a_prompt_has_an_end() -> None:
    """Text of more than a megabyte is named, and not decoded."""
    with pytest.raises(errors.InvalidRequest, match="user: has more than 1048576 bytes"):
        await read({"user": "x" * (2 << 20)})
