"""Amounts of USD: exact in Decimal, in whole nanodollars where they are recorded, with six places where people read them."""

from decimal import ROUND_CEILING, Decimal

NANODOLLARS = 1_000_000_000
# What is recorded of one amount at the most, a million USD: sums of them fit into 64 bits.
MAX_NANODOLLARS = 10**15


def nanodollars(amount: Decimal) -> int:
    """Return an amount of USD in whole nanodollars, rounded up, at most a million USD."""
    return min(MAX_NANODOLLARS, int((amount * NANODOLLARS).to_integral_value(ROUND_CEILING)))


def usd(amount: int) -> Decimal:
    """Return an amount of nanodollars in USD."""
    return Decimal(amount) / NANODOLLARS


def written(amount: Decimal) -> str:
    """Return an amount of USD as headers have it: with six places."""
    return f"{amount:.6f}"


def rounded(amount: Decimal) -> float:
    """Return an amount of USD as JSON and the log have it: a number, to the millionth."""
    return float(round(amount, 6))
