"""How much a key may spend in ten minutes."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from banana import errors
from banana.google.key_spend import LimitedKeySpend, UnlimitedKeySpend
from banana.ledger.leases import Beat
from banana.ledger.sqlite import SQLiteLedger
from banana.ledger.thread import LedgerThread

pytestmark = pytest.mark.anyio
LIMIT = Decimal("0.5")


@pytest.fixture
async def ledger() -> AsyncIterator[LedgerThread]:
    thread = LedgerThread(SQLiteLedger(Path("ledger.db")))
    yield thread
    await thread.close()


def costs(amount: str) -> Decimal:
    return Decimal(amount)


async def test_a_key_has_room_until_it_has_spent_what_it_may(ledger: LedgerThread) -> None:
    """Then it is said when there is room again; what was not spent is room at once."""
    spend = LimitedKeySpend(LIMIT, ledger, Beat(ledger, "w"), "w")
    first, second = [await spend.take("k", lambda: costs("0.2")) for _ in range(2)]

    with pytest.raises(errors.KeySpent, match=r"KEY_SPEND_PER_10_MINUTES=0\.5 USD") as caught:
        await spend.take("k", lambda: costs("0.2"))
    assert 0 < (caught.value.retry_after_seconds or 0) <= 600
    assert await spend.take("other", lambda: costs("0.2"))
    spend.settle(first, costs("0.1"))
    spend.settle(second, Decimal(0))
    await spend.close()
    assert await spend.take("k", lambda: costs("0.4"))


async def test_a_call_that_never_fits_is_refused_for_good(ledger: LedgerThread) -> None:
    """Waiting would not help."""
    with pytest.raises(errors.KeySpent, match="more than KEY_SPEND_PER_10_MINUTES") as caught:
        await LimitedKeySpend(LIMIT, ledger, Beat(ledger, "w"), "w").take("k", lambda: costs("0.6"))

    assert caught.value.per_day


async def test_a_call_without_a_price_counts_as_nothing(ledger: LedgerThread) -> None:
    """And is logged once."""
    spend = LimitedKeySpend(LIMIT, ledger, Beat(ledger, "w"), "w")

    with capture_logs() as lines:
        assert [await spend.take("k", lambda: None) for _ in range(2)] == [None, None]
        spend.settle(None, Decimal(0))

    assert [line["event"] for line in lines] == ["price_unknown"]


async def test_a_ledger_that_cannot_be_used_lets_calls_pass() -> None:
    """Google's own limit holds then; what cannot be settled is settled by another worker."""
    Path("folder").write_text("no folder")
    broken = LedgerThread(SQLiteLedger(Path("folder/ledger.db")))
    spend = LimitedKeySpend(LIMIT, broken, Beat(broken, "w"), "w")

    assert await spend.take("k", lambda: costs("0.2")) is None
    spend.settle("id", Decimal(1))
    await spend.close()
    assert broken.fails
    await broken.close()


async def test_without_a_limit_nothing_is_counted() -> None:
    """Whatever a call may cost."""
    spend = UnlimitedKeySpend()

    assert await spend.take("k", lambda: costs("1000")) is None
    spend.settle(None, Decimal(5))
    await spend.close()
