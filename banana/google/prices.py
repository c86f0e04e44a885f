"""What a call costs, by Google's count of its tokens, and what it may cost at the most before it is made.

Prices of tokens are Google's of its standard tier, from a table that is generated from genai-prices (`price_table`); tiers and
searches are factors and amounts beside it (https://ai.google.dev/gemini-api/docs/pricing).
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
    "gemini-nano-banana-2.1": {"1K": 1120, "2K": 1680, "4K": 3780},
    "gemini-3.1-flash-image": {"512": 747, "1K": 1120, "2K": 1680, "4K": 2520},
    "gemini-3.1-flash-lite-image": {"1K": 1120},
    "gemini-2.5-flash-image": {"1K": 1290},
}
# Of a model that is not in that list: the most of any that is.
OTHER_IMAGE_TOKENS = {
    size: max(sizes.get(size, 0) for sizes in IMAGE_TOKENS.values()) for size in ("512", "1K", "2K", "4K")
}
# What a service tier costs, times the standard one. One that is not known reserves the dearest, and costs the standard one.
TIERS = {"": Decimal(1), "flex": Decimal("0.5"), "priority": Decimal("1.8")}
# What a search of Google costs, in USD, whatever the tier; and how many a call that may search is taken to make.
SEARCH_USD = Decimal("0.014")
SEARCHES = 5
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
        """Return what a call cost in the standard tier, in USD.

        Where modalities are not said, all that was made beside thinking is taken for the dearest.
        """
        images, price = usage.output_images, self.image
        if images is None:
            images, price = max(0, usage.output - usage.thinking), max(self.image, self.text)
        made = images * price + (usage.output - images) * self.text
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

    def cost(self, model: str, usage: Usage, *, tier: str = "", searches: int = 0) -> Decimal | None:
        """Return what a call that took these tokens cost, in USD, by the tier that served it and the searches it made.

        None where the model's price is not known.
        """
        price = self.of(model)
        return price.cost(usage) * TIERS.get(tier, 1) + searches * SEARCH_USD if price else None

    def limit(self, model: str, basis: CostBasis) -> Decimal | None:
        """Return what a call of `model` may cost at the most, in USD; None where the model's price is not known."""
        price = self.of(model)
        if price is None:
            return None
        tokens = max(image_tokens(model, size) for size in basis.image_sizes or (None,))
        made = price.limit(tokens, basis.candidates, basis.text_bytes + basis.pictures * PICTURE_TOKENS)
        times = TIERS.get(basis.tier, max(TIERS.values()))
        return made * times + (SEARCHES * SEARCH_USD if basis.may_search else 0)

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


def nearest_size(model: str, size: str | None) -> str | None:
    """Return the size that a model makes which is nearest to `size`; `size` itself where its sizes are not known."""
    known, order = _known_sizes_of(model), tuple(OTHER_IMAGE_TOKENS)
    if not known or size in known or size not in order:
        return size
    return min(known, key=lambda name: (abs(order.index(name) - order.index(size)), -order.index(name)))


def image_tokens(model: str, image_size: str | None) -> int:
    """Return the tokens of one image; of a size that is not known, those of the largest."""
    sizes = sizes_of(model)
    return sizes.get(image_size or DEFAULT_SIZE, max(sizes.values()))
