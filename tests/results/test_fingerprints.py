"""What makes two requests the same."""

from typing import Any

import pytest
from pydantic import BaseModel

from banana.payload.lazyjson import LazyJsonParser
from banana.payload.pictures import read_picture
from banana.results.fingerprints import are_of_one_request, fields_of, fingerprint_of
from tests.pictures import encoded, png


class Body(BaseModel):
    prompt: str
    n: int | None = 1
    tags: tuple[str, ...] = ()


def parsed(document: bytes) -> Any:
    parser = LazyJsonParser()
    parser.feed(document)
    return parser.close()


SAME = [
    (parsed(b'{"a":1,"b":[true,null]}'), parsed(b' { "b" : [true, null], "a": 1.0 } ')),
    ("x" * 5000, parsed(b'"' + b"x" * 5000 + b'"')),
    ("é" * 1000, parsed(b'"' + b"\\u00e9" * 1000 + b'"')),
    (read_picture(encoded(png())), read_picture("data:image/png;base64," + encoded(png()).rstrip("="))),
    (fields_of(Body(prompt="x")), fields_of(Body(prompt="x", n=None))),
    (fields_of(Body(prompt="x")), fields_of(Body(prompt="x", n=1, tags=()))),
]
DIFFERENT = [
    ([1, 2], [2, 1]),
    (["ab", "c"], ["a", "bc"]),
    ([["a"], "b"], ["a", ["b"]]),
    ({"a": "b"}, ["a", "b"]),
    (True, 1),
    (None, "None;"),
    (1, "1"),
    (1 << 60, (1 << 60) + 1),
    (fields_of(Body(prompt="x")), fields_of(Body(prompt="x", n=2))),
    (read_picture(encoded(png())), read_picture(encoded(png("green")))),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_these_are_the_same(one: object, other: object) -> None:
    """However they are written."""
    assert fingerprint_of("/x", one) == fingerprint_of("/x", other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_these_are_not(one: object, other: object) -> None:
    """However much they look alike."""
    assert fingerprint_of("/x", one) != fingerprint_of("/x", other)


def test_the_route_counts() -> None:
    """The same content elsewhere is another request."""
    assert fingerprint_of("/x", 1) != fingerprint_of("/y", 1)


def test_what_json_does_not_have_is_a_defect() -> None:
    """It is not passed over."""
    with pytest.raises(TypeError, match="object"):
        fingerprint_of("/x", object())


def test_a_fingerprint_of_an_earlier_release_fits_every_request() -> None:
    """It was made in another way: what was paid for is replayed all the same."""
    fingerprint = fingerprint_of("/x", 1)

    assert are_of_one_request(fingerprint, "0" * 64)
    assert not are_of_one_request(fingerprint, fingerprint_of("/x", 2))
