"""The scripts, as a person runs them: whole services in folders of their own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from PIL import Image

from banana import __version__
from tests.patience import until
from tests.services import ROOT, Service, listens, needs, stand_in_process

pytestmark = pytest.mark.slow


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that is not started yet; whatever a test leaves of it is ended."""
    made = Service(tmp_path, workers=2)
    yield made
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


def ask(service: Service, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body else None
    url = service.address + ("/generate" if body else "/health")
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=20) as response:
        return json.load(response)


def test_starting_twice_and_stopping_twice_are_successes(service: Service) -> None:
    """A second start says that it runs; a second stop that it does not; nothing is left behind."""
    first, second = service.run("start.sh", "--demo"), service.run("start.sh", "--demo")
    stopped, stopped_again = service.run("stop.sh"), service.run("stop.sh")

    assert (first.returncode, second.returncode, stopped.returncode, stopped_again.returncode) == (0, 0, 0, 0)
    assert f"ready: {service.address}" in first.stdout
    assert "./stop.sh" in first.stdout
    assert "already running" in second.stdout
    assert "not running" in stopped_again.stdout
    assert service.processes() == []


def test_the_requests_script_saves_pictures_that_open(demo: Service) -> None:
    """test_request.sh prints where its two pictures are, and they open."""
    ran = demo.run("test_request.sh")

    assert ran.returncode == 0, ran.stderr
    for name in ("from_words.jpg", "from_picture.jpg"):
        path = demo.folder / "test_pictures" / name
        assert str(path) in ran.stdout
        Image.open(path).load()


def test_what_runs_and_what_was_billed_are_told_as_they_are(tmp_path: Path) -> None:
    """A service with a key is not the demo, whatever is set where the scripts are run; a change of the port is told."""
    with stand_in_process(latency_seconds=0) as google:
        service = Service(tmp_path / "service", workers=1, gemini_base_url=google)
        started = service.run("start.sh", GEMINI_API_KEY="k")
        asked = service.run("test_request.sh")
        running = service.run("start.sh", "--demo", PORT=str(service.port + 1))
        service.run("stop.sh")

    assert started.returncode == 0, started.stderr
    assert "2 images, 0.275 USD\n" in asked.stdout
    assert (running.returncode, "already running" in running.stdout) == (0, True), running.stderr
    for line in (service.address, "mode       Google", "workers    1", "USD today (UTC)", "It is not the demo"):
        assert line in running.stdout
    assert f"HOST or PORT has changed (http://127.0.0.1:{service.port + 1})" in running.stdout


def test_the_requests_script_fails_with_a_clear_line(service: Service) -> None:
    """Without a service it says so and exits 1."""
    ran = service.run("test_request.sh")

    assert ran.returncode == 1
    assert "does not answer: Connection refused. Start the service with ./start.sh" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_the_demo_says_so_in_the_logs_first_line(demo: Service) -> None:
    """Nobody takes the demo for the real thing."""
    assert demo.log()[0]["event"] == "demo_mode"


def test_without_a_key_the_start_stops_with_one_line(service: Service) -> None:
    """A missing key names the setting and the way to try without one; nothing is faked."""
    ran = service.run("start.sh")

    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "GEMINI_API_KEY" in ran.stderr
    assert "./start.sh --demo" in ran.stderr
    assert service.processes() == []


def test_a_missing_env_file_is_made_from_the_example(service: Service) -> None:
    """A fresh clone gets its .env."""
    (service.folder / ".env").unlink()

    service.run("start.sh")

    assert (service.folder / ".env").read_text() == (service.folder / ".env.example").read_text()


