"""The image and the compose file, built and run for real, with whatever engine there is."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.services import ROOT, free_port, needs, needs_answer

ENGINE = shutil.which("podman") or shutil.which("docker") or "docker"
pytestmark = [pytest.mark.slow, needs(Path(ENGINE).name), needs_answer(ENGINE, "info")]
IMAGE = "banana-service-test"
# What pip inside the build needs of this machine to reach its packages (certificates, its configuration).
MACHINE = [path for path in ("/etc/ssl/certs", "/etc/pip.conf") if Path(path).exists()]


def engine(*arguments: str, timeout: float = 60) -> str:
    ran = subprocess.run([ENGINE, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.strip()


@pytest.fixture(scope="module")
def image() -> str:
    """The image, built from the Dockerfile as it stands."""
    podman = Path(ENGINE).name == "podman"  # its own format knows no HEALTHCHECK, and docker build takes no volumes
    options = ["--format", "docker", *(f"--volume={path}:{path}:ro" for path in MACHINE)] if podman else []
    engine("build", *options, "-t", IMAGE, ".", timeout=500)
    return IMAGE


@pytest.fixture
def container(image: str) -> Iterator[tuple[str, int]]:
    """A demo in a container; its name and its port on this machine."""
    name, port = f"banana-test-{os.getpid()}", free_port()
    engine("run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:8000", "-e", "DEMO=true", "-e", "WORKERS=1", image)
    try:
        wait_for(port)
        yield name, port
    finally:
        engine("rm", "-f", name)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def generate(port: int) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/generate", b'{"prompt":"in a box"}')
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def test_the_container_is_healthy_and_makes_pictures(container: tuple[str, int]) -> None:
    """The health check passes without curl, the process is not root, the log is JSON on standard output."""
    name, port = container
    engine("healthcheck", "run", name) if Path(ENGINE).name == "podman" else None

    assert len(generate(port)["images"]) == 1
    assert engine("exec", name, "id", "-u") != "0"
    assert all(json.loads(line)["event"] for line in engine("logs", name).splitlines())


def test_stopping_finishes_the_request_in_flight(container: tuple[str, int]) -> None:
    """A picture being made while the container is stopped reaches its caller, and the stop is quick and clean."""
    name, port = container
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(generate, port)
        time.sleep(0.2)  # the stand-in takes half a second for a picture
        started = time.monotonic()
        engine("stop", "-t", "30", name)
        taken = time.monotonic() - started

    assert len(asked.result()["images"]) == 1
    assert taken < 10
    assert engine("inspect", name, "--format", "{{.State.ExitCode}}") in ("0", "143")


def test_the_image_holds_no_key_and_no_junk(image: str) -> None:
    """Neither .env nor tests nor the history of the project is shipped."""
    names = set(engine("run", "--rm", image, "ls", "-A", "/app").split())

    assert names == {".state", "banana", "config.py", "logs", "main.py", "scripts", "standin"}


@needs("podman-compose" if Path(ENGINE).name == "podman" else "docker-compose")
def test_compose_brings_it_up_and_down(image: str, tmp_path: Path) -> None:
    """docker-compose.yml with an .env beside it serves on its PORT, under its name."""
    port = free_port()
    compose = shutil.which("podman-compose") or shutil.which("docker-compose") or ""
    shutil.copy2(ROOT / "docker-compose.yml", tmp_path)
    (tmp_path / ".env").write_text(f"DEMO=true\nPORT={port}\nWORKERS=1\n")
    engine("tag", image, "localhost/banana-service:latest")

    def run(*arguments: str) -> None:
        ran = subprocess.run(
            [compose, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr

    run("up", "-d", "--no-build")
    try:
        wait_for(port)
        assert len(generate(port)["images"]) == 1
        assert "banana-service" in engine("ps", "--format", "{{.Names}}").split()
    finally:
        run("down")


def test_settings_meant_for_this_machine_do_not_close_the_container(image: str, tmp_path: Path) -> None:
    """PORT and HOST in .env are not the container's: -p 8000:8000 works as it is printed, read-only too."""
    name, port = f"banana-test-env-{os.getpid()}", free_port()
    (tmp_path / ".env").write_text("DEMO=true\nWORKERS=1\nPORT=9999\nHOST=127.0.0.1\n")
    engine(
        "run",
        "-d",
        "--read-only",
        "--name",
        name,
        "-p",
        f"127.0.0.1:{port}:8000",
        "--env-file",
        f"{tmp_path}/.env",
        image,
    )
    try:
        wait_for(port)
        assert len(generate(port)["images"]) == 1
        engine("healthcheck", "run", name) if Path(ENGINE).name == "podman" else None
    finally:
        engine("rm", "-f", name)


def test_what_is_missing_is_one_line(image: str) -> None:
    """Without a key, or without a place for the store: what to do, no traceback, and no script that the image has not."""
    without_key = subprocess.run(
        [ENGINE, "run", "--rm", image], capture_output=True, text=True, timeout=60, check=False
    )
    store = ["-e", "DEMO=true", "-e", "STORE_URL=sqlite:////nowhere/x.db"]
    without_store = subprocess.run(
        [ENGINE, "run", "--rm", "--read-only", *store, image], capture_output=True, text=True, timeout=60, check=False
    )

    assert (without_key.returncode, "GEMINI_API_KEY is missing" in without_key.stderr) == (1, True)
    assert "DEMO=true" in without_key.stderr
    assert (without_store.returncode, "STORE_URL cannot be used" in without_store.stderr) == (1, True)
    assert "Traceback" not in without_key.stderr + without_store.stderr


def test_the_image_says_what_it_is(image: str) -> None:
    """Its labels are those that registries show."""
    labels = json.loads(engine("inspect", image, "--format", "{{json .Config.Labels}}"))

    assert labels["org.opencontainers.image.title"] == "BananaService"
