"""The demo's pictures."""

import pytest
from PIL import ImageChops, ImageStat

from standin.drawing import draw, draw_base64, nearest_ratio, size_of
from tests.pictures import opened, png


@pytest.mark.parametrize(
    ("ratio", "size", "pixels"),
    [
        ("1:1", "1K", (1024, 1024)),
        ("16:9", "1K", (1360, 768)),
        ("1:8", "512", (176, 1456)),
        ("1:1", "4K", (4096, 4096)),
    ],
)
def test_a_ratio_and_a_size_are_pixels(ratio: str, size: str, pixels: tuple[int, int]) -> None:
    """The area is a square's, and sides are multiples of 16."""
    assert size_of(ratio, size) == pixels


def test_a_picture_is_a_jpeg_of_its_size() -> None:
    """Whatever the prompt, also in letters that the font has not."""
    assert (opened(draw("香蕉", "16:9", "512")).format, opened(draw("香蕉", "16:9", "512")).size) == (
        "JPEG",
        (688, 384),
    )


def test_pictures_differ_with_what_they_are_made_from() -> None:
    """Another prompt, another source, another variant is another picture; the same again is the same."""
    pictures = {
        draw("a", "1:1", "512"),
        draw("b", "1:1", "512"),
        draw("a", "1:1", "512", (png(),)),
        draw("a", "1:1", "512", variant=1),
        draw("a", "1:1", "512"),
    }

    assert len(pictures) == 4


def brightness(picture: bytes) -> float:
    return float(ImageStat.Stat(opened(picture).convert("L")).mean[0])


@pytest.mark.parametrize("source", [draw("a lake at noon", "16:9", "512"), png("skyblue", (64, 36))])
def test_an_edit_follows_its_words(source: bytes) -> None:
    """What was bright is dark at night: a scene of the demo's own, and a picture that came from elsewhere."""
    night = draw("Make it night", "16:9", "512", (source,))

    assert brightness(night) < brightness(source) / 2


@pytest.mark.parametrize(
    "words", ["a lighthouse in a forest at night", "夜晚海边的灯塔", "a city in the snow, two moons"]
)
@pytest.mark.parametrize("ratio", ["1:8", "8:1", "1:1"])
def test_words_are_drawn_in_every_shape(words: str, ratio: str) -> None:
    """In both languages."""
    assert draw(words, ratio, "512") != draw("sand", ratio, "512")


def test_an_edit_of_an_edit_is_the_same_place() -> None:
    """The lie of the land stays: back in daylight it is nearly what it was."""
    noon = draw("a lake at noon", "16:9", "512")
    night = draw("make it night", "16:9", "512", (noon,))
    again = draw("a bright noon", "16:9", "512", (night,))
    difference = ImageChops.difference(opened(noon), opened(again)).convert("L")

    assert ImageStat.Stat(difference).mean[0] < 6


def test_the_nearest_ratio_is_the_shape_of_a_picture() -> None:
    """None of what is no picture."""
    assert nearest_ratio(png(size=(160, 90)), ("1:1", "16:9", "9:16")) == "16:9"
    assert nearest_ratio(b"no picture", ("1:1",)) is None


def test_a_source_that_cannot_be_opened_is_drawn_grey() -> None:
    """HEIC is taken, and Pillow does not open it."""
    assert opened(draw_base64("a", "1:1", "512", [b"no picture"])).size == (512, 512)
