"""Kept files of both kinds: whole or not at all, for their time, within their room."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from banana.results import s3
from banana.results.files import Files, Kept
from banana.results.folder import FolderFiles
from banana.results.s3 import S3Files

pytestmark = pytest.mark.anyio
ONE, OTHER = "a" * 32, "b" * 32
Opened = Callable[[float, int], Files]


@pytest.fixture
def files(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    monkeypatch.setattr(s3, "SWEEP_SECONDS", 0)
    files = opened(60, 100_000)
    yield files
    files.close()


@pytest.mark.parametrize("kind", [FolderFiles, S3Files])
def test_every_kind_has_the_whole_interface(kind: type) -> None:
    """With the same parameters, so that one can take the other's place."""
    for name, method in inspect.getmembers(Files, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(kind, name)).parameters == inspect.signature(method).parameters, name


async def test_a_file_is_read_as_it_was_written(files: Files) -> None:
    """In blocks, by whoever knows its name; another is not there."""
    await files.write(f"{ONE}-0.jpg", [b"one", b"two"])
    await files.write(f"{'c' * 64}.signature", [b"signed"])

    assert await files.read(f"{ONE}-0.jpg") == b"onetwo"
    assert await files.head(f"{ONE}-0.jpg") == b"onetwo"
    assert await files.read(f"{'c' * 64}.signature") == b"signed"
    for missing in (f"{ONE}-1.jpg", f"{OTHER}-0.jpg", "x.signature"):
        with pytest.raises(FileNotFoundError):
            await files.read(missing)
        with pytest.raises(FileNotFoundError):
            await files.head(missing)


async def test_what_is_too_large_is_not_there(files: Files) -> None:
    """Nor is what could not be made."""

    def broken() -> Iterator[bytes]:
        yield b"x"
        raise OSError("the source broke")

    with pytest.raises(OSError, match="KEEP_RESULTS_BYTES"):
        await files.write(f"{ONE}-0.jpg", [bytes(100_001)])
    with pytest.raises(OSError, match="broke"):
        await files.write(f"{ONE}-1.jpg", broken())

    assert (files.may_hold(100_000), files.may_hold(100_001)) == (True, False)
    assert await files.names_of(ONE) == []


async def test_an_entrys_files_are_known_by_its_id(files: Files) -> None:
    """And removed with it; others stay."""
    for name in (f"{ONE}-0.jpg", f"{ONE}-10.png", f"{OTHER}-0.jpg"):
        await files.write(name, [b"x"])
    assert await files.names_of(ONE) == [f"{ONE}-0.jpg", f"{ONE}-10.png"]
    await files.remove(ONE)
    await files.remove(ONE)

    assert await files.names_of(ONE) == []
    assert await files.names_of(OTHER) == [f"{OTHER}-0.jpg"]


async def test_orders_are_apart(files: Files) -> None:
    """What makes room for pictures leaves them alone."""
    await files.write_order(ONE, [b'{"prompt":', b'"x"}'])
    await files.write(f"{ONE}-0.jpg", [bytes(90_000)])

    assert await files.sweep() == Kept(1, 90_000, set())
    assert await files.read_order(ONE) == b'{"prompt":"x"}'
    assert await files.names_of(ONE) == [f"{ONE}-0.jpg"]
    await files.remove_order(ONE)
    await files.remove_order(ONE)
    with pytest.raises(FileNotFoundError):
        await files.read_order(ONE)


async def test_what_is_over_its_time_goes(opened: Opened, files: Files) -> None:
    """Orders as well; a check is no file."""
    await files.check()
    await files.write(f"{ONE}-0.jpg", [b"x"])
    await files.write_order(ONE, [b"{}"])
    assert await files.sweep() == Kept(1, 1, set())
    impatient = opened(0, 100_000)

    assert await impatient.sweep() == Kept(0, 0, set())
    with pytest.raises(FileNotFoundError):
        await impatient.read_order(ONE)
    impatient.close()


async def test_the_oldest_make_room(files: Files) -> None:
    """Until the rest fits."""
    for number in range(3):
        await files.write(f"{number:032x}-0.jpg", [bytes(40_000)])
        # S3 counts in seconds.
        await asyncio.sleep(1.1 if isinstance(files, S3Files) else 0.02)

    assert await files.sweep() == Kept(2, 80_000, set())
    with pytest.raises(FileNotFoundError):
        await files.read(f"{0:032x}-0.jpg")


async def test_an_order_is_settled_when_it_is_not_new(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote it has begun its task by then."""
    await files.write_order(ONE, [b"{}"])
    assert await files.sweep() == Kept(0, 0, set())
    for kind in ("folder", "s3"):
        monkeypatch.setattr(f"banana.results.{kind}.SETTLED_SECONDS", -2)

    assert await files.sweep() == Kept(0, 0, {ONE})


@pytest.mark.parametrize("name", ["holiday.jpg", "orders.txt", f"{ONE}.jpg", f"{ONE}-0.jpg.bak", "archive/2024.zip"])
async def test_what_is_somebody_elses_stays(opened: Opened, files: Files, name: str) -> None:
    """Whoever names a folder or a bucket that is not empty loses nothing, however old and large it is."""
    await files.check()
    if isinstance(files, FolderFiles):
        path = await files.location(name, "GET")
        assert isinstance(path, Path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1))
        impatient = opened(0, 100_000)
        assert await impatient.sweep() == Kept(0, 0, set())
        assert path.exists()
    else:
        await files.write(name, [bytes(1)])
        impatient = opened(0, 100_000)
        assert await impatient.sweep() == Kept(0, 0, set())
        assert await files.read(name) == bytes(1)
    impatient.close()