def test_a_taken_port_is_said(service: Service) -> None:
    """Somebody else's port stops the start with a line that names it."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", service.port))
        other.listen()
        ran = service.run("start.sh", "--demo")

    assert ran.returncode == 1
    assert ran.stderr.startswith(f"error: PORT {service.port} is already in use by python")
    assert f"(pid {os.getpid()})" in ran.stderr
    assert "set another PORT" in ran.stderr


def test_an_application_that_cannot_be_built_stops_the_start(service: Service) -> None:
    """Broken code ends in exit 1 and its traceback, and leaves no process."""
    app = service.folder / "banana/app.py"
    app.write_text(
        app.read_text()
        + "\n\n_create_app = create_app\n\n\ndef create_app(*_, **__):\n    raise RuntimeError('no bananas')\n"
    )

    ran = service.run("start.sh", "--demo")

    assert ran.returncode == 1
    assert "no bananas" in ran.stderr
    until(lambda: service.processes() == [])


def test_a_failed_start_shows_the_end_of_the_log(service: Service) -> None:
    """A worker that fails as it starts ends in exit 1 and the log's end, and leaves no process."""
    app = service.folder / "banana/app.py"
    before = "        running = ("
    assert before in app.read_text()
    app.write_text(app.read_text().replace(before, f'        raise RuntimeError("no bananas")\n{before}'))

    ran = service.run("start.sh", "--demo")

    assert ran.returncode == 1
    assert "no bananas" in ran.stderr
    assert "stopped while it was starting" in ran.stderr
    until(lambda: service.processes() == [])


def test_a_python_without_venv_is_said(service: Service, tmp_path: Path) -> None:
    """Debian ships Python without venv; the script names the package and leaves no half-made environment."""
    shutil.rmtree(service.folder / "venv")
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "python3").write_text(f'#!/bin/sh\n[ "$2" = venv ] && mkdir venv && exit 1\nexec {sys.executable} "$@"\n')
    (fake / "python3").chmod(0o755)

    ran = service.run("start.sh", "--demo", PATH=f"{fake}:/usr/bin:/bin")

    assert ran.returncode == 1
    assert "python3-venv" in ran.stderr
    assert not (service.folder / "venv").exists()


@pytest.mark.parametrize("name", ["venv", ".venv"])
def test_an_environment_that_was_made_by_hand_is_used(service: Service, name: str) -> None:
    """Nothing is installed twice, and no second environment made; so is one of an earlier release, where that is there."""
    made, requirements = service.folder / name, service.folder / "requirements.txt"
    (service.folder / "venv").rename(made)
    for stamp in made.glob("installed-*"):
        stamp.unlink()
    # The tests' own environment has other versions of a few.
    here = {
        (package.metadata["Name"].lower().replace("_", "-"), package.version) for package in metadata.distributions()
    }
    lines = requirements.read_text().splitlines()
    requirements.write_text(
        "\n".join(line for line in lines if ";" not in line and tuple(line.partition("=="))[::2] in here)
    )

    started = service.run("start.sh", "--demo")
    tested = service.run("test_request.sh")
    stopped = service.run("stop.sh")

    assert (started.returncode, tested.returncode, stopped.returncode) == (0, 0, 0), started.stderr + tested.stderr
    assert "Installing" not in started.stdout
    assert not (service.folder / ({"venv", ".venv"} - {name}).pop()).exists()


def test_stopping_lets_the_request_in_flight_finish(service: Service) -> None:
    """Pictures that are being made when the service is stopped reach their caller."""
    service.set(port=service.port, workers=2, max_connections=1)
    service.run("start.sh", "--demo")

    def is_at_google() -> bool:
        return "banana_upstream_in_flight 1.0" in httpx.get(f"{service.address}/metrics", trust_env=False).text

    with ThreadPoolExecutor() as pool:
        # One after the other, half a second each.
        asked = pool.submit(ask, service, {"prompt": "the last ones", "number_of_images": 5})
        until(is_at_google)
        stopped = service.run("stop.sh")

    assert stopped.returncode == 0
    assert len(asked.result()["images"]) == 5
    assert service.processes() == []


