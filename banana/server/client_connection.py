"""A caller's connection, which ends well: no response is lost by closing it, and none is held for a caller who never reads.

A transport around the server's own. Closing while the caller still sends would reset the connection and take the response
with it (RFC 9112, section 9.6); a caller who does not read would keep what it is sent in memory for ever.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from banana.payload.pieces import Bytes

# How often unsent bytes are looked at while a caller does not read, as a part of the seconds it may take.
_CHECKS = 10
# struct linger: on, for no seconds (socket(7)).
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Linger:
    """How long, and how much, is still read from a caller whose response is complete and whose request is not."""

    seconds: float = 5
    max_bytes: int = 8 << 20


class CallerTransport(asyncio.Transport):
    """The transport of a caller's connection.

    Args:
        transport: of the event loop.
        loop: which it belongs to.
        idle_seconds: after this long without one sent byte, while some wait, the connection is aborted.
        linger: how it ends for a caller who still sends.
        is_receiving: whether a request has begun and is not whole.
        on_linger: called when the connection only waits for the caller to stop sending.

    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        idle_seconds: float,
        linger: Linger,
        is_receiving: Callable[[], bool],
        on_linger: Callable[[], None],
    ) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._idle_seconds = idle_seconds
        self._linger_limits = linger
        self._is_receiving = is_receiving
        self._on_linger = on_linger
        self._closing = False
        self._lost = False
        self._discarded_bytes = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._waits_for_caller = False  # whether bytes wait for the caller to read
        self._unsent_bytes = 0
        self._last_sent_at = 0.0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the loop's transport knows."""
        return self._transport.get_extra_info(name, default)

    def write(self, data: Bytes) -> None:
        """Send `data`."""
        self._transport.write(data)

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        """Send pieces."""
        self._transport.writelines(list_of_data)

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def is_closing(self) -> bool:
        """Return whether nothing more will be sent."""
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        """Send what is left, and close; a caller who still sends is listened to for a moment, so that it can read it."""
        if self._lost:
            return
        if self._closing:  # it lingers: long enough
            self._close()
            return
        self._closing = True
        if self._is_receiving() and not self._transport.is_closing():
            self._linger()
        else:
            self._close()

    def close_after_refusal(self) -> None:
        """Close as if the caller were still sending: what it sent was no whole request."""
        self._closing = True
        self._linger()

    def abort(self) -> None:
        """Reset the connection; what was not sent is lost, in the system's buffers as well."""
        self._closing = True
        if not self._lost:
            self.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def discard(self, size_bytes: int) -> None:
        """Count what came and is not read any more; too much of it ends the connection."""
        self._discarded_bytes += size_bytes
        if self._discarded_bytes > self._linger_limits.max_bytes:
            self._close()

    def wait_for_caller(self) -> None:
        """Begin to watch: bytes wait for the caller to read."""
        self._waits_for_caller = True
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self._last_sent_at = self._loop.time()
        if "unsent" not in self._timers:
            self._check_unsent_later()

    def caller_reads(self) -> None:
        """End the watch; the timer finds out by itself, because a large response waits a hundred times."""
        self._waits_for_caller = False

    def lost(self) -> None:
        """End everything: the connection is gone."""
        self._lost = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _linger(self) -> None:
        self._on_linger()
        self._transport.write_eof()
        self._timers["linger"] = self._loop.call_later(self._linger_limits.seconds, self._close)
        if self._transport.get_write_buffer_size():
            self.wait_for_caller()

    def _close(self) -> None:
        self._transport.close()
        if self._transport.get_write_buffer_size() and not self._lost:
            self.wait_for_caller()

    def _check_unsent_later(self) -> None:
        self._timers["unsent"] = self._loop.call_later(self._idle_seconds / _CHECKS, self._check_unsent)

    def _check_unsent(self) -> None:
        del self._timers["unsent"]
        if not self._waits_for_caller:
            return
        unsent_bytes, now = self._transport.get_write_buffer_size(), self._loop.time()
        if unsent_bytes < self._unsent_bytes:
            self._unsent_bytes, self._last_sent_at = unsent_bytes, now
        if now - self._last_sent_at >= self._idle_seconds:
            self.abort()
        elif unsent_bytes:
            self._check_unsent_later()
