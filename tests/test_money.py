"""Amounts of USD."""

from decimal import Decimal

import pytest

from banana.money import nanodollars, rounded, usd, written


@pytest.mark.parametrize(
    ("amount", "nanos"), [("0", 0), ("0.137116", 137_116_000), ("0.0000000001", 1), ("1000000", 10**15)]
)
def test_nanodollars_are_rounded_up(amount: str, nanos: int) -> None:
    """Nothing that costs something counts as nothing."""
    assert nanodollars(Decimal(amount)) == nanos


def test_an_amount_is_written_with_six_places() -> None:
    """In headers with all of them, in JSON as a number."""
    assert written(Decimal("0.13")) == "0.130000"
    assert rounded(Decimal("0.1371161")) == 0.137116
    assert usd(137_116_000) == Decimal("0.137116")