def test_a_process_that_is_not_ours_is_never_ended(service: Service) -> None:
    """A stale pid file whose number now is another process's changes nothing."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (service.folder / ".state").mkdir()
        (service.folder / ".state/banana.pid").write_text(f"{stranger.pid}\n12345\n\n")
        ran = service.run("stop.sh")
        alive = stranger.poll() is None
        stranger.kill()

    assert ran.returncode == 0
    assert "not running" in ran.stdout
    assert alive


@pytest.mark.parametrize("record", ["kept", "gone", "-1\n0\nx\n"])
def test_workers_whose_parent_was_killed_are_ended(service: Service, record: str) -> None:
    """kill -9 of the parent leaves its workers; start says so, and stop ends them, whatever became of the file with its id."""
    service.run("start.sh", "--demo")
    parent, file = service.pid(), service.folder / ".state/banana.pid"
    os.kill(parent, signal.SIGKILL)
    until(lambda: parent not in service.processes())
    if record != "kept":
        file.unlink()
    if record not in ("kept", "gone"):
        file.write_text(record)

    again = service.run("start.sh", "--demo")
    stopped = service.run("stop.sh")

    assert again.returncode == 1
    assert "./stop.sh" in again.stderr
    assert stopped.returncode == 0
    until(lambda: service.processes() == [])


def test_a_restart_takes_new_code_and_new_settings(service: Service) -> None:
    """What changed in the code and in .env is in force after ./restart.sh, and the demo stays a demo."""
    service.run("start.sh", "--demo")
    service.write_version("9.9.1")
    service.set(port=service.port, workers=2, rate_limit_per_minute=7)

    restarted = service.run("restart.sh")
    version = service.version()
    with urllib.request.urlopen(
        urllib.request.Request(f"{service.address}/generate", b'{"prompt":"x"}'), timeout=20
    ) as response:
        headers = response.headers
    service.run("stop.sh")

    assert restarted.returncode == 0, restarted.stderr
    assert version == "9.9.1"
    assert headers["X-RateLimit-Limit"] == "7"
    assert headers["X-Demo"] == "true"


def test_a_demo_that_is_switched_off_is_over_after_a_restart(service: Service) -> None:
    """DEMO in .env needs a stop and a start, and gets it: no demo picture is taken for Google's, and none of Google's for a demo."""
    service.set(port=service.port, workers=2, demo="true")
    service.run("start.sh")
    service.set(
        port=service.port, workers=2, gemini_api_key="k", gemini_base_url="http://127.0.0.1:9/v1beta", retries=0
    )

    restarted = service.run("restart.sh")
    response = httpx.post(f"{service.address}/generate", json={"prompt": "x"}, trust_env=False)
    service.run("stop.sh")

    assert "needs a stop and a start" in restarted.stdout
    assert response.status_code == 502
    assert "x-demo" not in response.headers


def test_the_foreground_follows_changes(service: Service) -> None:
    """run.sh serves, and takes up changed code by itself."""
    process = subprocess.Popen(
        ["./run.sh", "--demo"],
        cwd=service.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        until(lambda: service.version() == __version__)
        service.write_version("9.9.2")
        until(lambda: service.version() == "9.9.2")
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=15)
    until(lambda: service.processes() == [])


def test_a_fresh_clone_needs_one_command(tmp_path: Path) -> None:
    """With no virtual environment and an empty home, ./start.sh --demo installs everything and serves."""
    fresh = Service(tmp_path / "clone", workers=1)
    shutil.rmtree(fresh.folder / "venv")
    home = tmp_path / "home"
    home.mkdir()
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}

    started = fresh.run("start.sh", "--demo", timeout=900, HOME=str(home), **pip)
    asked = fresh.run("test_request.sh")
    fresh.run("stop.sh")

    assert started.returncode == 0, started.stderr
    assert "Installing" in started.stdout
    assert asked.returncode == 0, asked.stderr


def test_two_starts_at_the_same_moment_are_one_service(service: Service) -> None:
    """Of five, one starts it and four find it running; one stop ends it all."""
    with ThreadPoolExecutor() as pool:
        ran = list(pool.map(lambda _: service.run("start.sh", "--demo"), range(5)))
    parents = [pid for pid in service.processes() if b"main.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    stopped = service.run("stop.sh")

    assert [one.returncode for one in ran] == [0] * 5
    assert sum("already running" in one.stdout for one in ran) == 4
    assert (len(parents), stopped.returncode, service.processes()) == (1, 0, [])


def test_two_parents_cannot_listen_on_one_port(service: Service) -> None:
    """Also without the scripts: the second `python main.py` ends with one line."""
    command = ["venv/bin/python", "main.py", "--demo"]
    with subprocess.Popen(command, cwd=service.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        until(lambda: listens(service.port))
        second = subprocess.run(command, cwd=service.folder, capture_output=True, text=True, timeout=30, check=False)
        first.terminate()

    assert second.returncode == 1
    assert f"by the BananaService of this folder (pid {first.pid})" in second.stderr
    assert "or take another port" in second.stderr
    assert "Traceback" not in second.stderr


def test_by_another_name_of_the_folder_it_is_the_same_service(
    service: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Started here, stopped through a symbolic link; moved while it runs, it is still found."""
    link = tmp_path_factory.mktemp("link") / "service"
    link.symlink_to(service.folder)
    assert service.run("start.sh", "--demo").returncode == 0
    again = subprocess.run([f"{link}/start.sh", "--demo"], capture_output=True, text=True, timeout=60, check=False)
    stopped = subprocess.run([f"{link}/stop.sh"], capture_output=True, text=True, timeout=60, check=False)

    assert "already running" in again.stdout
    assert "Stopped." in stopped.stdout
    assert service.processes() == []


