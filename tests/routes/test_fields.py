"""The fields that bodies share."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from banana.payload.lazyjson import LazyJsonParser, LongString
from banana.payload.pictures import EncodedPicture
from banana.routes.fields import MAX_PICTURES, ModelName, Pictures, Prompt, Text, read_pictures
from tests.pictures import encoded, png


def long_string(text: str) -> LongString:
    parser = LazyJsonParser()
    parser.feed(json.dumps(text).encode())
    value = parser.close()
    assert isinstance(value, LongString)
    return value


def complaint(field: Any, value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(field).validate_python(value, strict=True)
    return str(caught.value.errors()[0]["msg"])


@pytest.mark.parametrize("field", [Text, Prompt])
def test_a_long_string_is_a_string(field: Any) -> None:
    """Every text may be as long as it likes."""
    assert TypeAdapter(field).validate_python(long_string("é" * 3000), strict=True) == "é" * 3000


def test_a_blank_prompt_is_none() -> None:
    """Short or long, white space shows nothing."""
    assert "is blank" in complaint(Prompt, " \n")
    assert "is blank" in complaint(Prompt, long_string(" " * 3000))


@pytest.mark.parametrize("value", ["", "a/b", "models/", "x y", long_string("m" * 3000)])
def test_what_cannot_be_a_models_name(value: object) -> None:
    """The complaint is the same however long it is."""
    assert "is not the name of a model" in complaint(ModelName, value)


def test_googles_prefix_is_taken_off() -> None:
    """`models/x` is x."""
    assert TypeAdapter(ModelName).validate_python("models/x", strict=True) == "x"


@pytest.mark.parametrize("given", [None, []])
def test_no_pictures(given: object) -> None:
    """Null and an empty list are none."""
    assert TypeAdapter(Pictures).validate_python(given) == ()


def test_one_picture_or_several_in_each_shape() -> None:
    """A string, a long string, and a file that came in a form."""
    file = EncodedPicture("image/png", [b"QUJD"], b"ABC")
    long = encoded(png() + bytes(3000))

    pictures = read_pictures([encoded(png()), long_string(long), file])

    assert [b"".join(picture.pieces).decode() for picture in pictures] == [encoded(png()), long, "QUJD"]


def test_the_wrong_one_of_several_is_named() -> None:
    """Counted from 1, as people count; too many are counted too."""
    with pytest.raises(ValueError, match="picture 2 is not base64"):
        read_pictures([encoded(png()), "?"])
    with pytest.raises(ValueError, match="holds 15 pictures; at most 14"):
        read_pictures([encoded(png())] * (MAX_PICTURES + 1))
