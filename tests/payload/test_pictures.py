"""Pictures as base64, checked where they lie."""

import base64
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banana.payload.pictures import PictureError, _checked, read_input_picture, read_picture, type_of
from banana.payload.pieces import Bytes

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3
STARTS = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0" + bytes(60),
    "image/webp": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(60),
    "image/heic": b"\0\0\0\x18ftypheic" + bytes(60),
    "image/heif": b"\0\0\0\x18ftypmif1" + bytes(60),
}


@pytest.mark.parametrize(("mime_type", "picture"), STARTS.items())
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "DATA:text/plain;charset=utf-8;BASE64,"])
def test_the_type_is_that_of_the_bytes(mime_type: str, picture: bytes, encode: object, prefix: str) -> None:
    """Every accepted type is known by its bytes, in both alphabets, whatever a data URI claims."""
    text = encode(picture).decode()  # type: ignore[operator]

    found = read_input_picture(prefix + text)

    assert found.mime_type == mime_type
    assert b"".join(found.pieces).decode() == text
    assert b"".join(found.decoded()) == picture


@given(st.binary(min_size=1, max_size=200), st.lists(st.integers(0, 300), max_size=6), st.booleans(), st.booleans())
def test_base64_cut_anywhere_decodes_to_the_same_bytes(
    data: bytes, cuts: list[int], padded: bool, url_safe: bool
) -> None:
    """Chunk borders, missing padding and the alphabet change nothing."""
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data)
    text = text if padded else text.rstrip(b"=")
    borders = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    pieces: list[Bytes] = [text[a:b] for a, b in itertools.pairwise(borders)]

    assert b"".join(_checked(pieces).decoded()) == data


@given(st.binary(max_size=80))
def test_what_is_not_base64_is_refused_with_words(data: bytes) -> None:
    """Any text is base64 as the standard library reads it, or a PictureError."""
    text = data.decode("latin-1")
    try:
        read_picture(text)
    except PictureError as error:
        assert str(error).startswith("is ")  # noqa: PT017
    else:
        tidy = text.rpartition(",")[2].translate(str.maketrans("-_", "+/", " \t\r\n"))
        base64.b64decode(tidy + "=" * (-len(tidy) % 4), validate=True)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png,abc", "without ;base64"),
        ("data:image/png;base64", "without a comma"),
        ("not base64!", "is not base64"),
        ("aGVsbG8=aGVsbG8=aGVsbG8=", "is not base64"),
        ("AAAAA", "is not base64"),
        ("https://example.com/banana.png", "is not base64"),
        ("é" * 100, "is not base64"),
        ("\ud800", "is not base64"),
        (base64.b64encode(b"GIF89a" + bytes(40)).decode(), "is image/gif; supported are PNG, JPEG"),
        (base64.b64encode(b"\0\0\0\x18ftypavif" + bytes(40)).decode(), "is image/avif"),
        (base64.b64encode(b"%PDF-1.7" + bytes(40)).decode(), "is application/pdf"),
        (base64.b64encode(b"hello world, hello world").decode(), "is text, not an image"),
        (base64.b64encode(bytes(40)).decode(), "begins with the bytes 00 00 00 00"),
    ],
)
def test_the_message_says_what_was_found(value: str, words: str) -> None:
    """Whoever sends something else is told what it is."""
    with pytest.raises(PictureError, match="is ") as caught:
        read_input_picture(value)

    assert words in str(caught.value)


def test_line_breaks_as_base64_tools_make_them_are_taken_out() -> None:
    """`base64 file` wraps its lines; the picture is the same."""
    found = read_input_picture(base64.encodebytes(PNG).decode())

    assert b"".join(found.pieces) == base64.b64encode(PNG)


def test_an_unknown_type_has_no_name() -> None:
    """Bytes that tell nothing are no type."""
    assert type_of(b"") is None
