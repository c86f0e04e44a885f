"""What a call costs, by Google's count of its tokens, and what it may cost at the most before it is made.

Prices are Google's of its standard tier, from a table that is generated from genai-prices (`price_table`). Searches of Google
that a model makes are billed apart, and are not in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from banana.google.contents import CostBasis
from banana.google.price_table import TABLE
from banana.google.usage import Usage

# Tokens of one image by its size; Google's price list names them (https://ai.google.dev/gemini-api/docs/pricing).
IMAGE_TOKENS = {
    "gemini-3-pro-image": {"1K": 1120, "2K": 1120, "4K": 2000},
    "gemini-nano-banana-2.1": {"1K": 1120, "2K": 1680, "4K": 2520},
    "gemini-3.1-flash-image": {"512": 747, "1K": 1120, "2K": 1680, "4K": 2520},
    "gemini-3.1-flash-lite-image": {"1K": 1120},
    "gemini-2.5-flash-image": {"1K": 1290},
}
# Of a model that is not in that list.
OTHER_IMAGE_TOKENS = {"512": 747, "1K": 1120, "2K": 1680, "4K": 2520}
# As Google makes an image when no size is named.
DEFAULT_SIZE = "1K"
# What a quality by name means, where nothing else says how large an image is to be: the first of these that a model makes.
QUALITY_SIZES = {"low": ("512",), "high": ("2K",), "hd": ("2K",), "xhigh": ("2K",), "max": ("4K", "2K")}
# For the most that a call may cost. Thinking usually takes some hundred tokens; drafts of images are not billed.
THINKING_TOKENS = 4096
# A picture in its highest resolution (https://ai.google.dev/gemini-api/docs/media-resolution).
PICTURE_TOKENS = 2240
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """The price of a model, in USD per million tokens: of images made, of text made and thinking, of input."""

    image: Decimal
    text: Decimal
    input: Decimal

    def cost(self, usage: Usage) -> Decimal:
        """Return what a call cost, in USD. Where modalities are not said, all that was made is taken for the dearest."""
        if usage.output_images is None:
            made = usage.output * max(self.image, self.text)
        else:
            made = usage.output_images * self.image + (usage.output - usage.output_images) * self.text
        return (usage.input * self.input + made) / MILLION

    def limit(self, image_tokens: int, candidates: int, input_tokens: int) -> Decimal:
        """Return what a call may cost at the most, in USD, with the thinking that is usual."""
        made = image_tokens * self.image + THINKING_TOKENS * self.text
        return (candidates * made + input_tokens * self.input) / MILLION


class Prices:
    """The prices of all models; `overrides` go before the table. A model without a price is unknown: never free."""

    def __init__(self, overrides: Mapping[str, ModelPrice] | None = None) -> None:
        table = {name: ModelPrice(*map(Decimal, prices)) for name, prices in TABLE.items()}
        self._exact = {name: price for name, price in table.items() if not name.endswith("*")} | dict(overrides or {})
        self._by_beginning = {name[:-1]: price for name, price in table.items() if name.endswith("*")}

    def of(self, model: str) -> ModelPrice | None:
        """Return the price of a model; None where it is not known."""
        if model in self._exact:
            return self._exact[model]
        return next((price for start, price in self._by_beginning.items() if model.startswith(start)), None)

    def cost(self, model: str, usage: Usage) -> Decimal | None:
        """Return what a call that took these tokens cost, in USD; None where the model's price is not known."""
        price = self.of(model)
        return price.cost(usage) if price else None

    def limit(self, model: str, basis: CostBasis) -> Decimal | None:
        """Return what a call of `model` may cost at the most, in USD; None where the model's price is not known."""
        price = self.of(model)
        if price is None:
            return None
        tokens = max(image_tokens(model, size) for size in basis.image_sizes or (None,))
        return price.limit(tokens, basis.candidates, basis.text_bytes + basis.pictures * PICTURE_TOKENS)

    def by_size(self, model: str) -> dict[str, Decimal]:
        """Return what one image costs, in USD by its size, beside input and thinking; nothing where that is not known."""
        price = self.of(model)
        return {size: tokens * price.image / MILLION for size, tokens in sizes_of(model).items()} if price else {}


def sizes_of(model: str) -> dict[str, int]:
    """Return the sizes that a model makes, each with its tokens."""
    return _known_sizes_of(model) or OTHER_IMAGE_TOKENS


def size_of_quality(model: str, quality: str | None) -> str | None:
    """Return the size that a quality by name means; None where that is the model's own, or its sizes are not known."""
    known = _known_sizes_of(model)
    return next((size for size in QUALITY_SIZES.get(quality or "", ()) if size in known), None)


def _known_sizes_of(model: str) -> dict[str, int]:
    known = (name for name in IMAGE_TOKENS if model.startswith(name))
    return IMAGE_TOKENS.get(max(known, key=len, default=""), {})


def image_tokens(model: str, image_size: str | None) -> int:
    """Return the tokens of one image; of a size that is not known, those of the largest."""
    sizes = sizes_of(model)
    return sizes.get(image_size or DEFAULT_SIZE, max(sizes.values()))
