"""What is kept, as files of one folder, whose time is their modification time."""

import asyncio
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from banana.results.files import CHECK_BYTES, HEAD_BYTES, ORDERS, SETTLED_SECONDS, Kept, Presigned, is_order, is_own

T = TypeVar("T")
# Files written or read at once; each waits for the disk most of its time.
THREADS = 4
# A file that was never finished: nothing is written for so long.
UNFINISHED_SECONDS = 3600
UNFINISHED = ".unfinished-"


class _File(NamedTuple):
    written_at: float
    size_bytes: int
    path: str


class FolderFiles:
    """The `Files` in `folder`, each for `keep_seconds` and all within `max_bytes`, the oldest making room first."""

    def __init__(self, folder: Path, keep_seconds: float, max_bytes: int) -> None:
        self.keep_seconds = keep_seconds
        self._folder = folder
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(THREADS, "files")

    def may_hold(self, size_bytes: int) -> bool:
        """Return whether a file of that size fits into the room there is for all of them."""
        return size_bytes <= self._max_bytes

    async def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a file, durably, whole or not at all."""
        await self._in_thread(lambda: self._write(self._folder / name, blocks))

    async def read(self, name: str) -> bytes:
        """Return a file's content. Raises FileNotFoundError."""
        return await self._in_thread((self._folder / name).read_bytes)

    async def head(self, name: str) -> bytes:
        """Return the first bytes of a file. Raises FileNotFoundError."""
        return await self._in_thread(lambda: self._head(name))

    async def location(self, name: str, method: str) -> Path | Presigned:
        """Return the path of a file, whether it is there or not."""
        return self._folder / name

    async def write_order(self, entry_id: str, blocks: Iterable[bytes]) -> None:
        """Write the order of a task, durably."""
        await self._in_thread(lambda: self._write(self._folder / ORDERS / entry_id, blocks))

    async def read_order(self, entry_id: str) -> bytes:
        """Return the order of a task. Raises FileNotFoundError."""
        return await self.read(f"{ORDERS}/{entry_id}")

    async def remove_order(self, entry_id: str) -> None:
        """Remove the order of a task, if it is there."""
        await self._in_thread(lambda: (self._folder / ORDERS / entry_id).unlink(missing_ok=True))

    async def names_of(self, entry_id: str) -> list[str]:
        """Return the names of an entry's files."""
        return await self._in_thread(lambda: sorted(path.name for path in self._folder.glob(f"{entry_id}-*")))

    async def remove(self, entry_id: str) -> None:
        """Remove an entry's files."""

        def remove() -> None:
            for path in self._folder.glob(f"{entry_id}-*"):
                path.unlink(missing_ok=True)

        await self._in_thread(remove)

    async def check(self) -> None:
        """Return when a file can be written; it is not kept."""

        def write_and_remove() -> None:
            self._write(self._folder / ".check", [bytes(CHECK_BYTES)])
            (self._folder / ".check").unlink(missing_ok=True)  # another worker checks at the same moment

        await self._in_thread(write_and_remove)

    async def sweep(self) -> Kept | None:
        """Remove what is over its time, then the oldest until the rest fits; return what is left.

        Of several workers one does it: None in the others.
        """
        return await self._in_thread(self._sweep)

    def close(self) -> None:
        """End the threads, when they have done what they were given."""
        self._threads.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _head(self, name: str) -> bytes:
        with (self._folder / name).open("rb") as file:
            return file.read(HEAD_BYTES)

    def _write(self, path: Path, blocks: Iterable[bytes]) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)  # readable by the service alone
        try:
            with os.fdopen(descriptor, "wb") as file:
                for block in blocks:
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
                size_bytes = file.tell()
            if size_bytes > self._max_bytes:
                raise OSError(errno.EFBIG, "over KEEP_RESULTS_BYTES", str(path))
            Path(temporary).rename(path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
        _sync_folder(path.parent)

    def _sweep(self) -> Kept | None:
        try:
            lock = (self._folder / ".sweep").open("w")
        except FileNotFoundError:
            return Kept(0, 0, set())
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            # A clock that was set leaves some for longer.
            until = time.time() - SETTLED_SECONDS
            orders = self._remove_expired(self._folder / ORDERS, is_order)
            settled = {Path(order.path).name for order in orders if order.written_at < until}
            count, size_bytes = self._fit(self._remove_expired(self._folder, is_own))
            return Kept(count, size_bytes, settled)

    def _remove_expired(self, folder: Path, is_own: Callable[[str], bool]) -> list[_File]:
        """Remove what is over its time in one folder; return the rest of what is the service's own there."""
        now, rest = time.time(), []
        for file in _files_in(folder):
            name = Path(file.path).name
            if not is_own(name) and not name.startswith(UNFINISHED):
                continue
            if file.written_at + (self.keep_seconds if is_own(name) else UNFINISHED_SECONDS) <= now:
                Path(file.path).unlink(missing_ok=True)
            elif is_own(name):
                rest.append(file)
        return rest

    def _fit(self, files: list[_File]) -> tuple[int, int]:
        """Remove the oldest of `files` until the rest fits; return how many are left, and their bytes."""
        size_bytes = sum(file.size_bytes for file in files)
        count = len(files)
        for file in sorted(files):
            if size_bytes <= self._max_bytes:
                break
            Path(file.path).unlink(missing_ok=True)
            size_bytes -= file.size_bytes
            count -= 1
        return count, size_bytes


def _files_in(folder: Path) -> Iterator[_File]:
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # removed meanwhile
                if entry.is_file():
                    status = entry.stat()
                    yield _File(status.st_mtime, status.st_size, entry.path)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; what was renamed is not durable before its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
