"""The demo's pictures."""

import pytest

from standin.drawing import draw, draw_base64, size_of
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
    """Another prompt or another source is another picture; the same again is the same."""
    pictures = {
        draw("a", "1:1", "512"),
        draw("b", "1:1", "512"),
        draw("a", "1:1", "512", (png(),)),
        draw("a", "1:1", "512"),
    }

    assert len(pictures) == 3


def test_a_source_that_cannot_be_opened_is_drawn_grey() -> None:
    """HEIC is taken, and Pillow does not open it."""
    assert opened(draw_base64("a", "1:1", "512", [b"no picture"])).size == (512, 512)
