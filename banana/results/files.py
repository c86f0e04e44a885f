"""What is kept: files, written whole or not at all, and removed when their time or the room is over.

A file's name begins with the id of the entry it belongs to, or with the digest of an image. What is there is the truth: there is no other list of it.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

# What has a link, and how its file's name ends; other types are kept as well, and have none.
EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
# What the type of a picture is read from.
HEAD_BYTES = 32
# Enough that a disk that is full has no room for it.
CHECK_BYTES = 64 * 1024
# What was written so long ago has its entry, or never will.
SETTLED_SECONDS = 60
# The orders of tasks that were not sent yet; what makes room for pictures leaves them alone.
ORDERS = "orders"
# An entry's, and by the digest of an image what Google signed it with, or that it is of an input; beside them there may be
# what is somebody else's.
_NAME = re.compile(r"[0-9a-f]{32}-(?:[0-9]{1,2}\.[a-z]{1,8}|input\.json)|[0-9a-f]{64}\.(?:signature|input)")
_ORDER = re.compile(r"[0-9a-f]{32}")


def is_own(name: str) -> bool:
    """Return whether a file of that name is the service's: nothing else is ever removed, nor counted."""
    return bool(_NAME.fullmatch(name))


def is_order(name: str) -> bool:
    """Return whether a file of that name, among the orders, is one."""
    return bool(_ORDER.fullmatch(name))


class Kept(NamedTuple):
    """How much there is, and the ids of the tasks whose orders were not just written."""

    files: int
    size_bytes: int
    settled_orders: set[str]


class Presigned(NamedTuple):
    """An address that is its own permission, for so many seconds."""

    url: str
    seconds: int


class Files(Protocol):
    """The files, each for `keep_seconds` and all within a number of bytes, the oldest making room first.

    Every coroutine raises OSError; none blocks the event loop.
    """

    keep_seconds: float

    def may_hold(self, size_bytes: int) -> bool:
        """Return whether a file of that size fits into the room there is for all of them."""
        ...

    async def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a file, durably, whole or not at all; `blocks` are made in a thread."""
        ...

    async def read(self, name: str) -> bytes:
        """Return a file's content. Raises FileNotFoundError."""
        ...

    async def head(self, name: str) -> bytes:
        """Return the first bytes of a file. Raises FileNotFoundError."""
        ...

    async def location(self, name: str, method: str) -> Path | Presigned:
        """Return where a file is to be had by GET or HEAD: on this machine, if it is there; or elsewhere.

        Raises FileNotFoundError when it is known not to be there.
        """
        ...

    async def write_order(self, entry_id: str, blocks: Iterable[bytes]) -> None:
        """Write the order of a task, durably."""
        ...

    async def read_order(self, entry_id: str) -> bytes:
        """Return the order of a task. Raises FileNotFoundError."""
        ...

    async def remove_order(self, entry_id: str) -> None:
        """Remove the order of a task, if it is there."""
        ...

    async def names_of(self, entry_id: str) -> list[str]:
        """Return the names of an entry's files."""
        ...

    async def remove(self, entry_id: str) -> None:
        """Remove an entry's files."""
        ...

    async def check(self) -> None:
        """Return when a file can be written; it is not kept."""
        ...

    async def sweep(self) -> Kept | None:
        """Remove what is over its time, then the oldest until the rest fits; return what is left.

        Of several workers one does it: None in the others.
        """
        ...

    def close(self) -> None:
        """End what was begun for it."""
        ...
