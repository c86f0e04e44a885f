"""What a call costs, by Google's count of its tokens, and what it may cost at the most before it is made.

Prices of tokens are Google's of its standard tier, from a table that is generated from genai-prices (`price_table`); tiers and
searches are factors and amounts beside it (https://ai.google.dev/gemini-api/docs/pricing).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from banana.google.capabilities import IMAGE_MODELS, SIZES, image_model
from banana.google.contents import CostBasis
from banana.google.price_table import TABLE
from banana.google.usage import Usage

# Of a model whose sizes are not known: the most of any that is known.
OTHER_IMAGE_TOKENS = {size: max(model.image_tokens.get(size, 0) for model in IMAGE_MODELS.values()) for size in SIZES}
# What a service tier costs, times the standard one. One that is not known reserves the dearest, and costs the standard one.
TIERS = {"": Decimal(1), "flex": Decimal("0.5"), "priority": Decimal("1.8")}
# What a search of Google costs, in USD, whatever the tier; and how many a call that may search is taken to make.
SEARCH_USD = Decimal("0.014")
SEARCHES = 5
# As Google makes an image when no size is named.
DEFAULT_SIZE = "1K"
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


def sizes_of(model: str) -> Mapping[str, int]:
    """Return the sizes that a model makes, each with its tokens."""
    known = image_model(model)
    return known.image_tokens if known else OTHER_IMAGE_TOKENS


def image_tokens(model: str, image_size: str | None) -> int:
    """Return the tokens of one image; of a size that is not known, those of the largest."""
    sizes = sizes_of(model)
    return sizes.get(image_size or DEFAULT_SIZE, max(sizes.values()))
