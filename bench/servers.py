"""What is measured and what it is measured against, each a process pinned to a core, on ports of loopback."""

import asyncio
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pybase64

ROOT = Path(__file__).parent.parent
# The measured server has one core to itself; the upstream and the load share the other.
SERVER_CORE, LOAD_CORE = 0, (os.cpu_count() or 1) - 1
CHAT_PATH = "/v1/chat/completions"
GOOGLE_PATH = "/v1beta/models/gemini-3-pro-image:generateContent"
READY_SECONDS = 60
# A server is quiet that took less processor time than two ticks of the kernel's clock in so many seconds.
QUIET_SECONDS, QUIET_CPU_SECONDS = 0.1, 0.015
# Bytes of base64 in an answer.
SIZES = {"1 KB": 1000, "0.1 MB": 100_000, "1.4 MB": 1_400_000, "14 MB": 14_000_000}

_NGINX = """
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type application/json; client_max_body_size 200m; sendfile on; keepalive_requests 10000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  {body}
}}
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def nginx_command() -> str | None:
    """Return where nginx is; Debian keeps it out of a user's PATH."""
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


@dataclass
class Server:
    """A server that runs: its process, its address, the path that makes a picture, and its seconds to its first response.

    With `new_keys` each request of the load has an Idempotency-Key of its own.
    """

    name: str
    pid: int
    port: int
    path: str
    ready_seconds: float = 0
    new_keys: bool = False

    @property
    def url(self) -> str:
        """The address of a picture."""
        return f"http://127.0.0.1:{self.port}{self.path}"

    def pids(self) -> list[int]:
        """Return the process and its children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def cpu_seconds(self) -> float:
        """Return the processor time, user's and kernel's, that it took so far."""
        fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split() for pid in self.pids())
        return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")

    def settle(self, most_seconds: float = 10) -> None:
        """Wait until it is quiet: started in all its workers, and through with what its callers left behind."""
        until = time.monotonic() + most_seconds
        before, now = float("-inf"), self.cpu_seconds()
        while now - before > QUIET_CPU_SECONDS and time.monotonic() < until:
            time.sleep(QUIET_SECONDS)
            before, now = now, self.cpu_seconds()

    def forget_peak(self) -> None:
        """Let the kernel count the peak of memory anew."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def memory_bytes(self, what: str) -> int:
        """Return resident memory: `VmRSS` now, `VmHWM` at its peak."""
        lines = (line for pid in self.pids() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return sum(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024


def status_of(port: int, path: str) -> int | None:
    """Return the status of the response to a GET, None where none came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def responds(port: int) -> bool:
    """Tell whether an HTTP response comes, of whatever status."""
    return status_of(port, "/health") is not None


def is_healthy(port: int) -> bool:
    """Tell whether the service can answer; its socket accepts connections before its workers are there."""
    return status_of(port, "/health") == 200


def accepts(port: int) -> bool:
    """Tell whether a connection is accepted; for what does not speak HTTP."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(
    name: str,
    command: list[str],
    port: int,
    path: str,
    core: int | None,
    folder: Path,
    environment: Mapping[str, str] = MappingProxyType({}),
    is_ready: Callable[[int], bool] = responds,
) -> Iterator[Server]:
    """Run a server on a core, None for all of them, until it is no longer needed; yields it once it is ready."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    started = time.perf_counter()
    with (folder / f"{name}.out").open("wb") as out:
        process = subprocess.Popen(
            [*([] if core is None else ["taskset", "-c", str(core)]), *command],
            cwd=folder,
            env={**kept, **environment},
            stdout=out,
            stderr=out,
        )
    try:
        while not is_ready(port):
            if process.poll() is not None or time.perf_counter() - started > READY_SECONDS:
                raise RuntimeError(f"{name} did not start: {(folder / f'{name}.out').read_text()[-2000:]}")
            time.sleep(0.01)
        yield Server(name, process.pid, port, path, time.perf_counter() - started)
    finally:
        process.terminate()
        process.wait(30)


# As Google counts a picture of 1K.
USAGE = {
    "promptTokenCount": 8,
    "candidatesTokenCount": 1120,
    "thoughtsTokenCount": 225,
    "totalTokenCount": 1353,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 8}],
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}],
}


def answer_of(picture_bytes: int) -> bytes:
    """Return an answer of Gemini's with a picture whose base64 has about that many bytes."""
    data = pybase64.b64encode(b"\xff\xd8\xff" + os.urandom(picture_bytes * 3 // 4)).decode()
    part = {"inlineData": {"mimeType": "image/jpeg", "data": data}}
    candidate = {"content": {"parts": [part], "role": "model"}, "finishReason": "STOP", "index": 0}
    return json.dumps({"candidates": [candidate], "usageMetadata": USAGE}).encode()


def nginx_upstream(folder: Path, answer: bytes) -> AbstractContextManager[Server]:
    """Return an upstream that costs little: nginx, which sends every caller the same file."""
    port = free_port()
    (folder / "answer.json").write_bytes(answer)
    site = f"server {{ listen 127.0.0.1:{port}; root {folder}; error_page 405 =200 /answer.json; location / {{ return 405; }} location = /answer.json {{ }} }}"
    return _nginx("upstream", folder, site, port, GOOGLE_PATH, LOAD_CORE)


def nginx_proxy(folder: Path, upstream: Server, *, buffered: bool) -> AbstractContextManager[Server]:
    """Return nginx as people put it in front of something: proxy_pass, buffering by default or off."""
    port = free_port()
    off = "" if buffered else "proxy_buffering off; proxy_request_buffering off;"
    site = (
        f"upstream google {{ server 127.0.0.1:{upstream.port}; keepalive 256; }} server {{ listen 127.0.0.1:{port};"
        f" location / {{ proxy_pass http://google; proxy_http_version 1.1; proxy_set_header Connection ''; {off} }} }}"
    )
    return _nginx("nginx" if buffered else "nginx-unbuffered", folder, site, port, GOOGLE_PATH, SERVER_CORE)


def _nginx(name: str, folder: Path, site: str, port: int, path: str, core: int) -> AbstractContextManager[Server]:
    command = nginx_command()
    if command is None:
        raise RuntimeError("nginx is not installed")
    configuration = folder / f"{name}.conf"
    configuration.write_text(_NGINX.format(folder=folder, name=name, body=site))
    return running(name, [command, "-c", str(configuration), "-p", str(folder)], port, path, core, folder)


def service(
    folder: Path, upstream: Server, core: int | None = SERVER_CORE, /, **settings: str
) -> AbstractContextManager[Server]:
    """Return this service with one worker and everything on; only the rate limit is out of reach."""
    port = free_port()
    given = {
        "GEMINI_API_KEY": "bench",
        "GEMINI_BASE_URL": f"http://127.0.0.1:{upstream.port}/v1beta",
        "PORT": str(port),
        "WORKERS": "1",
        "RATE_LIMIT_PER_MINUTE": "100000000",
        "KEEP_RESULTS_BYTES": "500000000",
    }
    command = [sys.executable, str(ROOT / "main.py")]
    return running("banana", command, port, "/generate", core, folder, given | settings, is_healthy)


def plain_relay(folder: Path, upstream: Server) -> AbstractContextManager[Server]:
    """Return the plain relay under uvicorn as it comes, one worker."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.plain_relay:app", "--port", str(port), "--no-access-log"]
    environment = {"GEMINI_BASE_URL": f"http://127.0.0.1:{upstream.port}/v1beta", "PYTHONPATH": str(ROOT)}
    return running("plain", command, port, "/generate", SERVER_CORE, folder, environment)


def slow_upstream(folder: Path, seconds: float) -> AbstractContextManager[Server]:
    """Return an upstream that answers a small picture after so many seconds, to thousands at once."""
    port = free_port()
    command = [sys.executable, "-m", "bench.servers", str(port), str(seconds)]
    return running("slow", command, port, GOOGLE_PATH, LOAD_CORE, folder, {"PYTHONPATH": str(ROOT)})


class _Slow(asyncio.Protocol):
    """Answers each POST of a kept connection after a pause; looks at nothing but where a request ends.

    Whether it is ready it says at once.
    """

    def __init__(self, answer: bytes, seconds: float) -> None:
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
        self._seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /health "):
            self._transport.write(self._answer)
        elif data.endswith(b"}"):  # the end of a small JSON body
            asyncio.get_running_loop().call_later(self._seconds, self._transport.write, self._answer)


async def _serve_slowly(port: int, seconds: float) -> None:
    answer = answer_of(1000)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Slow(answer, seconds), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve_slowly(int(sys.argv[1]), float(sys.argv[2])))
