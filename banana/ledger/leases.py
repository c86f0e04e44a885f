"""Which owners have died: those whose beat has stood still for a lease, by this worker's own clock.

No clock of the machine is compared with another, nor believed.
"""

import time
from collections.abc import Callable, Mapping

# Longer than a worker is ever kept from its event loop; what it settles later than this is believed all the same.
LEASE_SECONDS = 8


class Leases:
    """Of things that have an owner. `clock` is in seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # What each thing's owner last showed, and since when.
        self._shown: dict[str, tuple[object, float]] = {}

    def lapsed(self, shown: Mapping[str, object]) -> set[str]:
        """Return the things whose owner has shown the same for a lease; `shown` are all there are, and what each shows."""
        now = self._clock()
        before, self._shown = self._shown, {}
        for thing, beat in shown.items():
            last = before.get(thing)
            self._shown[thing] = last if last is not None and last[0] == beat else (beat, now)
        return {thing for thing, (_, since) in self._shown.items() if now - since >= LEASE_SECONDS}
