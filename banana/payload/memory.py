"""How many bytes of bodies and responses a worker may hold."""

from banana import errors
from banana.exchange import Exchange


class Buffers:
    """The bytes of bodies and responses that a worker holds, at most `max_bytes` before it takes no new request.

    What has begun goes on: a response that was paid for is never refused room.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.held_bytes = 0

    def check(self, size_bytes: int) -> None:
        """Return when there is room for `size_bytes` more. Raises Overloaded."""
        if self.held_bytes + size_bytes > self._max_bytes:
            raise errors.Overloaded(
                f"This service holds {self.held_bytes} bytes of other requests, and takes none that makes them more than"
                f" {self._max_bytes} (MAX_BUFFERED_BYTES). Nothing was sent to Google. Try again later.",
                retry_after_seconds=errors.RETRY_AFTER_SECONDS,
            )

    def reserve(self, exchange: Exchange, size_bytes: int) -> None:
        """Hold `size_bytes` more of a body that arrives. Raises Overloaded when there is no room."""
        self.check(size_bytes)
        self.hold(exchange, size_bytes)

    def hold(self, exchange: Exchange, size_bytes: int) -> None:
        """Hold `size_bytes` more of a response, whatever there is already."""
        exchange.held_bytes += size_bytes
        self.held_bytes += size_bytes

    def hand_over(self, exchange: Exchange, other: Exchange) -> None:
        """Hold for `other` what is held for `exchange`."""
        other.held_bytes += exchange.held_bytes
        exchange.held_bytes = 0

    def release(self, exchange: Exchange) -> None:
        """Hold nothing more for a request that has ended."""
        self.held_bytes -= exchange.held_bytes
        exchange.held_bytes = 0
