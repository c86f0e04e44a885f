"""The fields that bodies share."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from banana.payload.lazyjson import LazyJsonParser, LongString
from banana.payload.pictures import EncodedPicture
from banana.routes.fields import MAX_PICTURES, Integer, ModelName, Pictures, Prompt, ShortText, Text, read_pictures
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
    assert TypeAdapter(field).validate_python(long_string("é" * 5000), strict=True) == "é" * 5000


def test_a_blank_prompt_is_none() -> None:
    """Short or long, white space shows nothing."""
    assert "must not be blank" in complaint(Prompt, " \n")
    assert "must not be blank" in complaint(Prompt, long_string(" " * 5000))


@pytest.mark.parametrize("value", ["", "a/b", "models/", "x y", long_string("m" * 5000)])
def test_what_cannot_be_a_models_name(value: object) -> None:
    """The complaint is the same however long it is."""
    assert "is not a valid model name" in complaint(ModelName, value)


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

    found = [b"".join(picture.pieces).decode() for picture in pictures if isinstance(picture, EncodedPicture)]
    assert found == [encoded(png()), long, "QUJD"]


def test_an_address_of_a_picture_stays_one() -> None:
    """What it leads to is found out when the request is served."""
    assert read_pictures(["https://a.example/b.png", "HTTP://c"]) == ("https://a.example/b.png", "HTTP://c")


def test_the_wrong_one_of_several_is_named() -> None:
    """Counted from 1, as people count; too many are counted too."""
    with pytest.raises(ValueError, match="image 2 is not base64"):
        read_pictures([encoded(png()), "?"])
    with pytest.raises(ValueError, match="has 15 images; at most 14"):
        read_pictures([encoded(png())] * (MAX_PICTURES + 1))


@pytest.mark.parametrize(("given", "number"), [("3", 3), (" 3 ", 3), ("-3", -3), ("03", 3)])
def test_a_number_in_a_form_is_its_digits(given: str, number: int) -> None:
    """As people write them."""
    assert TypeAdapter(Integer).validate_python(given) == number


@pytest.mark.parametrize("given", ["1_0", "+2", "1.0", "1e1", "0x2", "", "--5", "二", "9" * 5000])
def test_what_pydantic_would_read_as_a_number_is_none(given: str) -> None:
    """1_0 would be ten paid images."""
    with pytest.raises(ValidationError, match="must be a whole number"):
        TypeAdapter(Integer).validate_python(given)


def test_in_json_a_string_is_no_number() -> None:
    """JSON has numbers of its own."""
    assert "valid integer" in complaint(Integer, "3")


def test_a_short_text_says_how_long_it_may_be() -> None:
    """In characters, however long the string is."""
    assert "at most 256 characters" in complaint(ShortText, "u" * 300)
    assert "at most 256 characters" in complaint(ShortText, long_string("u" * 5000))
