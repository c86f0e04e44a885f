"""What calls cost: against genai-prices, from which the table is made."""

import random
import runpy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import extract_usage
from genai_prices.data import providers

from banana.google.capabilities import IMAGE_MODELS
from banana.google.contents import CostBasis
from banana.google.price_table import TABLE
from banana.google.prices import ModelPrice, Prices
from banana.google.usage import Usage

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts/prices.py"))
(GOOGLE,) = (provider for provider in providers if provider.id == "google")
# Each name that genai-prices knows of a model that makes images; of a beginning, two that begin so.
MODELS = [name for name in TABLE if not name.endswith("*")] + [
    name[:-1] + end for name in TABLE if name.endswith("*") for end in ("", "-01-2027")
]


def test_the_table_is_that_of_genai_prices() -> None:
    """When this fails, run scripts/prices.py: prices have changed."""
    assert SCRIPT["module"]() == (ROOT / "banana/google/price_table.py").read_text(encoding="utf-8")


def test_the_readmes_tables_are_made_from_it() -> None:
    """Both of them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert SCRIPT["readme"](text) == text
    assert text.count("| `gemini-3-pro-image` | 2 | 12 | 120 |") == 2


def usages() -> list[dict[str, Any]]:
    """What Google says, with modalities; drawn, but the same each time."""
    draw = random.Random(13)
    found = []
    for _ in range(40):
        image, text, thinking, prompt = (draw.randrange(0, 5000) for _ in range(4))
        found.append(
            {
                "promptTokenCount": prompt,
                "candidatesTokenCount": image + text,
                "thoughtsTokenCount": thinking,
                "totalTokenCount": prompt + image + text + thinking,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": image}],
            }
        )
    return found


@pytest.mark.parametrize("model", MODELS)
def test_a_cost_is_what_genai_prices_computes(model: str) -> None:
    """To the last digit, from the same usage, for every model it knows."""
    for usage in usages():
        extracted = extract_usage({"modelVersion": model, "usageMetadata": usage}, provider_id="google")

        assert Prices().cost(model, Usage.of(usage)) == extracted.calc_price().total_price


def test_a_picture_of_the_pro_model() -> None:
    """1120 tokens of image, 225 of thinking, 10 of prompt."""
    details = [{"modality": "IMAGE", "tokenCount": 1120}]
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 1120, "thoughtsTokenCount": 225}

    assert Prices().cost("gemini-3-pro-image", Usage.of(usage | {"candidatesTokensDetails": details})) == Decimal(
        "0.13712"
    )


def test_without_modalities_all_that_was_made_is_the_dearest() -> None:
    """An image is not taken for text."""
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 1120, "thoughtsTokenCount": 10}

    assert Prices().cost("gemini-3-pro-image", Usage.of(usage)) == Decimal("0.13454")


def test_a_model_without_a_price_is_unknown() -> None:
    """Never free."""
    prices = Prices()

    assert prices.of("gemini-4-image") is None
    assert prices.cost("gemini-4-image", Usage.of({"promptTokenCount": 1})) is None
    assert prices.limit("gemini-4-image", CostBasis(("1K",))) is None
    assert prices.by_size("gemini-4-image") == {}


def test_prices_of_ones_own_go_before_the_table() -> None:
    """Also for a model that the table does not know."""
    own = ModelPrice(Decimal(1), Decimal(2), Decimal(3))
    prices = Prices({"gemini-3-pro-image": own, "new": own})

    assert prices.of("gemini-3-pro-image") is prices.of("new") is own
    assert prices.of("gemini-nano-banana-2.1") != own


@pytest.mark.parametrize(
    ("model", "size", "most"),
    [("gemini-3-pro-image", "1K", "0.31"), ("gemini-3-pro-image", None, "0.31"), ("gemini-3-pro-image", "4K", "0.42"),
     ("gemini-nano-banana-2.1", "4K", "0.15"), ("gemini-3.1-flash-lite-image", None, "0.05")],
)  # fmt: skip
def test_the_most_a_call_may_cost(model: str, size: str | None, most: str) -> None:
    """Above what it costs, and not by far: a budget is to be usable."""
    limit = Prices().limit(model, CostBasis((size,) if size else (), text_bytes=100, pictures=1))

    assert limit is not None
    assert Prices().by_size(model)[size or "1K"] < limit < Decimal(most)


def test_a_size_that_is_not_known_is_the_largest() -> None:
    """What a caller writes there reserves no less, and of two sizes the dearer one counts."""
    prices = Prices()
    largest = prices.limit("gemini-3-pro-image", CostBasis(("4K",)))

    assert prices.limit("gemini-3-pro-image", CostBasis(("8K",))) == largest
    assert prices.limit("gemini-3-pro-image", CostBasis(("4K", "1K"))) == largest


def test_every_model_with_sizes_has_a_price() -> None:
    """The page and the README show them."""
    assert all(Prices().by_size(model) for model in IMAGE_MODELS)


@pytest.mark.parametrize(
    ("model", "usd"),
    [("gemini-3-pro-image", {"1K": "0.134", "2K": "0.134", "4K": "0.24"}),
     ("gemini-nano-banana-2.1", {"1K": "0.0336", "2K": "0.0504", "4K": "0.1134"})],
)  # fmt: skip
def test_an_image_costs_what_googles_list_says(model: str, usd: dict[str, str]) -> None:
    """Google lists USD an image; tokens times the price of a token must come to the same, to its last digit."""
    for size, listed in usd.items():
        assert round(Prices().by_size(model)[size], len(listed) - 2) == Decimal(listed)
