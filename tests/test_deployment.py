"""What ops/ has for a machine that serves others: nginx with TLS in front of the service, and the service under systemd."""

import asyncio
import getpass
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import sync_playwright
from starlette.requests import Request
from starlette.responses import Response

from tests.counting_google import Google
from tests.page.conftest import ARGUMENTS
from tests.page.visit import Visit
from tests.patience import until
from tests.pictures import encoded, png
from tests.services import ROOT, Service, free_port, listens, needs, stand_in_process

pytestmark = pytest.mark.slow
SITE = (ROOT / "ops/nginx-site.conf").read_text(encoding="utf-8")
UNIT = (ROOT / "ops/banana-service.service").read_text(encoding="utf-8")
NAME = "pictures.example.org"
CERTIFICATES = f"/etc/letsencrypt/live/{NAME}"
FOLDER = "/opt/banana-service"
# What a caller comes from, so that it is told from nginx, which is 127.0.0.1 to the service.
CALLER = "127.0.0.2"
# Of request_timeout_seconds and task_timeout_seconds in config.py.
LONGEST_SECONDS = 3600
AROUND_THE_SITE = """
daemon off; worker_processes 1; user {user}; pid {folder}/nginx.pid; error_log {log} warn;
events {{ worker_connections 1024; }}
http {{
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  include {folder}/site.conf;
}}
"""


class HeldGoogle(Google):
    """Answers the first call at once, and every later one only when `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        super().__init__()

    async def _answer(self, request: Request) -> Response:
        if self.calls.total():
            await asyncio.to_thread(self.go_on.wait, 60)
        return await super()._answer(request)


class Site:
    """nginx with a site in front of a service; people reach it as `address`."""

    def __init__(self, folder: Path, text: str, service: Service, port: int) -> None:
        self.folder = folder
        self.service = service
        self.port = port
        self.plain_port = free_port()
        self.address = f"https://{NAME}:{port}"
        folder.mkdir()
        folder.parent.chmod(0o755)
        make_certificate(folder)
        (folder / "site.conf").write_text(self._replaced(text))
        self.error_log = folder / "error.log"
        around = AROUND_THE_SITE.format(folder=folder, log=self.error_log, user=getpass.getuser())
        (folder / "nginx.conf").write_text(around)

    def _replaced(self, text: str) -> str:
        """The site with the test's ports and certificate, and otherwise as it stands."""
        text = text.replace(CERTIFICATES, str(self.folder)).replace("127.0.0.1:8000", f"127.0.0.1:{self.service.port}")
        text = re.sub(r"listen (\[::\]:)?80;", f"listen 127.0.0.1:{self.plain_port};", text, count=1)
        text = re.sub(r"listen (\[::\]:)?443 ", f"listen 127.0.0.1:{self.port} ", text, count=1)
        return re.sub(r"\n *listen \[::\]:.*", "", text).replace("/var/www/html", str(self.folder))

    def nginx(self, *arguments: str) -> list[str]:
        return [shutil.which("nginx") or "nginx", "-c", str(self.folder / "nginx.conf"), *arguments]

    @contextmanager
    def running(self) -> Iterator["Site"]:
        with subprocess.Popen(self.nginx(), stderr=subprocess.DEVNULL) as process:
            try:
                until(lambda: listens(self.port))
                yield self
            finally:
                process.terminate()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """Status and body, as a caller at `CALLER` gets them over TLS."""
        with closing(self.connection()) as connection:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, json.dumps(body).encode() if body is not None else None, given)
            response = connection.getresponse()
            return response.status, response.read()

    def connection(self) -> http.client.HTTPConnection:
        context = ssl.create_default_context(cafile=self.folder / "fullchain.pem")
        plain = socket.create_connection(("127.0.0.1", self.port), 30, (CALLER, 0))
        connection = http.client.HTTPConnection(NAME, self.port)
        connection.sock = context.wrap_socket(plain, server_hostname=NAME)
        return connection


def make_certificate(folder: Path) -> None:
    """Put a certificate of `NAME`, signed by itself, where the site finds certbot's."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "privkey.pem").write_bytes(private)
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def without(setting: str) -> str:
    """The site with nginx's default for one setting."""
    assert setting in SITE
    return SITE.replace(setting, "")


@contextmanager
def started(service: Service) -> Iterator[Service]:
    ran = service.run("start.sh")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    try:
        yield service
    finally:
        service.run("stop.sh")