def test_the_pid_file_of_a_process_that_lives_is_kept(service: Service) -> None:
    """What it names lives and is not recognized: nothing is stopped, nothing is deleted, and the script says so."""
    with subprocess.Popen(["sleep", "60"]) as other:
        started = Path(f"/proc/{other.pid}/stat").read_text().rpartition(") ")[2].split()[19]
        (service.folder / ".state").mkdir()
        (service.folder / ".state/banana.pid").write_text(f"{other.pid}\n{started}\n")
        ran = service.run("stop.sh")
        assert other.poll() is None
        other.terminate()

    assert ran.returncode == 1
    assert f"process {other.pid}" in ran.stderr
    assert (service.folder / ".state/banana.pid").exists()


@needs("flock")
def test_nothing_that_was_open_stays_open_in_the_service(service: Service) -> None:
    """A lock held around start.sh is free when start.sh has ended."""
    lock = service.folder / "lock"
    command = ["flock", str(lock), "./start.sh", "--demo"]
    assert subprocess.run(command, cwd=service.folder, capture_output=True, timeout=60, check=False).returncode == 0
    free = subprocess.run(["flock", "-n", str(lock), "true"], timeout=10, check=False)
    service.run("stop.sh")

    assert free.returncode == 0


@pytest.mark.parametrize(
    "script", ["start.sh", "stop.sh", "restart.sh", "run.sh", "test_request.sh", "check.sh", "logs.sh"]
)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_script_says_what_it_does(service: Service, script: str, option: str) -> None:
    """Asked for help it does nothing else."""
    ran = service.run(script, option)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(ran.stdout) > 80
    assert not ran.stdout.startswith("#")
    assert service.processes() == []


def test_what_is_private_is_readable_by_its_owner_alone(service: Service) -> None:
    """.env, the log and the store."""
    (service.folder / ".env").unlink()
    assert service.run("start.sh", "--demo", PORT=str(service.port)).returncode == 0
    service.run("stop.sh", PORT=str(service.port))

    for name in (".env", "logs/app.log", ".state/demo/banana.db", ".state"):
        assert (service.folder / name).stat().st_mode & 0o077 == 0, name


def test_the_last_words_say_what_matters(service: Service) -> None:
    """The page, that it is the demo, where the log is; and that anyone may spend money, where anyone may."""
    service.set(port=service.port, workers=1, host="0.0.0.0", log_file="elsewhere/service.log",
                budgets="ann=1/day")  # fmt: skip
    ran = service.run("start.sh", "--demo")
    shown = service.run("logs.sh")
    service.run("stop.sh")

    assert f"{service.address}/" in ran.stdout
    assert "Demo mode" in ran.stdout
    assert "elsewhere/service.log" in ran.stdout
    assert "Anyone who can reach it can spend your money. Set ACCESS_TOKENS" in ran.stdout
    assert "open_to_everyone" in shown.stdout
    assert "BUDGETS names ann, which is not an IP address" in shown.stdout


def test_a_key_is_asked_for_before_anything_is_installed(service: Service) -> None:
    """And where one is had; in a folder that has no .env yet."""
    shutil.rmtree(service.folder / "venv")
    (service.folder / ".env").unlink()
    ran = service.run("start.sh")

    assert ran.returncode == 1
    assert "https://aistudio.google.com/apikey" in ran.stderr
    assert not (service.folder / "venv").exists()


