"""Forms: files straight into base64, whatever the cut."""

import base64
import gc
import io
import weakref
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from banana.payload.multipart import FormParser, InvalidForm, fields_of
from banana.payload.pictures import EncodedPicture
from standin.server import StandIn
from tests.conftest import error_of
from tests.pictures import png


def form_of(fields: dict[str, str], files: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    given: Any = [(name, ("f.png", data, "image/png")) for name, data in files]
    request = httpx.Request("POST", "http://x", data=fields, files=given or {"none": b""})
    return request.headers["content-type"], request.read()


@given(st.binary(min_size=1, max_size=300), st.integers(1, 400))
def test_a_file_in_any_cut_is_its_base64(data: bytes, step: int) -> None:
    """Whatever the chunks, the base64 is that of the file."""
    content_type, body = form_of({"prompt": "é"}, [("image", data)])
    form = FormParser(content_type, "image_base64")
    for start in range(0, len(body), step):
        form.feed(body[start : start + step])

    fields = fields_of(form.close(), "image_base64")

    assert fields["prompt"] == "é"
    (picture,) = fields["image_base64"]
    assert isinstance(picture, EncodedPicture)
    assert b"".join(picture.pieces) == base64.b64encode(data)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_refused(content_type: str) -> None:
    """A Content-Type that lacks its boundary is said so."""
    with pytest.raises(InvalidForm):
        FormParser(content_type, "image_base64").feed(b"x")


@pytest.mark.anyio
async def test_curls_form_makes_a_picture(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """Fields as text, two files, a number: the same request as in JSON."""
    files = [("image", ("a.png", png())), ("image[]", ("b.png", png()))]
    response = await client.post(
        "/generate", data={"prompt": "mix", "number_of_images": "1"}, files=files, headers={"Accept": "image/*"}
    )

    assert response.status_code == 200, response.text
    assert Image.open(io.BytesIO(response.content)).format == "JPEG"
    parts = stand_in.calls[0].body["contents"][0]["parts"]
    assert [part["inlineData"]["mimeType"] for part in parts[1:]] == ["image/png"] * 2


@pytest.mark.anyio
async def test_files_and_base64_may_stand_side_by_side(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    """A form with base64 as text and with a file: both pictures go, in their order."""
    text = base64.b64encode(png()).decode()
    content_type, body = form_of({"prompt": "x", "image_base64": text}, [("image", png())])

    response = await client.post("/generate", content=body, headers={"Content-Type": content_type})

    assert response.status_code == 200, response.text
    assert [part["inlineData"]["data"] for part in stand_in.calls[0].body["contents"][0]["parts"][1:]] == [text] * 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "files", "named"),
    [
        ({}, [("image", b"x")], "prompt"),
        ({"prompt": "x"}, [("image", b"GIF89a" + bytes(30))], "image_base64"),
        ({"prompt": "x"}, [("image", b"")], "image_base64"),
        ({"prompt": "x", "number_of_images": "many"}, [("image", png())], "number_of_images"),
        ({"prompt": "x", "colour": "blue"}, [("image", png())], "colour"),
        ({"prompt": "x"}, [("prompt", png())], "body"),
        ({"prompt": "x" * 1_100_000}, [("image", png())], "body"),
    ],
)
async def test_a_bad_form_names_its_field(
    client: httpx.AsyncClient, stand_in: StandIn, fields: dict[str, str], files: list[tuple[str, bytes]], named: str
) -> None:
    """The errors are those of JSON."""
    content_type, body = form_of(fields, files)

    response = await client.post("/generate", content=body, headers={"Content-Type": content_type})

    assert response.status_code == 422
    assert named in [item["field"] for item in error_of(response)["fields"]]
    assert not stand_in.calls


@pytest.mark.anyio
@pytest.mark.parametrize("cut", [10, 60, 150])
async def test_a_form_cut_short_is_422(client: httpx.AsyncClient, cut: int) -> None:
    """What is not whole is not sent."""
    content_type, body = form_of({"prompt": "x"}, [("image", png())])

    response = await client.post("/generate", content=body[:-cut], headers={"Content-Type": content_type})

    assert (response.status_code, error_of(response)["fields"][0]["field"]) == (422, "body")


def parsed(body: bytes, boundary: str = "b", step: int = 7) -> dict[str, Any]:
    form = FormParser(f"multipart/form-data; boundary={boundary}", "image_base64")
    for start in range(0, len(body), step):
        form.feed(body[start : start + step])
    return fields_of(form.close(), "image_base64")


def part(head: str, data: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n"


@pytest.mark.parametrize(
    "head",
    [
        'name="image"; filename="a.png"',
        "name=\"image\"; filename*=UTF-8''a.png",
        'name="image"\r\nContent-Type: image/png',
        'name="image[]"\r\ncontent-type: IMAGE/PNG',
    ],
)
def test_a_file_is_known_by_its_name_or_by_its_type(head: str) -> None:
    """Clients name files in several ways, or not at all."""
    (picture,) = parsed(part(head, png()) + b"--b--")["image_base64"]

    assert b"".join(picture.pieces) == base64.b64encode(png())


@pytest.mark.parametrize("preamble", [b"", b"\r\n", b"This is a message for people.\r\n", b"--\r\n--x\r\n"])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_text_before_the_first_boundary_is_passed_over(preamble: bytes, step: int) -> None:
    """RFC 2046 allows it, and some clients write it."""
    assert parsed(preamble + part('name="prompt"', b"x") + b"--b--", step=step) == {"prompt": "x"}


@pytest.mark.parametrize("body", [b"x" * 200_000, part('name="prompt"', b"x")])
def test_a_form_that_is_none_is_refused(body: bytes) -> None:
    """Without its boundary, or without its end."""
    with pytest.raises(InvalidForm):
        parsed(body, step=10_000)


def test_a_boundary_that_is_too_long_is_refused() -> None:
    """RFC 2046 allows 70 characters."""
    with pytest.raises(InvalidForm, match="Boundary length"):
        parsed(b"", "b" * 300)


def test_a_parser_that_nobody_has_any_more_is_gone_at_once() -> None:
    """With its megabytes: they do not wait for the garbage collector."""
    parser = FormParser("multipart/form-data; boundary=x", "image")
    parser.feed(b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + bytes(100_000))
    alive = weakref.ref(parser)

    gc.disable()
    try:
        del parser
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [0, 1, 3, 32 << 10, (32 << 10) * 3 // 4, 3_000_001])
def test_a_file_of_any_size_is_its_base64(size: int) -> None:
    """Gathered in blocks, whatever the chunks are."""
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + content + b"\r\n--x--\r\n"
    parser = FormParser("multipart/form-data; boundary=x", "image")
    for start in range(0, len(body), 70_001):
        parser.feed(body[start : start + 70_001])
    ((name, picture),) = parser.close()

    assert name == "image"
    assert isinstance(picture, EncodedPicture)
    assert b"".join(picture.decoded()) == content
    assert picture.size_bytes == -(-size // 3) * 4
