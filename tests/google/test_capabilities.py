"""What each model can make, and which of it is nearest to what is asked for."""

import pytest

from banana.google.capabilities import IMAGE_MODELS, SIZES, WIDE_RATIOS, nearest_size, quality_of, shape_of

PRO, NANO = "gemini-3-pro-image", "gemini-nano-banana-2.1"
FLASH, LITE = "gemini-3.1-flash-image", "gemini-3.1-flash-lite-image"
UNKNOWN = "gemini-from-tomorrow"


@pytest.mark.parametrize(
    ("model", "pixels", "shape"),
    [
        (PRO, "1024x1024", ("1:1", "1K")),
        (PRO, "1792x1024", ("16:9", "1K")),
        (PRO, "1536x1024", ("3:2", "1K")),
        (PRO, "1024x1536", ("2:3", "1K")),
        (PRO, "1536x1536", ("1:1", "2K")),
        (PRO, "2048x2048", ("1:1", "2K")),
        (PRO, "1664x2496", ("2:3", "2K")),
        (PRO, "3840x2160", ("16:9", "4K")),
        (PRO, "2160x3840", ("9:16", "4K")),
        (PRO, "4096x4096", ("1:1", "4K")),
        (PRO, "5504x3072", ("16:9", "4K")),
        (PRO, "6336x2688", ("21:9", "4K")),
        (PRO, "256x256", ("1:1", "1K")),
        (PRO, "2048x512", ("21:9", "1K")),
        (PRO, "256x1024", ("9:16", "1K")),
        (FLASH, "512x512", ("1:1", "512")),
        (FLASH, "640x640", ("1:1", "512")),
        (FLASH, "768x768", ("1:1", "1K")),
        (FLASH, "2048x512", ("4:1", "1K")),
        (FLASH, "3072x768", ("4:1", "2K")),
        (FLASH, "256x1024", ("1:4", "512")),
        (FLASH, "300x2400", ("1:8", "1K")),
        (NANO, "512x512", ("1:1", "1K")),
        (NANO, "4096x512", ("8:1", "2K")),
        (LITE, "2048x2048", ("1:1", "1K")),
        (LITE, "3840x2160", ("16:9", "1K")),
        ("gemini-2.5-flash-image", "4096x4096", ("1:1", "1K")),
        (f"{FLASH}-preview", "512x512", ("1:1", "512")),
        (UNKNOWN, "512x512", ("1:1", "1K")),
        (UNKNOWN, "3840x2160", ("16:9", "4K")),
        (UNKNOWN, "2048x512", ("21:9", "1K")),
    ],
)
def test_pixels_become_the_nearest_that_the_model_makes(model: str, pixels: str, shape: tuple[str, str]) -> None:
    """OpenAI names pixels, Google a ratio and a size; a model that is not known makes what all others do."""
    width, height = map(int, pixels.split("x"))

    assert shape_of(model, width, height) == shape


@pytest.mark.parametrize(
    ("model", "size", "nearest"),
    [(PRO, "512", "1K"), (LITE, "4K", "1K"), (FLASH, "512", "512"), (UNKNOWN, "4K", "4K"), (PRO, None, None)],
)
def test_the_nearest_size(model: str, size: str | None, nearest: str | None) -> None:
    """Of a model that is not known, the size itself."""
    assert nearest_size(model, size) == nearest


def test_the_table_has_googles_names() -> None:
    """Sizes, ratios and thinking levels of each model are among those of all."""
    for model in IMAGE_MODELS.values():
        assert set(model.image_tokens) <= set(SIZES)
        assert set(model.aspect_ratios) <= set(WIDE_RATIOS)


@pytest.mark.parametrize(
    ("model", "width", "height", "quality"),
    [(FLASH, 512, 512, "low"), (PRO, 1376, 768, "medium"), (PRO, 2752, 1536, "high"), (PRO, 5504, 3072, "high")],
)
def test_a_quality_says_how_large_an_image_is(model: str, width: int, height: int, quality: str) -> None:
    """OpenAI's three words."""
    assert quality_of(model, width, height) == quality
