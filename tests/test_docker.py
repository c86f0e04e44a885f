"""The image and the compose file, built and run for real, with whatever engine there is."""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from banana import __version__
from tests.patience import until
from tests.services import ROOT, free_port, needs, needs_answer

ENGINE = shutil.which("podman") or shutil.which("docker") or "docker"
pytestmark = [pytest.mark.slow, needs(Path(ENGINE).name), needs_answer(ENGINE, "info")]
IMAGE = "banana-service-test"
SOURCE_URL = "https://git.example/banana-service"
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
    labels = ["--build-arg", f"SOURCE_URL={SOURCE_URL}", "--build-arg", "REVISION=0123abc"]
    engine("build", *options, *labels, "-t", IMAGE, ".", timeout=500)
    return IMAGE


@pytest.fixture
def container(image: str) -> Iterator[tuple[str, int]]:
    """A demo in a container; its name and its port on this machine."""
    name, port = f"banana-test-{os.getpid()}", free_port()
    engine("run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:8000", "-e", "DEMO=true", "-e", "WORKERS=1",
           "-e", "MAX_CONNECTIONS=1", image)  # fmt: skip
    try:
        wait_for(port)
        yield name, port
    finally:
        engine("rm", "-f", name)


def wait_for(port: int) -> None:
    until(lambda: asked(f"http://127.0.0.1:{port}/health"))


