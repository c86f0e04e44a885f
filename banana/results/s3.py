"""What is kept, as objects below a prefix of a bucket, with any service that speaks S3; several machines share them.

S3's own clock decides what is over its time: each sweep writes an object and reads when S3 says that was.
"""

import asyncio
import errno
import fcntl
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from banana.results.files import (
    CHECK_BYTES,
    EXTENSIONS,
    HEAD_BYTES,
    ORDERS,
    SETTLED_SECONDS,
    Kept,
    Presigned,
    is_order,
    is_own,
)

if TYPE_CHECKING:
    from obstore import ObjectMeta

T = TypeVar("T")
# Those of the usual variables that say how S3 is reached; others are for other programs.
VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_METADATA_ENDPOINT"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    *("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_SERVER_SIDE_ENCRYPTION", "AWS_SSE_KMS_KEY_ID"),
)
CONNECT_SECONDS = 3
# Longest wait for an operation, and more for each of its bytes: a caller waits for its picture to be kept.
ANSWER_SECONDS = 10
SECONDS_PER_BYTE = 1e-6
# An operation that nobody waits for any more holds its thread for no longer than this.
REQUEST_SECONDS = 30
THREADS = 32
# How long a presigned address is good for; what is cached of it is not, by so much.
PRESIGNED_SECONDS = 3600
MARGIN_SECONDS = 60
# Between two sweeps of a machine, for each thousand objects: listing them is what S3 charges for.
SWEEP_SECONDS = 5
LONGEST_PAUSE_SECONDS = 600
LISTED_AT_ONCE = 1000
# A listing may take as long as so many bytes.
LISTED_BYTES = 50_000_000
_MARKER = ".banana-swept"
_CHECK = ".banana-check"
_OF_ENTRY = re.compile(r"([0-9a-f]{32})-(.+)")
_TYPES = {extension: mime_type for mime_type, extension in EXTENSIONS.items()}


