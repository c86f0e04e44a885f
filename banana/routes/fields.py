"""The fields that the bodies of several API formats share, as pydantic types.

Each of them takes a `LongString` as well as a string: a picture stays where it lies, however deep in the body.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from banana.google.models import is_model_name, without_gateway
from banana.payload.lazyjson import InvalidJson, LongString, text_of
from banana.payload.pictures import EncodedPicture, PictureError, read_input_picture
from banana.payload.pieces import head

MAX_PICTURES = 14
MAX_IMAGES = 10
MAX_URL_CHARACTERS = 4096
# A prompt; Gemini's image models read some 200 KB of text.
MAX_TEXT_BYTES = 1 << 20
# Google's tiers, of which OpenAI knows two by the same names.
ServiceTier = Annotated[
    Literal["auto", "default", "flex", "priority"] | None,
    Field(
        description="flex: half the price where the model has it, and minutes of waiting; priority: 1.8 times the price."
    ),
]
_DIGITS = re.compile(r"-?[0-9]{1,18}")


def _text(value: object) -> object:
    if isinstance(value, LongString) and value.size_bytes > MAX_TEXT_BYTES:
        raise ValueError(f"has more than {MAX_TEXT_BYTES} bytes")
    try:
        return text_of(value)
    except InvalidJson as error:
        raise ValueError(f"is not a JSON string: {error}") from None


def _integer(value: object) -> object:
    """Refuse what pydantic would read from a form beside plain digits: 1_0 would be ten paid images."""
    if isinstance(value, str) and not _DIGITS.fullmatch(value.strip()):
        raise ValueError("must be a whole number")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _model_name(value: object) -> object:
    if not isinstance(value, str | LongString):
        return value
    name = without_gateway(value) if isinstance(value, str) else ""
    if not is_model_name(name):
        raise ValueError("is not a valid model name")
    return name


def read_pictures(value: object) -> tuple[EncodedPicture | str, ...]:
    """Return one picture or a list of them, checked, or their addresses. Raises ValueError, which names which is wrong."""
    if value is None:
        return ()
    several = isinstance(value, list) and len(value) > 1
    given = value if isinstance(value, list) else [value]
    if len(given) > MAX_PICTURES:
        raise ValueError(f"has {len(given)} images; at most {MAX_PICTURES} are allowed")
    return tuple(
        _picture_or_address(item, f"image {number} " if several else "") for number, item in enumerate(given, 1)
    )


def read_picture(item: object, which: str = "") -> EncodedPicture:
    """Return one picture; `which` goes before what is wrong with it. Raises ValueError."""
    if not isinstance(item, str | LongString | EncodedPicture):
        raise ValueError(f"{which}must be a string: base64, a data URI or a link")
    try:
        return read_input_picture(item)
    except (PictureError, InvalidJson) as error:
        raise ValueError(f"{which}{error}") from None


def read_picture_or_address(value: object) -> EncodedPicture | str:
    """Return a picture, checked, or the address of one, which may stand in an object. Raises ValueError."""
    return _picture_or_address(value["url"] if isinstance(value, dict) and "url" in value else value)


def _picture_or_address(value: object, which: str = "") -> EncodedPicture | str:
    start = (
        head(value.pieces, 8)
        if isinstance(value, LongString)
        else value[:8].encode("utf-8", "replace")
        if isinstance(value, str)
        else b""
    )
    if start.lower().startswith((b"http://", b"https://")):
        address = read_text(value)
        if len(address) > MAX_URL_CHARACTERS:
            raise ValueError(f"{which}is a URL of more than {MAX_URL_CHARACTERS} characters")
        return address
    return read_picture(value, which)


def read_text(value: object) -> str:
    """Return a string's text. Raises ValueError."""
    text = _text(value)
    if not isinstance(text, str):
        raise ValueError("must be a string")
    return text


# In the OpenAPI document, a field that is there to be refused: what says nothing has many shapes.
REFUSED = WithJsonSchema({"description": "Not supported: a value returns an error."})


def refusal(problem: str) -> BeforeValidator:
    """Return what checks that a field says nothing; `problem` is what is wrong with anything else."""

    def check(value: object) -> None:
        if value not in (None, False, "none", "auto", [], {}):
            raise ValueError(problem)

    return BeforeValidator(check)


_PICTURE = {
    "type": "string",
    "description": "base64 (standard or URL-safe), a data URI, or a link of this service: PNG, JPEG, WebP, HEIC, HEIF",
}
_PICTURES = {"type": "array", "items": _PICTURE, "maxItems": MAX_PICTURES}

Text = Annotated[str, BeforeValidator(_text)]
ShortText = Annotated[str, StringConstraints(max_length=256), BeforeValidator(_text)]
Integer = Annotated[int, BeforeValidator(_integer)]
Prompt = Annotated[Text, AfterValidator(_not_blank)]
ModelName = Annotated[str, BeforeValidator(_model_name)]
Pictures = Annotated[
    tuple[Any, ...],
    BeforeValidator(read_pictures),
    WithJsonSchema({"anyOf": [_PICTURE, _PICTURES, {"type": "null"}]}),
]