def generate(port: int, count: int = 1) -> Any:
    body = json.dumps({"prompt": "in a box", "number_of_images": count}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/generate", body)
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
    """Pictures being made while the container is stopped reach their caller, and the stop is quick and clean."""
    name, port = container
    with ThreadPoolExecutor() as pool:
        made = pool.submit(generate, port, 5)  # one after the other, half a second each
        until(lambda: b"banana_upstream_in_flight 1.0" in asked(f"http://127.0.0.1:{port}/metrics"))
        started = time.monotonic()
        engine("stop", "-t", "30", name)
        taken = time.monotonic() - started

    assert len(made.result()["images"]) == 5
    assert taken < 10
    assert engine("inspect", name, "--format", "{{.State.ExitCode}}") in ("0", "143")


def test_the_image_holds_no_key_and_no_junk(image: str) -> None:
    """Neither .env nor tests nor the history of the project is shipped, and nothing that Python made; the licence is."""
    names = set(engine("run", "--rm", image, "ls", "-A", "/app").split())
    made = engine("run", "--rm", image, "find", "/app", "-name", "*.pyc", "-o", "-name", "__pycache__")

    assert names == {".state", "LICENSE", "banana", "config.py", "logs", "main.py", "results", "scripts", "standin"}
    assert engine("run", "--rm", image, "ls", "-A", "/app/scripts") == "probe.py"
    assert made == ""


def generate_with(port: int, key: str) -> tuple[str, bool]:
    """The picture for a key, and whether it was there already; repeated while the balancer asks a machine that is dead."""
    headers = {"Idempotency-Key": key}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/generate", b'{"prompt":"in two boxes"}', headers)
    for _ in range(10):
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return json.load(response)["images"][0], "Idempotent-Replayed" in response.headers
        except urllib.error.HTTPError as error:
            if error.code not in (502, 504):
                raise
    raise AssertionError("every machine is taken for dead")


class Compose:
    """docker-compose.yml and what it mounts, in a folder of its own beside an .env."""

    def __init__(self, folder: Path, **variables: object) -> None:
        self.folder = folder / f"compose-{os.getpid()}"
        shutil.copytree(ROOT / "ops", self.folder / "ops")
        shutil.copy2(ROOT / "docker-compose.yml", self.folder)
        lines = [f"{name.upper()}={value}\n" for name, value in variables.items()]
        (self.folder / ".env").write_text("DEMO=true\nWORKERS=1\n" + "".join(lines))

    def run(self, *arguments: str) -> None:
        command = shutil.which("podman-compose") or shutil.which("docker-compose") or ""
        ran = subprocess.run(
            [command, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def names(self) -> list[str]:
        """The containers that run."""
        found = engine("ps", "--format", "{{.Names}}").split()
        return [name for name in found if self.folder.name in name or name == "banana-service"]

    def named(self, service: str) -> str:
        (name,) = [name for name in self.names() if service in name]
        return name


@pytest.fixture
def compose(image: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Compose]:
    engine("tag", image, "localhost/banana-service:latest")
    composed = Compose(tmp_path, **request.param())
    yield composed
    composed.run("--profile", "scale", "--profile", "watch", "down", "-v")


with_compose = needs("podman-compose" if Path(ENGINE).name == "podman" else "docker-compose")


def with_variables(**variables: int) -> pytest.MarkDecorator:
    """Set these in .env, each to a free port."""
    return pytest.mark.parametrize("compose", [lambda: {name: free_port() for name in variables}], indirect=True)


def port_of(compose: Compose, name: str) -> int:
    (line,) = [line for line in (compose.folder / ".env").read_text().splitlines() if line.startswith(f"{name}=")]
    return int(line.partition("=")[2])


@with_compose
@with_variables(port=0)
def test_compose_brings_it_up_and_down(compose: Compose) -> None:
    """docker-compose.yml with an .env beside it serves on its PORT, under its name, and nothing else is started."""
    compose.run("up", "-d", "--no-build")
    wait_for(port_of(compose, "PORT"))

    assert len(generate(port_of(compose, "PORT"))["images"]) == 1
    assert compose.names() == ["banana-service"]


@with_compose
@with_variables(port=0)
def test_compose_brings_up_two_machines_behind_a_balancer(compose: Compose) -> None:
    """One ledger, one set of pictures: a key is replayed by whichever is asked, also when the other was killed."""
    compose.run("--profile", "scale", "up", "-d", "--no-build", "balancer")
    port = port_of(compose, "PORT")
    wait_for(port)
    first = {key: generate_with(port, key) for key in ("one", "two", "three", "four")}
    again = {key: generate_with(port, key) for key in first}
    until(lambda: sum(carried_out(compose).values()) >= 4)
    begun = carried_out(compose)
    engine("kill", compose.named("machine-1"))
    survived = {key: generate_with(port, key) for key in first}

    assert [replayed for _, replayed in first.values()] == [False] * 4
    assert [replayed for _, replayed in (*again.values(), *survived.values())] == [True] * 8
    assert {key: picture for key, (picture, _) in survived.items()} == {key: one for key, (one, _) in first.items()}
    assert sum(begun.values()) == 4
    assert all(begun.values()), "the balancer spreads them"
    assert "banana-service" not in compose.names()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def carried_out(compose: Compose) -> dict[str, int]:
    """How many requests each machine's log says it has carried out."""
    names = ("machine-1", "machine-2")
    return {name: engine("logs", compose.named(name)).count('"event":"carried_out"') for name in names}


def stand_in_image(tag: str, folder: Path, containerfile: str) -> None:
    """Make an image that stands for one that cannot be fetched here; where there is a registry it is fetched."""
    if subprocess.run([ENGINE, "image", "exists", tag], check=False).returncode == 0:
        return
    (folder / "Containerfile").write_text(containerfile)
    engine("build", "-t", tag, "-f", str(folder / "Containerfile"), str(folder), timeout=120)


GRAFANA = """
import http.server, json, pathlib, sys
home = json.loads(pathlib.Path(sys.argv[1]).read_text())
found = [path.read_text() for path in pathlib.Path("/etc/grafana/provisioning").glob("*/*.yml")]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"title": home["title"], "provisioned": len(found)}).encode())
http.server.ThreadingHTTPServer(("", 3000), Handler).serve_forever()
"""


@pytest.fixture
def watch_images(tmp_path: Path) -> None:
    """Prometheus itself, from Debian; and for Grafana what reads the same files at the same places."""
    if Path(ENGINE).name != "podman":
        return
    shutil.copy2(shutil.which("prometheus") or "", tmp_path / "prometheus")
    stand_in_image(
        "docker.io/prom/prometheus:v3.5.0", tmp_path,
        "FROM docker.io/library/python:3.13-slim\nCOPY prometheus /bin/prometheus\nEXPOSE 9090\n"
        'CMD ["/bin/prometheus","--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"]\n',
    )  # fmt: skip
    (tmp_path / "grafana.py").write_text(GRAFANA)
    stand_in_image(
        "docker.io/grafana/grafana:12.1.0", tmp_path,
        "FROM docker.io/library/python:3.13-slim\nCOPY grafana.py /grafana.py\nEXPOSE 3000\n"
        'CMD ["python","/grafana.py","/etc/banana/grafana-dashboard.json"]\n',
    )  # fmt: skip


@with_compose
@needs("prometheus")
@with_variables(port=0, prometheus_port=0, grafana_port=0)
@pytest.mark.usefixtures("watch_images")
def test_compose_brings_up_what_watches(compose: Compose) -> None:
    """Prometheus finds the service by its name and has the rules; Grafana has the data source and the dashboard."""
    compose.run("--profile", "watch", "up", "-d", "--no-build")
    wait_for(port_of(compose, "PORT"))
    prometheus = f"http://127.0.0.1:{port_of(compose, 'PROMETHEUS_PORT')}/api/v1"
    grafana = f"http://127.0.0.1:{port_of(compose, 'GRAFANA_PORT')}/"

    until(lambda: b'"banana_requests_in_flight"' in asked(f"{prometheus}/query?query=banana_requests_in_flight"))
    rules = json.loads(asked(f"{prometheus}/rules"))["data"]["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert len(rules) == 12
    until(lambda: asked(grafana))
    if Path(ENGINE).name == "podman":
        assert json.loads(asked(grafana)) == {"title": "BananaService", "provisioned": 2}


def asked(url: str) -> bytes:
    """What is there; nothing while it does not answer."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
        content: bytes = response.read()
        return content
    return b""


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

    assert (without_key.returncode, "GEMINI_API_KEY is not set" in without_key.stderr) == (1, True)
    assert "DEMO=true" in without_key.stderr
    assert ".sh" not in without_key.stderr
    assert (without_store.returncode, "STORE_URL cannot be used" in without_store.stderr) == (1, True)
    assert "Traceback" not in without_key.stderr + without_store.stderr


def test_the_image_says_what_it_is(image: str) -> None:
    """Its labels are those that registries show: what it is, of which version and commit, and where its code is."""
    labels = json.loads(engine("inspect", image, "--format", "{{json .Config.Labels}}"))
    prefix = "org.opencontainers.image."

    assert {name.removeprefix(prefix): value for name, value in labels.items() if name.startswith(prefix)} == {
        "title": "BananaService",
        "description": "A relay between your programs and Google's Gemini image models",
        "licenses": "MIT",
        "version": __version__,
        "source": SOURCE_URL,
        "documentation": f"{SOURCE_URL}#readme",
        "revision": "0123abc",
    }
