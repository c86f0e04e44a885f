"""Kept files in a folder: on the disk, readable by their owner; what all kinds of files do is in test_files."""

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from banana.results import folder as folder_module
from banana.results.files import Kept
from banana.results.folder import FolderFiles

pytestmark = pytest.mark.anyio
FOLDER = Path("state/results")


@pytest.fixture
async def files() -> AsyncIterator[FolderFiles]:
    made = FolderFiles(FOLDER, keep_seconds=60, max_bytes=1000)
    yield made
    made.close()


def aged(name: str, seconds: float) -> None:
    """Make a file so much older."""
    at = time.time() - seconds
    os.utime(FOLDER / name, (at, at))


async def test_a_file_is_read_as_it_was_written(files: FolderFiles) -> None:
    """In blocks, by whoever knows its name; readable by the owner alone, and so is the folder."""
    await files.write("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg", [b"one", b"two"])

    assert await files.read("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg") == b"onetwo"
    assert await files.head("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg") == b"onetwo"
    assert (
        await files.location("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg", "GET")
        == FOLDER / "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg"
    )
    assert stat.S_IMODE((FOLDER / "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg").stat().st_mode) == 0o600
    assert stat.S_IMODE(FOLDER.stat().st_mode) == 0o700


async def test_what_cannot_be_written_whole_is_not_there(files: FolderFiles) -> None:
    """Nothing is left of it, under any name."""

    def blocks() -> list[bytes]:
        raise OSError("the source broke")

    with pytest.raises(OSError, match="broke"):
        await files.write("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg", (block for block in [b"x"] if blocks()))
    with pytest.raises(OSError, match="KEEP_RESULTS_BYTES"):
        await files.write("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg", [bytes(1001)])

    assert list(FOLDER.iterdir()) == []


async def test_it_is_on_the_disk_before_it_has_its_name(files: FolderFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content first, then the name, then the folder that holds the name."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        named = (FOLDER / "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg").exists()
        synced.append(f"{'folder' if is_folder else 'file'}, {'named' if named else 'unnamed'}")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    await files.write("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg", [b"x"])

    assert synced == ["file, unnamed", "folder, named"]


async def test_a_folder_that_was_removed_is_made_again(files: FolderFiles) -> None:
    """A picture is not lost for it."""
    await files.write("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg", [b"x"])
    (FOLDER / "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg").unlink()
    FOLDER.rmdir()

    await files.write("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-0.jpg", [b"x"])


async def test_names_and_removal_go_by_entry(files: FolderFiles) -> None:
    """One entry's files, and no other's."""
    for name in (
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-1.png",
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-0.jpg",
    ):
        await files.write(name, [b"x"])

    assert await files.names_of("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") == [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-1.png",
    ]
    await files.remove("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
    assert await files.names_of("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") == []
    assert await files.names_of("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb") == ["bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-0.jpg"]


async def test_orders_are_apart(files: FolderFiles) -> None:
    """What makes room for pictures leaves them alone; they expire too."""
    await files.write_order("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", [b'{"prompt":', b'"x"}'])
    await files.write("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg", [bytes(900)])
    await files.write("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-0.jpg", [bytes(900)])

    assert await files.sweep() == Kept(1, 900, set())
    assert await files.read_order("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") == b'{"prompt":"x"}'
    aged("orders/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 61)
    await files.sweep()
    with pytest.raises(FileNotFoundError):
        await files.read_order("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
    await files.remove_order("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")


async def test_what_is_over_its_time_goes(files: FolderFiles) -> None:
    """What was never finished goes too, an hour later."""
    await files.write("00000000000000000000000000000000-0.jpg", [b"old"])
    await files.write("11111111111111111111111111111111-0.jpg", [b"new!"])
    (FOLDER / ".unfinished-x").write_bytes(b"x")
    aged("00000000000000000000000000000000-0.jpg", 61)
    assert await files.sweep() == Kept(1, 4, set())
    assert (FOLDER / ".unfinished-x").exists()
    aged(".unfinished-x", 3601)
    await files.sweep()

    assert sorted(path.name for path in FOLDER.iterdir()) == [".sweep", "11111111111111111111111111111111-0.jpg"]


async def test_the_oldest_make_room(files: FolderFiles) -> None:
    """Until the rest fits."""
    for number in range(5):
        await files.write(f"{number:032x}-0.jpg", [bytes(300)])
        aged(f"{number:032x}-0.jpg", 50 - number)

    assert await files.sweep() == Kept(3, 900, set())
    assert sorted(path.name for path in FOLDER.glob("*.jpg")) == [
        f"{2:032x}-0.jpg",
        f"{3:032x}-0.jpg",
        f"{4:032x}-0.jpg",
    ]


async def test_with_no_time_everything_goes() -> None:
    """KEEP_RESULTS_SECONDS=0, and pictures of before."""
    before = FolderFiles(FOLDER, keep_seconds=60, max_bytes=1000)
    await before.write("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg", [b"x"])
    before.close()
    files = FolderFiles(FOLDER, keep_seconds=0, max_bytes=1000)

    assert await files.sweep() == Kept(0, 0, set())
    files.close()


async def test_a_sweep_of_no_folder_is_none(files: FolderFiles) -> None:
    """Nothing was kept yet."""
    assert await files.sweep() == Kept(0, 0, set())
    assert not FOLDER.exists()


async def test_one_worker_sweeps_at_a_time(files: FolderFiles) -> None:
    """The others leave it to that one."""
    import fcntl

    await files.write("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-0.jpg", [b"x"])
    with (FOLDER / ".sweep").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert await files.sweep() is None
    assert await files.sweep() == Kept(1, 1, set())


async def test_a_check_leaves_nothing(files: FolderFiles) -> None:
    """It says that a file can be written."""
    files = FolderFiles(FOLDER, keep_seconds=60, max_bytes=1 << 20)
    await files.check()

    assert list(FOLDER.iterdir()) == []
    files.close()


async def test_a_sweep_does_not_stall_the_event_loop(files: FolderFiles) -> None:
    """A thousand files are looked through beside it."""
    FOLDER.mkdir(parents=True)
    for number in range(1000):
        (FOLDER / f"{number:032x}-0.jpg").write_bytes(b"x")
    sweep = asyncio.create_task(files.sweep())
    turns = 0
    while not sweep.done():
        await asyncio.sleep(0)
        turns += 1

    assert turns > 1
    assert folder_module.THREADS > 1
