"""The generated table."""

from decimal import Decimal

from banana.google.price_table import TABLE


def test_every_price_is_an_amount_of_usd() -> None:
    """Per million tokens; images are the dearest."""
    for image, text, given in TABLE.values():
        assert 1000 > Decimal(image) > Decimal(text) > Decimal(given) > 0
