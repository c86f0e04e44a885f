"""Pictures in another format."""

from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from banana.payload.conversion import FORMATS, convert
from banana.payload.pictures import EncodedPicture, read_picture, type_of
from tests.pictures import encoded, opened, png


def picture(data: bytes) -> EncodedPicture:
    return read_picture(encoded(data))


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_picture_is_converted(output_format: str) -> None:
    """The result opens, has the same size, and says its type."""
    converted = convert(picture(png(size=(40, 30))), output_format, 80)

    image = opened(b"".join(converted.decoded()))
    assert (image.format, image.size) == (output_format.upper(), (40, 30))
    assert converted.mime_type == type_of(converted.start) == FORMATS[output_format]


def test_quality_is_heeded() -> None:
    """A low quality makes a smaller file."""
    noise = Image.effect_noise((200, 200), 80)
    noise.save("noise.png")
    data = Path("noise.png").read_bytes()

    assert convert(picture(data), "jpeg", 10).size_bytes < convert(picture(data), "jpeg", 90).size_bytes


def test_what_is_no_picture_raises() -> None:
    """The caller of this decides what becomes of it."""
    with pytest.raises(UnidentifiedImageError):
        convert(picture(b"nothing of the kind"), "png", 90)