class S3Files:
    """The `Files` in `bucket`, below `prefix`, each for `keep_seconds` and all within `max_bytes`.

    Args:
        bucket: where they are.
        prefix: below which.
        variables: AWS_* variables, see `VARIABLES`.
        keep_seconds: for how long.
        max_bytes: how much.
        turns: a file in which the workers of this machine take turns at sweeping.

    Raises ValueError when the variables make no sense.
    """

    def __init__(
        self, bucket: str, prefix: str, variables: Mapping[str, str], keep_seconds: float, max_bytes: int, turns: Path
    ) -> None:
        self.keep_seconds = keep_seconds
        self._max_bytes = max_bytes
        self._turns = turns
        known: dict[str, Any] = {name: variables[name] for name in VARIABLES if variables.get(name)}
        endpoint = next(
            (known[name] for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT") if name in known), ""
        )
        try:
            # Objects are removed one by one: not every service knows how to remove many.
            known["AWS_DISABLE_BULK_DELETE"] = "true"
            self._store = S3Store(
                bucket,
                prefix=prefix or None,
                config=known,  # type: ignore[arg-type] # its names are written large too
                client_options={
                    "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                    "timeout": timedelta(seconds=REQUEST_SECONDS),
                    "allow_http": endpoint.startswith("http://"),
                },
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=CONNECT_SECONDS)},
            )
        except BaseError as error:
            raise ValueError(_words(error)) from error
        # The library's own coroutines end the process with SIGABRT when one is over as the interpreter ends:
        # https://github.com/PyO3/pyo3-async-runtimes/issues/40
        self._threads = ThreadPoolExecutor(THREADS, "s3")

    def may_hold(self, size_bytes: int) -> bool:
        """Return whether an object of that size fits into the room there is for all of them."""
        return size_bytes <= self._max_bytes

    async def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write an object; S3 keeps it whole or not at all."""
        content = await asyncio.to_thread(b"".join, blocks)
        if len(content) > self._max_bytes:
            raise OSError(errno.EFBIG, "over KEEP_RESULTS_BYTES", name)
        await self._put(_path_of(name), content)

    async def read(self, name: str) -> bytes:
        """Return an object's content. Raises FileNotFoundError."""
        path = _path_of(name)
        found = await self._in_thread(lambda: obstore.get(self._store, path))
        return bytes(await self._in_thread(found.bytes, found.meta["size"]))

    async def head(self, name: str) -> bytes:
        """Return the first bytes of an object. Raises FileNotFoundError."""
        path = _path_of(name)
        return bytes(await self._in_thread(lambda: obstore.get_range(self._store, path, start=0, length=HEAD_BYTES)))

    async def location(self, name: str, method: str) -> Path | Presigned:
        """Return a presigned address of an object. Raises FileNotFoundError."""
        path = _path_of(name)
        expires_in = timedelta(seconds=PRESIGNED_SECONDS + MARGIN_SECONDS)

        def location() -> str:
            obstore.head(self._store, path)
            return obstore.sign(self._store, cast(Literal["GET", "HEAD"], method), path, expires_in)

        return Presigned(await self._in_thread(location), PRESIGNED_SECONDS)

    async def write_order(self, entry_id: str, blocks: Iterable[bytes]) -> None:
        """Write the order of a task."""
        await self._put(f"{ORDERS}/{entry_id}", await asyncio.to_thread(b"".join, blocks))

    async def read_order(self, entry_id: str) -> bytes:
        """Return the order of a task. Raises FileNotFoundError."""
        return await self.read(f"{ORDERS}/{entry_id}")

    async def remove_order(self, entry_id: str) -> None:
        """Remove the order of a task, if it is there."""
        await self._remove([f"{ORDERS}/{entry_id}"])

    async def names_of(self, entry_id: str) -> list[str]:
        """Return the names of an entry's objects."""
        return sorted(_name_of(found["path"]) for found in await self._in_thread(lambda: self._listed(entry_id)))

    async def remove(self, entry_id: str) -> None:
        """Remove an entry's objects."""
        await self._remove([found["path"] for found in await self._in_thread(lambda: self._listed(entry_id))])

    async def check(self) -> None:
        """Return when an object can be written; it is not kept."""
        await self._put(_CHECK, bytes(CHECK_BYTES))
        await self._remove([_CHECK])

    async def sweep(self) -> Kept | None:
        """Remove what is over its time, then the oldest until the rest fits; None when another worker's turn it is."""
        if not await asyncio.to_thread(self._take_turn, SWEEP_SECONDS, is_mine=False):
            return None
        await self._put(_MARKER, b"")
        listed = {meta["path"]: meta for meta in await self._in_thread(self._listed, LISTED_BYTES)}
        marker = listed.get(_MARKER)
        if marker is None:
            raise OSError(errno.EIO, "S3 does not list a file that was just written")
        own = {path: meta for path, meta in listed.items() if _is_order(path) or is_own(_name_of(path))}
        left = await self._swept(own, marker["last_modified"])
        pause = SWEEP_SECONDS * (1 + len(listed) // LISTED_AT_ONCE)
        await asyncio.to_thread(self._take_turn, pause, is_mine=True)
        return left

    def close(self) -> None:
        """End the threads, when they have done what they were given."""
        self._threads.shutdown()

    async def _swept(self, found: Mapping[str, "ObjectMeta"], now: datetime) -> Kept:
        oldest = now - timedelta(seconds=self.keep_seconds)
        settled = now - timedelta(seconds=SETTLED_SECONDS)
        removed = {path for path, meta in found.items() if meta["last_modified"] <= oldest}
        orders = {path: meta for path, meta in found.items() if _is_order(path) and path not in removed}
        pictures = [found[path] for path in found if path not in removed and path not in orders]
        size_bytes = sum(meta["size"] for meta in pictures)
        pictures.sort(key=lambda meta: meta["last_modified"], reverse=True)
        while size_bytes > self._max_bytes:
            meta = pictures.pop()
            removed.add(meta["path"])
            size_bytes -= meta["size"]
        await self._remove(removed)
        ids = {path.partition("/")[2] for path, meta in orders.items() if meta["last_modified"] < settled}
        return Kept(len(pictures), size_bytes, ids)

    async def _put(self, path: str, content: bytes) -> None:
        mime_type = _TYPES.get(path.rpartition(".")[2], "application/octet-stream")

        def put() -> None:
            # In one request: what is broken off leaves nothing behind.
            obstore.put(self._store, path, content, attributes={"Content-Type": mime_type}, use_multipart=False)

        await self._in_thread(put, len(content))

    def _listed(self, prefix: str | None = None) -> list["ObjectMeta"]:
        """Return all objects, or those of the folder `prefix`."""
        return [found for page in obstore.list(self._store, prefix, chunk_size=LISTED_AT_ONCE) for found in page]

    async def _remove(self, paths: Iterable[str]) -> None:
        left = iter(paths)
        while some := list(islice(left, THREADS)):
            await asyncio.gather(*(self._in_thread(partial(obstore.delete, self._store, path)) for path in some))

    async def _in_thread(self, work: Callable[[], T], size_bytes: int = 0) -> T:
        """Return what an operation with so many bytes returns; it is waited for no longer than that may take."""
        with _errors():
            async with asyncio.timeout(ANSWER_SECONDS + size_bytes * SECONDS_PER_BYTE):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _take_turn(self, pause_seconds: float, *, is_mine: bool) -> bool:
        """Return whether it is time to sweep, or this worker's turn; nobody of this machine has the next one before a pause.

        By the clock that all processes of a machine share, which begins anew with the machine.
        """
        self._turns.parent.mkdir(parents=True, exist_ok=True)
        with self._turns.open("a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            now, due = time.monotonic(), float(file.read() or 0)
            if not is_mine and now < due <= now + LONGEST_PAUSE_SECONDS:
                return False
            file.truncate(0)
            file.write(str(now + min(pause_seconds, LONGEST_PAUSE_SECONDS)))
            return True


@contextmanager
def _errors() -> Iterator[None]:
    """What S3 refuses, or does not say in time, is an OSError."""
    try:
        yield
    except FileNotFoundError as error:
        words = _words(error)
        if "NoSuchBucket" in str(error):  # nothing is gone: it was never there
            raise OSError(errno.EIO, f"there is no such bucket: {words}") from error
        raise FileNotFoundError(words) from error
    except TimeoutError as error:
        raise OSError(errno.ETIMEDOUT, "S3 did not answer in time") from error
    except BaseError as error:
        raise OSError(errno.EIO, _words(error)) from error


def _words(error: Exception) -> str:
    """Return the beginning of what the library says: further on are S3's own words, and the library's insides."""
    return str(error).partition("\n")[0].partition("<")[0].rstrip()[:300]


def _path_of(name: str) -> str:
    """Return the path of a file's object: an entry's are in a folder of their own, by which they are listed."""
    return _OF_ENTRY.sub(r"\1/\2", name) if _OF_ENTRY.fullmatch(name) else name


def _is_order(path: str) -> bool:
    folder, _, name = path.partition("/")
    return folder == ORDERS and is_order(name)


def _name_of(path: str) -> str:
    return path.replace("/", "-", 1)
