"""Kept files in a bucket: how S3 is asked, what it refuses, and whose turn it is; what all kinds do is in test_files."""

import time
from pathlib import Path

import httpx
import pytest

from banana.results import s3 as s3_module
from banana.results.files import Kept, Presigned
from banana.results.s3 import S3Files
from tests.bad_road import BadRoad
from tests.s3_server import BUCKET, S3Server
from tests.services import free_port

pytestmark = pytest.mark.anyio
ONE = "a" * 32


@pytest.fixture
def files(s3: S3Server) -> S3Files:
    s3.empty()
    return files_at(s3.port, s3)


def files_at(port: int, s3: S3Server, bucket: str = BUCKET) -> S3Files:
    return S3Files(bucket, "kept", s3.variables_through(port), 60, 1 << 20, Path("state/results.sweep"))


async def test_a_link_is_presigned(files: S3Files) -> None:
    """For the method it is asked for; with the picture's type; whoever has it needs nothing else."""
    await files.write(f"{ONE}-0.webp", [b"picture"])
    for method, content in (("GET", b"picture"), ("HEAD", b"")):
        location = await files.location(f"{ONE}-0.webp", method)
        assert isinstance(location, Presigned)
        async with httpx.AsyncClient() as client:
            response = await client.request(method, location.url)
        assert (response.content, response.headers["content-type"]) == (content, "image/webp")
        assert response.headers["content-length"] == "7"
        assert 3600 <= location.seconds < int(location.url.partition("X-Amz-Expires=")[2].partition("&")[0])
    with pytest.raises(FileNotFoundError):
        await files.location(f"{ONE}-1.webp", "GET")


async def test_what_s3_refuses_is_an_error_of_one_line(s3: S3Server) -> None:
    """A bucket that is not there is not a picture that is gone; a server that is away is noticed at once."""
    nowhere = files_at(s3.port, s3, bucket="no-such-bucket")
    for refused in (nowhere.check(), nowhere.read(f"{ONE}-0.jpg")):
        with pytest.raises(OSError, match="no such bucket") as refusal:
            await refused
        assert not isinstance(refusal.value, FileNotFoundError)
        assert len(str(refusal.value)) < 500
        assert "\n" not in str(refusal.value)
    with pytest.raises(OSError, match="S3"):
        await files_at(free_port(), s3).check()


async def test_an_s3_that_is_silent_is_waited_for_no_longer_than_said(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has a picture in hand must not wait for minutes."""
    monkeypatch.setattr(s3_module, "ANSWER_SECONDS", 0.3)
    road = BadRoad(s3.port)
    road.hold()
    with pytest.raises(OSError, match="in time"):
        await files_at(road.port, s3).write(f"{ONE}-0.jpg", [b"x"])
    road.held.set()
    road.close()


async def test_workers_of_a_machine_take_turns(files: S3Files, s3: S3Server) -> None:
    """One lists the bucket, then nobody does before the pause is over; the next turn may be anybody's."""
    others = [files_at(s3.port, s3) for _ in range(3)]
    await files.write(f"{ONE}-0.jpg", [b"x"])

    assert [await one.sweep() for one in (files, *others)] == [Kept(1, 1, set()), None, None, None]
    Path("state/results.sweep").write_text(str(time.monotonic() - 1))
    assert [await one.sweep() for one in (*others, files)] == [Kept(1, 1, set()), None, None, None]
    Path("state/results.sweep").write_text(str(time.monotonic() + 1e6))  # of before the machine began anew
    assert await files.sweep() is not None


async def test_pauses_grow_with_the_bucket(files: S3Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing is paid for by the thousand."""
    monkeypatch.setattr(s3_module, "LISTED_AT_ONCE", 2)
    for number in range(5):
        await files.write(f"{ONE}-{number}.jpg", [b"x"])
    assert await files.sweep() == Kept(5, 5, set())

    due = float(Path("state/results.sweep").read_text()) - time.monotonic()
    assert 3 * s3_module.SWEEP_SECONDS < due <= 4 * s3_module.SWEEP_SECONDS


async def test_a_wrong_clock_removes_nothing(files: S3Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3's own decides; a machine that is a year ahead sweeps like any other."""
    await files.write(f"{ONE}-0.jpg", [b"x"])
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 365 * 86_400)

    assert await files.sweep() == Kept(1, 1, set())
