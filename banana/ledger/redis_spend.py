"""What was spent and is reserved, in the ledger's Redis or Valkey; days and windows are by that server's clock."""

from collections.abc import Collection, Mapping

from banana.ledger.server import LedgerServer, batches
from banana.ledger.spend import Spent, Window, first_day_of_month, first_day_of_week


class RedisSpend:
    """A `SpendLedger` in a ledger's server."""

    def __init__(self, server: LedgerServer) -> None:
        self._server = server

    def reserve(self, reservation_id: str, owner: str, caller: str, amount: int, limit: int, window: Window) -> bool:
        """Reserve `amount` of a caller's budget; return whether it fits into what is left of `limit`."""
        return bool(self._server.change("reserve", reservation_id, owner, caller, amount, limit, window))

    def settle(self, reservation_id: str, amount: int) -> None:
        """Give a reservation back, and count `amount` as spent on the day it was reserved; once, however often it is said."""
        self._server.change("settle_reservation", reservation_id, amount)

    def add(self, spent: Collection[tuple[str, int, int]]) -> None:
        """Count what was spent without a reservation: caller, day, amount."""
        for some in batches(spent):
            self._server.change("add", *(value for row in some for value in row))

    def spent(self, caller: str) -> Spent:
        """Return what a caller has spent."""
        today, spent, reserved = self._server.look("spent", caller)
        by_day, reserved_by_day = _by_day(spent), _by_day(reserved)
        week, month = first_day_of_week(today), first_day_of_month(today)
        return Spent(
            ever=sum(by_day.values()),
            day=_since(by_day, today),
            week=_since(by_day, week),
            month=_since(by_day, month),
            reserved_day=_since(reserved_by_day, today),
            reserved_month=_since(reserved_by_day, month),
        )

    def take_room(self, room_id: str, owner: str, key: str, amount: int, limit: int) -> float:
        """Take `amount` of what a key may spend in a window; return 0, or the seconds until there is room."""
        return float(self._server.change("take_room", room_id, owner, key, amount, limit))

    def settle_room(self, room_id: str, amount: int) -> None:
        """Count `amount` as spent with the key instead; from now on it leaves the window."""
        self._server.change("settle_room", room_id, amount)

    def owners(self) -> set[str]:
        """Return the owners of what is reserved."""
        return {owner.decode() for owner in self._server.look("spenders")}

    def lapse(self, owner: str) -> int:
        """Settle what an owner reserved and did not live to settle; return how many reservations that were."""
        return int(self._server.change("lapse", owner))

    def sweep(self) -> None:
        """Return: what is in no window any more is forgotten as its caller or its key spends."""


def _by_day(found: list[bytes]) -> Mapping[int, int]:
    return {int(day): int(amount) for day, amount in zip(found[::2], found[1::2], strict=True)}


def _since(by_day: Mapping[int, int], first_day: int) -> int:
    return sum(amount for day, amount in by_day.items() if day >= first_day)