@pytest.fixture(scope="module")
def google() -> Iterator[HeldGoogle]:
    made = HeldGoogle()
    made.go_on.set()
    yield made
    made.go_on.set()
    made.stop()


@pytest.fixture(scope="module")
def port() -> int:
    """Of nginx, which .env must know."""
    return free_port()


@pytest.fixture(scope="module")
def service(google: HeldGoogle, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the settings that docs/deploy.md wants behind nginx."""
    folder = tmp_path_factory.mktemp("service")
    settings = {"gemini_api_key": "k", "gemini_base_url": google.base_url, "public_url": f"https://{NAME}:{port}"}
    with started(Service(folder, workers=1, rate_limit_per_minute=1000, **settings)) as service:
        yield service


@pytest.fixture(scope="module")
def site(service: Service, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """ops/nginx-site.conf, as it stands."""
    with Site(tmp_path_factory.mktemp("site") / "nginx", SITE, service, port).running() as site:
        yield site


@contextmanager
def changed(text: str, service: Service, folder: Path) -> Iterator[Site]:
    """Another site before the same service, on a port of its own."""
    with Site(folder / "nginx", text, service, free_port()).running() as site:
        yield site


def picture_of(size_bytes: int) -> dict[str, Any]:
    """A request with a picture of that size at least."""
    return {"prompt": "large", "image_base64": encoded(png() + bytes(size_bytes))}


@needs("nginx")
def test_nginx_takes_the_site(site: Site) -> None:
    """`nginx -t` finds no error, and no warning but the newer nginx's of how HTTP/2 is written."""
    ran = subprocess.run(site.nginx("-t"), capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stderr.splitlines() if "[warn]" in line and "http2" not in line] == []


@needs("nginx")
def test_a_large_picture_goes_up_without_touching_the_disk_of_nginx(site: Site) -> None:
    """Four megabytes are 400 % of what nginx takes by itself, and it writes no temporary file."""
    status, body = site.ask("POST", "/generate", picture_of(4_000_000))

    assert status == 200, body
    assert "temporary file" not in site.error_log.read_text()


@needs("nginx")
def test_with_the_defaults_of_nginx_a_picture_over_a_megabyte_is_refused(service: Service, tmp_path: Path) -> None:
    """The 413 is nginx's, in HTML; the service never sees the request."""
    with changed(without("client_max_body_size 0;"), service, tmp_path) as site:
        status, body = site.ask("POST", "/generate", picture_of(1_000_000))

    assert status == 413
    assert b"nginx" in body


@needs("nginx")
def test_with_the_defaults_of_nginx_a_body_goes_to_its_disk(service: Service, tmp_path: Path) -> None:
    """It is read whole, into a temporary file, before the service gets a byte."""
    with changed(without("proxy_request_buffering off;"), service, tmp_path) as site:
        status, _ = site.ask("POST", "/generate", picture_of(4_000_000))
        written = site.error_log.read_text()

    assert status == 200
    assert "a client request body is buffered to a temporary file" in written


@needs("nginx")
def test_nginx_gives_up_when_the_site_says_so(google: HeldGoogle, service: Service, tmp_path: Path) -> None:
    """With a short time-out a slow picture is a 504 of nginx; the site's is longer than any that the service can have."""
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", SITE)
    google.latency_seconds = 4
    with changed(SITE.replace(f"proxy_read_timeout {seconds}s", "proxy_read_timeout 1s"), service, tmp_path) as site:
        status, body = site.ask("POST", "/generate", {"prompt": "slow"})
    google.latency_seconds = 0

    assert (status, b"nginx" in body) == (504, True)
    assert int(seconds) > LONGEST_SECONDS


@needs("nginx")
def test_events_arrive_when_they_happen(google: HeldGoogle, site: Site) -> None:
    """The first picture is there while Google still holds the second, and the end comes when Google has answered."""
    google.calls.clear()
    google.go_on.clear()
    with closing(site.connection()) as connection:
        body = json.dumps({"prompt": "two", "number_of_images": 2})
        connection.request("POST", "/generate", body, {"Accept": "text/event-stream"})
        response = connection.getresponse()
        first = [response.readline() for _ in range(2)]
        google.go_on.set()
        rest = response.read()

    assert first[0] == b"event: image\n"
    assert b"event: image\n" in rest
    assert b"event: done\n" in rest


@needs("nginx")
def test_a_caller_is_who_it_is_and_not_who_it_says(site: Site) -> None:
    """The rate limit and the log count the address that nginx saw, whatever X-Forwarded-For the caller sent."""
    site.ask("POST", "/generate", {"prompt": "x"}, X_Forwarded_For="203.0.113.9", X_Request_ID="who")

    lines = site.service.logged(lambda line: line.get("request_id") == "who" and "caller" in line)
    assert [line["caller"] for line in lines] == [CALLER]


@needs("nginx")
def test_without_the_forwarded_address_everybody_is_one_caller(service: Service, tmp_path: Path) -> None:
    """All would share one rate limit, that of nginx's own address."""
    with changed(without("proxy_set_header X-Forwarded-For $remote_addr;"), service, tmp_path) as site:
        site.ask("POST", "/generate", {"prompt": "x"}, X_Request_ID="nobody")

    lines = service.logged(lambda line: line.get("request_id") == "nobody" and "caller" in line)
    assert {line["caller"] for line in lines} == {"127.0.0.1"}


@needs("nginx")
def test_links_have_the_public_name_and_open_there(site: Site) -> None:
    """A link begins with PUBLIC_URL, and nginx gives the picture."""
    _, body = site.ask("POST", "/generate", {"prompt": "x", "response_format": "url"})
    (link,) = json.loads(body)["images"]

    assert link.startswith(f"{site.address}/results/")
    assert site.ask("GET", link.removeprefix(site.address)) == (200, png())


@needs("nginx")
def test_metrics_stay_inside_and_plain_http_is_sent_to_https(site: Site) -> None:
    """Nobody outside reads /metrics; an http address leads to the same path under https, but for certbot's files."""
    challenge = site.folder / ".well-known/acme-challenge"
    challenge.mkdir(parents=True)
    (challenge / "token").write_text("mine")
    with closing(http.client.HTTPConnection("127.0.0.1", site.plain_port, timeout=10)) as connection:
        connection.request("POST", "/generate?x=1", headers={"Host": NAME})
        response = connection.getresponse()
        response.read()
        connection.request("GET", "/.well-known/acme-challenge/token", headers={"Host": NAME})
        proof = connection.getresponse().read()

    assert site.ask("GET", "/metrics")[0] == 404
    assert (response.status, response.headers["Location"]) == (308, f"https://{NAME}/generate?x=1")
    assert proof == b"mine"


@needs("nginx")
@needs("curl")
def test_http_2_takes_a_large_picture_too(site: Site) -> None:
    """curl speaks HTTP/2 with nginx, sends four megabytes, and gets its picture."""
    (site.folder / "body.json").write_text(json.dumps(picture_of(4_000_000)))
    command = ["curl", "-s", "--cacert", f"{site.folder}/fullchain.pem", "--resolve", f"{NAME}:{site.port}:127.0.0.1"]
    command += ["-d", f"@{site.folder}/body.json", "-o", os.devnull, "-w", "%{http_version} %{http_code}"]
    ran = subprocess.run([*command, f"{site.address}/generate"], capture_output=True, text=True, check=False)

    assert ran.stdout == "2 200", ran.stderr


@needs("nginx")
@needs("chromium")
def test_the_page_makes_a_picture_under_the_public_name(site: Site) -> None:
    """In a real browser, at https://…, without a token and without a complaint."""
    arguments = [*ARGUMENTS, f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        visit = Visit(browser, site, ignore_https_errors=True)  # type: ignore[arg-type] # only its address is used
        visit.make("behind nginx")
        visit.close("404")  # this Google has no list of models
        browser.close()


DEPLOY = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")


def test_what_was_backed_up_is_there_after_a_restore(tmp_path: Path) -> None:
    """The commands of docs/deploy.md: a key and its picture from before the backup are there, one from after it is not."""
    service = Service(tmp_path)
    backup = re.findall(r"^\$ (.*\.state/backup.*)$", DEPLOY.partition("\n## 中文\n")[0], re.MULTILINE)
    (restore, _) = re.findall(r"```bash\n(rm -f \.state/ledger.*?)```", DEPLOY, re.DOTALL)

    def run(commands: str) -> None:
        subprocess.run(["bash", "-euc", commands], cwd=service.folder, check=True)

    def is_replayed(key: str) -> bool:
        headers = {"Idempotency-Key": key}
        with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection:
            connection.request("POST", "/generate", b'{"prompt":"kept"}', headers)
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (200, True)
            return response.headers["Idempotent-Replayed"] == "true"

    with stand_in_process(latency_seconds=0) as google:
        service.set(port=service.port, workers=1, gemini_api_key="k", gemini_base_url=google)
        with started(service):
            first = [is_replayed("before")]
            run("\n".join(backup))
            first.append(is_replayed("after"))
        run("rm -r .state/results .state/ledger.db\n" + restore)
        with started(service):
            second = [is_replayed("before"), is_replayed("after")]

    assert len(backup) == 3
    assert first == [False, False]
    assert second == [True, False]


def unit_in(folder: Path) -> str:
    """The unit, installed in `folder` instead."""
    return UNIT.replace(FOLDER, str(folder))


def commands_of(unit: str, name: str) -> list[list[str]]:
    return [line.split() for line in re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE)]


@needs("systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing wrong: every directive is known, every command is there."""
    service = Service(tmp_path / "installed")
    unit = tmp_path / "banana-service.service"
    unit.write_text(unit_in(service.folder))
    ran = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")


@needs("systemd-analyze")
def test_a_directive_that_is_wrong_would_be_noticed(tmp_path: Path) -> None:
    """The check above can fail: a name that systemd does not know is a complaint."""
    unit = tmp_path / "banana-service.service"
    unit.write_text(unit_in(Service(tmp_path / "installed").folder).replace("PrivateTmp=", "PrivateTemp="))
    ran = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)

    assert "PrivateTemp" in ran.stderr


def test_a_stop_waits_as_long_as_stop_sh_does(tmp_path: Path) -> None:
    """TimeoutStopSec is what a task may take by default, and a little more."""
    service = Service(tmp_path)
    command = [
        f"{service.folder}/venv/bin/python",
        "-c",
        "import config; from scripts import probe; print(probe.stop_seconds(config.read(demo=True)))",
    ]
    printed = subprocess.run(command, cwd=service.folder, capture_output=True, text=True, check=True).stdout

    assert f"TimeoutStopSec={printed.strip()}\n" in UNIT


@contextmanager
def as_systemd_runs_it(service: Service) -> Iterator[subprocess.Popen[bytes]]:
    """Start the unit's command as systemd does: in its folder, at the head of a session, with its environment."""
    (command,) = commands_of(unit_in(service.folder), "ExecStart")
    environment = {"PATH": os.environ["PATH"], "BANANA_UNIT": "banana-service.service"}
    with subprocess.Popen(command, cwd=service.folder, env=environment, start_new_session=True) as process:
        try:
            until(lambda: listens(service.port) and len(service.workers()) == 2)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_the_scripts_know_that_systemd_runs_it(tmp_path: Path) -> None:
    """restart.sh replaces the workers and leaves the process to systemd, stop.sh and start.sh leave all of it."""
    service = Service(tmp_path, workers=2, demo="true")
    assert "Environment=BANANA_UNIT=%n\n" in UNIT
    with as_systemd_runs_it(service) as process:
        workers = set(service.workers())
        service.set(port=service.port, workers=3, demo="true")
        restarted, stopped, started = (service.run(f"{name}.sh") for name in ("restart", "stop", "start"))
        assert process.poll() is None
        assert set(service.workers()).isdisjoint(workers)

    assert restarted.returncode == 0, restarted.stderr
    assert "sudo systemctl restart banana-service.service" in restarted.stdout
    assert (stopped.returncode, started.returncode) == (1, 0)
    assert "sudo systemctl stop banana-service.service" in stopped.stderr
    assert "is already running" in started.stdout
    until(lambda: service.processes() == [])


def test_a_reload_with_a_mistake_in_env_replaces_nothing(tmp_path: Path) -> None:
    """The first of the unit's reload commands fails, with the reason, and systemd runs no second; without it both succeed."""
    service = Service(tmp_path, workers=2, demo="true")
    check, hang_up = commands_of(unit_in(service.folder), "ExecReload")

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=service.folder, capture_output=True, text=True, check=False)

    with as_systemd_runs_it(service) as process:
        workers = set(service.workers())
        service.set(port=service.port, workers=2, demo="true", retries="many")
        wrong = run(check)
        service.set(port=service.port, workers=2, demo="true")
        right = run(check)
        done = run([word.replace("$MAINPID", str(process.pid)) for word in hang_up])
        until(lambda: set(service.workers()).isdisjoint(workers) and len(service.workers()) == 2)

    assert (wrong.returncode, right.returncode, done.returncode) == (1, 0, 0)
    assert "RETRIES" in wrong.stderr
