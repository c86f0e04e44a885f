"""A full disk, a folder that is removed: over a real service on a real small disk. Nobody dies of it, and no picture is lost."""

import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.patience import until
from tests.services import Service

pytestmark = pytest.mark.slow


@contextmanager
def small_disk(folder: Path, size_kib: int = 1024) -> Iterator[Path]:
    """A disk of its own mounted at `folder`; where mounting is not allowed, the test cannot be made."""
    folder.mkdir(parents=True, exist_ok=True)
    as_root = ["sudo", "-n"] if os.geteuid() and shutil.which("sudo") else []
    options = f"size={size_kib}k,mode=700,uid={os.geteuid()},gid={os.getegid()}"
    mount = [*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        assert not os.environ.get("CI"), f"CI skips nothing: {mounted.stderr}"
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([*as_root, "umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fill the disk to the last byte."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def asked(service: Service, path: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(service.address + path, body), timeout=20) as response:
        return json.load(response)


def pictures(service: Service, count: int) -> list[int]:
    """How many pictures each of some requests got."""
    return [len(asked(service, "/generate", b'{"prompt":"x"}')["images"]) for _ in range(count)]


def killed(service: Service) -> None:
    """Kill one worker, and wait until the service answers with another in its place."""
    service.kill_worker()
    until(lambda: answers(service))


def answers(service: Service) -> bool:
    try:
        return bool(asked(service, "/health")["status"] == "healthy")
    except OSError:
        return False


@contextmanager
def started(folder: Path, **settings: object) -> Iterator[Service]:
    service = Service(folder, rate_limit_per_minute=10_000, workers=2, **settings)
    ran = service.run("start.sh", "--demo")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    try:
        yield service
    finally:
        service.run("stop.sh")
        left = service.processes()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert left == []


@pytest.mark.parametrize("size_kib", [1024, 16 * 1024])
def test_a_full_disk_under_the_state_kills_nobody(tmp_path: Path, size_kib: int) -> None:
    """Small from the start, or full later: every picture arrives, no worker dies, and one that is killed comes back."""
    with small_disk(tmp_path / ".state", size_kib) as disk, started(tmp_path) as service:
        before = service.workers()
        filler = fill(disk)
        assert pictures(service, 20) == [1] * 20
        assert service.workers() == before
        assert urllib.request.urlopen(f"{service.address}/metrics", timeout=10).status == 200
        killed(service)
        assert pictures(service, 10) == [1] * 10
        filler.unlink()
        until(lambda: "store" not in asked(service, "/ready")["degraded"])
        assert pictures(service, 5) == [1] * 5


def test_a_full_disk_under_the_log_costs_no_picture(tmp_path: Path) -> None:
    """Also when standard error lies on it; readiness says so, and no more once there is room."""
    with small_disk(tmp_path / "logs") as disk, started(tmp_path) as service:
        filler = fill(disk)
        assert pictures(service, 10) == [1] * 10
        until(lambda: asked(service, "/ready")["degraded"] == ["log"])
        killed(service)
        assert pictures(service, 10) == [1] * 10
        filler.unlink()
        pictures(service, 10)
        until(lambda: pictures(service, 1) and asked(service, "/ready")["degraded"] == [])


def test_a_state_that_is_removed_comes_back(tmp_path: Path) -> None:
    """The folder is deleted under a service that runs, then a worker is killed: it comes back, and stop.sh finds it all."""
    with started(tmp_path) as service:
        shutil.rmtree(tmp_path / ".state")
        assert pictures(service, 5) == [1] * 5
        killed(service)
        assert pictures(service, 5) == [1] * 5
        shutil.rmtree(tmp_path / "logs")
        assert pictures(service, 5) == [1] * 5
        assert service.logged(lambda line: line["event"] == "request")


def test_a_broken_store_does_not_stop_the_start(tmp_path: Path) -> None:
    """It held a minute of counts: it is moved aside, and one line says so."""
    (tmp_path / ".state/demo").mkdir(parents=True)
    (tmp_path / ".state/demo/banana.db").write_bytes(b"no database" * 1000)
    with started(tmp_path) as service:
        assert pictures(service, 3) == [1] * 3

    assert len([line for line in service.log() if line["event"] == "store_broken"]) == 1


def test_a_full_disk_costs_no_picture_that_is_to_be_kept(tmp_path: Path) -> None:
    """Links become data URIs; keys and tasks are refused before anything is paid; when there is room, all is well again."""

    def status_of(path: str, body: bytes, key: str | None = None) -> int:
        headers = {"Idempotency-Key": key} if key else {}
        request = urllib.request.Request(service.address + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    link = b'{"prompt":"x","response_format":"url"}'
    with small_disk(tmp_path / ".state", 4096) as disk, started(tmp_path) as service:
        assert status_of("/generate", b'{"prompt":"x"}', "before") == 200
        filler = fill(disk)
        assert asked(service, "/generate", link)["images"][0].startswith("data:image/jpeg;base64,")
        assert status_of("/generate", b'{"prompt":"x"}', "before") == 200
        assert status_of("/generate", b'{"prompt":"y"}', "during") == 503
        assert status_of("/v1/images/generations/async", b'{"prompt":"y"}') == 503
        assert pictures(service, 2) == [1] * 2
        filler.unlink()
        until(lambda: asked(service, "/ready")["degraded"] == [])
        until(lambda: status_of("/generate", b'{"prompt":"y"}', "during") == 200)
        until(lambda: asked(service, "/generate", link)["images"][0].startswith("http://127.0.0.1"))

    events = [line["event"] for line in service.log()]
    assert events.count("internal_error") == 0
    assert events.count("not_swept") <= 2
    assert {"ledger_failed", "not_kept"} <= set(events)
