"""What each image model can make: aspect ratios, sizes with their tokens, thinking levels, service tiers.

The one table of it, for every API format, the page and `/v1/models`. Google decides about what it names itself: the table fits
what is named in pixels or by a quality, and a request that goes to another model than it was written for.
Sources: https://ai.google.dev/gemini-api/docs/image-generation and https://ai.google.dev/gemini-api/docs/pricing
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
WIDE_RATIOS = (*RATIOS, "1:4", "4:1", "1:8", "8:1")
# The side of a square as large as the smallest image of each size: half way to the smaller size, by factors. 4K begins
# with what screens call by that name, 3840 x 2160 pixels.
SMALLEST_SIDES = {"512": 0, "1K": 724, "2K": 1448, "4K": 2880}
SIZES = tuple(SMALLEST_SIDES)
# Of all models.
THINKING_LEVELS = ("minimal", "low", "medium", "high")
# What a quality by name means, where nothing else says how large an image is to be: the first of these that a model makes.
QUALITY_SIZES = {"low": ("512",), "high": ("2K",), "hd": ("2K",), "xhigh": ("2K",), "max": ("4K", "2K")}


@dataclass(frozen=True, slots=True)
class ImageModel:
    """What a model can make.

    Attributes:
        image_tokens: the sizes it makes, each with the tokens of one image.
        aspect_ratios: as Google names them.
        thinking_levels: that it knows, the least first; none where it has no such setting.
        has_flex: whether it is known to take the service tier flex.

    """

    image_tokens: Mapping[str, int]
    aspect_ratios: Sequence[str] = RATIOS
    thinking_levels: Sequence[str] = ()
    has_flex: bool = False


IMAGE_MODELS = {
    "gemini-3-pro-image": ImageModel({"1K": 1120, "2K": 1120, "4K": 2000}, has_flex=True),
    "gemini-nano-banana-2.1": ImageModel(
        {"1K": 1120, "2K": 1680, "4K": 3780}, WIDE_RATIOS, ("minimal", "medium", "high")
    ),
    "gemini-3.1-flash-image": ImageModel(
        {"512": 747, "1K": 1120, "2K": 1680, "4K": 2520}, WIDE_RATIOS, ("minimal", "high")
    ),
    "gemini-3.1-flash-lite-image": ImageModel({"1K": 1120}, thinking_levels=("minimal", "high")),
    "gemini-2.5-flash-image": ImageModel({"1K": 1290}),
}


def image_model(name: str) -> ImageModel | None:
    """Return what a model can make, by its name or the longest beginning of it; None where that is not known."""
    known = [beginning for beginning in IMAGE_MODELS if name.startswith(beginning)]
    return IMAGE_MODELS[max(known, key=len)] if known else None


def nearest_size(model: str, size: str | None) -> str | None:
    """Return the size that a model makes which is nearest to `size`; `size` itself where its sizes are not known."""
    known = image_model(model)
    if known is None or size in known.image_tokens or size not in SIZES:
        return size
    return min(known.image_tokens, key=lambda name: (abs(SIZES.index(name) - SIZES.index(size)), -SIZES.index(name)))


def size_of_quality(model: str, quality: str | None) -> str | None:
    """Return the size that a quality by name means; None where that is the model's own, or its sizes are not known."""
    known = image_model(model)
    sizes = known.image_tokens if known else ()
    return next((size for size in QUALITY_SIZES.get(quality or "", ()) if size in sizes), None)


def shape_of(model: str, width: int, height: int) -> tuple[str, str]:
    """Return the aspect ratio and the size of a model's images that are nearest to so many pixels."""
    known = image_model(model)
    side = math.sqrt(width * height)
    # What is not known makes what all others do.
    wanted = [size for size in SIZES if side >= SMALLEST_SIDES[size] and (known or size != "512")] or ["1K"]
    ratios = known.aspect_ratios if known else RATIOS
    ratio = min(ratios, key=lambda ratio: abs(math.log(_value(ratio) * height / width)))
    return ratio, nearest_size(model, wanted[-1]) or wanted[-1]


def quality_of(model: str, width: int, height: int) -> str:
    """Return OpenAI's word for how large an image of so many pixels is: low, medium or high."""
    size = shape_of(model, width, height)[1]
    return {"512": "low", "1K": "medium"}.get(size, "high")


def _value(ratio: str) -> float:
    width, height = ratio.split(":")
    return int(width) / int(height)