def test_the_requests_script_uses_a_token_and_knows_an_installation_that_failed(service: Service) -> None:
    """ACCESS_TOKENS of .env open the door; without packages there is one line."""
    service.set(port=service.port, workers=1, access_tokens="anna:first-token,second-token")
    assert service.run("start.sh", "--demo").returncode == 0
    ran = service.run("test_request.sh")
    service.run("stop.sh")
    (service.folder / "venv/installed-requirements.txt").unlink()
    without = service.run("test_request.sh")

    assert ran.returncode == 0, ran.stderr
    assert (without.returncode, "Traceback" in without.stderr) == (1, False)
    assert "./start.sh" in without.stderr


@pytest.mark.parametrize("script", ["start.sh", "stop.sh", "restart.sh", "run.sh", "test_request.sh"])
def test_an_argument_that_is_not_known_is_refused(service: Service, script: str) -> None:
    """A typo is not taken for nothing; the line names the help."""
    ran = service.run(script, "--dmeo")

    assert (ran.returncode, ran.stderr) == (1, f"error: unknown argument --dmeo. See ./{script} --help\n")


@needs("flock")
def test_a_start_that_waits_for_another_says_so(service: Service) -> None:
    """The first may take a minute to install."""
    (service.folder / ".state").mkdir(mode=0o700)
    locked, said = ["flock", ".state/start.lock", "cat"], service.folder / "said"
    with said.open("w") as out, subprocess.Popen(locked, cwd=service.folder, stdin=subprocess.PIPE) as first:
        until(lambda: subprocess.run(["flock", "-n", ".state/start.lock", "true"], cwd=service.folder).returncode)
        with subprocess.Popen(["./start.sh"], cwd=service.folder, stdout=out, stderr=subprocess.DEVNULL):
            try:
                until(lambda: "Another ./start.sh is already starting the service" in said.read_text())
            finally:
                first.communicate()  # at the end of its input it is over


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("script", ["start.sh", "stop.sh", "restart.sh"])
def test_the_service_of_another_user_is_left_alone(script: str) -> None:
    """One line says whose part it is; nothing is deleted, and no command of the shell complains."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        Path(folder, ".state").mkdir(mode=0o700)
        Path(folder, "scripts").mkdir(mode=0o755)
        for name in (script, "scripts/environment.sh"):
            shutil.copy2(ROOT / name, f"{folder}/{name}")
        ran = subprocess.run(
            [f"./{script}"], cwd=folder, capture_output=True, text=True, timeout=30, user="nobody", check=False
        )

    assert ran.returncode == 1
    assert ran.stderr == (
        f"error: {folder}/.state belongs to root. Run this as the user who started the service, or take it over:"
        f" sudo chown -R nobody {folder}/.state\n"
    )


def test_a_log_on_standard_output_is_found(service: Service) -> None:
    """With LOG_FILE=-, what start.sh started writes to a file all the same: it is named, and logs.sh shows it."""
    service.set(port=service.port, workers=1, log_file="-")
    started = service.run("start.sh", "--demo")
    shown = service.run("logs.sh")
    service.run("stop.sh")

    assert "./logs.sh   (.state/start.log)" in started.stdout
    assert "demo_mode" in shown.stdout


def test_one_request_is_found_in_the_log(demo: Service) -> None:
    """By its X-Request-ID, or the beginning of it: with its calls to Google, and without any other request."""
    for request_id in ("find-me", "other"):
        httpx.post(
            f"{demo.address}/generate", json={"prompt": "x"}, headers={"X-Request-ID": request_id}, trust_env=False
        )
    demo.logged(lambda line: line["event"] == "request" and line["request_id"] == "find-me")
    shown = demo.run("logs.sh", "--request", "find-").stdout.splitlines()

    assert [line.split()[1] for line in shown] == ["→", "200"]
    assert all("find-me" in line for line in shown)


def test_the_log_is_readable(demo: Service) -> None:
    """A line a request, its status first, within the width of a screen; of probes that went well there is none."""

    def is_made(line: dict[str, Any]) -> bool:
        return bool(line["event"] == "request" and line["path"] == "/generate")

    before = [line for line in demo.log() if is_made(line)]
    demo.run("test_request.sh")
    demo.logged(is_made, len(before) + 2)
    shown = demo.run("logs.sh", "--last", "20").stdout
    requests = [line for line in shown.splitlines() if "POST /generate" in line]

    assert "200 " in requests[-1]
    assert "/health" not in shown
    assert "1 image" in requests[-1]
    assert "upstream_attempt" not in shown
