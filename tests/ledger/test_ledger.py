"""The ledger's interface."""

import inspect

import pytest

from banana.ledger.ledger import Ledger, State
from banana.ledger.spend import SpendLedger
from banana.ledger.sqlite import SQLiteLedger
from banana.ledger.sqlite_spend import SQLiteSpend


@pytest.mark.parametrize("state", State)
def test_what_is_begun_or_sent_is_active(state: State) -> None:
    """Nothing else."""
    assert state.is_active is (state in ("begun", "sent"))


def test_sqlite_has_the_whole_interface() -> None:
    """With the same parameters, so that another engine can take its place."""
    interfaces: list[tuple[type, type]] = [(SQLiteLedger, Ledger), (SQLiteSpend, SpendLedger)]
    for engine, interface in interfaces:
        methods = inspect.getmembers(interface, inspect.isfunction)
        for name, method in methods:
            if not name.startswith("_"):
                assert inspect.signature(getattr(engine, name)).parameters == inspect.signature(method).parameters, name
        assert len(methods) > 8
