"""Images on other hosts that a request names by URL, and the null object for services that allow no host.

The downloads themselves (`downloads`) need an HTTP client, which takes a worker 0.1 s to import; few services allow a host.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

from banana.payload.pictures import EncodedPicture


class Refused(ValueError):
    """An image is not downloaded; the message says why."""


class RemoteImages(Protocol):
    """The images of other hosts."""

    async def image(self, address: str, deadline: float, reserve: Callable[[int], None]) -> EncodedPicture:
        """Return the image at `address`.

        Args:
            address: an http or https URL.
            deadline: in seconds of the event loop's clock.
            reserve: is told of each piece of base64 how many bytes it has, and may raise.

        Raises Refused, which says why.
        """
        ...

    async def close(self) -> None:
        """End what was begun for it."""
        ...


class NoRemoteImages:
    """Null object for an empty IMAGE_URL_HOSTS."""

    async def image(self, address: str, deadline: float, reserve: Callable[[int], None]) -> EncodedPicture:
        """Raise Refused."""
        host = None
        with suppress(ValueError):
            host = urlsplit(address).hostname
        raise Refused(f"is not downloaded: IMAGE_URL_HOSTS does not allow {(host or 'this host')[:100]}")

    async def close(self) -> None:
        """Do nothing."""
