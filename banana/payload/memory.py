"""How the process keeps memory: how much of bodies and responses it may hold, and what becomes of the pages that held them.

Pages are used again instead of being given back and faulted in anew, until a storm is over.
"""

import asyncio
import ctypes

from banana import errors
from banana.exchange import Exchange

# mallopt's names for its settings, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEEP_BYTES = 1 << 30
_GROW_BYTES = 16 << 20
# The largest that glibc takes: a read of 256 KiB is otherwise a mapping of its own, made and cleared each time.
_HEAP_BYTES = 32 << 20
# When pages are given back: this long after less was held, and when it is worth it. A trim takes 0.1 s for a gigabyte.
TRIM_SECONDS = 15
TRIM_BYTES = 64 << 20


class Buffers:
    """The bytes of bodies and responses that a worker holds, at most `max_bytes` before it takes no new request.

    What has begun goes on: a response that was paid for is never refused room.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.held_bytes = 0
        self.peak_bytes = 0  # as `trim_when_quiet` last looked, and since

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
        # Most is held at an end: nothing is given back before.
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        self.held_bytes -= exchange.held_bytes
        exchange.held_bytes = 0

    async def trim_when_quiet(self) -> None:
        """Give freed pages back to the system whenever much less is held than before; runs until it is cancelled."""
        peak_bytes = 0  # since the last trim
        while True:
            self.peak_bytes = self.held_bytes
            await asyncio.sleep(TRIM_SECONDS)
            peak_bytes = max(peak_bytes, self.peak_bytes)
            recent_bytes = max(self.peak_bytes, self.held_bytes)
            if peak_bytes - recent_bytes > TRIM_BYTES:
                await asyncio.to_thread(_trim)
                peak_bytes = recent_bytes


def _trim() -> None:
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def keep_pages() -> None:
    """Configure glibc's allocator to keep what is freed; elsewhere nothing happens.

    The megabytes of a picture pass in reads of 256 KiB. Giving each back to the kernel cost a third of a request's
    processor time in page faults (3.9 ms against 2.7, 1.4 MB, 16 callers). What is kept is the peak that was needed anyway.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_TRIM_THRESHOLD, _KEEP_BYTES)
    mallopt(_TOP_PAD, _GROW_BYTES)
    mallopt(_MMAP_THRESHOLD, _HEAP_BYTES)
