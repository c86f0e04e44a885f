"""`python -m scripts.probe`: exit 0 and print the address when the service answers; for scripts and health checks.

Needs nothing but the settings and Python, so that it works in an image without curl.
"""

import os
import signal
import sys
import time
import urllib.request
from contextlib import suppress
from http.client import HTTPException, HTTPResponse

import config

TIMEOUT_SECONDS = 3
# Between two attempts to connect; what is connected is answered as soon as there is a worker.
PAUSE_SECONDS = 0.2
# What stop.sh waits beyond the deadline of requests and tasks: the workers' own grace, and a little.
STOP_GRACE_SECONDS = 10
# Where start.sh sends standard output.
START_LOG = ".state/start.log"


def address_of(settings: config.Settings) -> str:
    """Return the service's address as seen from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 # compared, not bound
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def open_url(request: str | urllib.request.Request, timeout_seconds: float) -> HTTPResponse:
    """Open a URL of this service, never through a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    response: HTTPResponse = opener.open(request, timeout=timeout_seconds)
    return response


def log_path(settings: config.Settings) -> str:
    """Return the file that has the log; what start.sh started writes its standard output to a file too."""
    return START_LOG if settings.log_file == "-" else settings.log_file


def answers_in_time(address: str, pid: int, seconds: float) -> bool:
    """Return whether the service answers before its process ends or so much time has passed; writes dots meanwhile."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends start.sh as well, without a traceback
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and is_running(pid):
        with suppress(OSError, HTTPException), open_url(f"{address}/health", TIMEOUT_SECONDS):
            return True
        print(".", end="", flush=True)
        time.sleep(PAUSE_SECONDS)
    return False


def is_running(pid: int) -> bool:
    """Return whether there is such a process."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def summary(settings: config.Settings) -> str:
    """Return what start.sh prints when the service is ready."""
    address = address_of(settings)
    lines = [f"The service is ready: {address}"]
    if settings.demo:
        lines.append("Demo mode: images come from a built-in simulator. Nothing is sent to Google, nothing is billed.")
    if not settings.on_loopback and not settings.access_tokens:
        lines.append(
            f"Warning: it listens on HOST {settings.host} without ACCESS_TOKENS. Anyone who can reach it can spend your money."
            " Set ACCESS_TOKENS in .env, then ./restart.sh."
        )
    rows = {
        "page": f"{address}/",
        "test": "./test_request.sh",
        "API docs": f"{address}/docs",
        "log": f"./logs.sh   ({log_path(settings)})",
        "stop": "./stop.sh",
    }
    return "\n".join(lines + [f"  {name:<10} {text}" for name, text in rows.items()])


def main() -> None:
    """Ask `/health`; or print how long stop.sh is to wait; or wait for a start, and say what start.sh says in the end."""
    settings = config.read(demo=True)  # whether there is a key does not matter here
    address = address_of(settings)
    match sys.argv[1:]:
        case ["--stop-seconds"]:
            task_seconds = settings.task_timeout_seconds if settings.keep_results_seconds else 0
            print(int(max(settings.request_timeout_seconds, task_seconds)) + STOP_GRACE_SECONDS)
        case ["--started", pid, seconds, *arguments]:
            if not answers_in_time(address, int(pid), float(seconds)):
                sys.exit(1)
            print(f"\n\n{summary(settings if '--demo' in arguments else config.read())}")
        case _:
            _probe(address)


def _probe(address: str) -> None:
    try:
        with open_url(f"{address}/health", TIMEOUT_SECONDS):
            print(address)
    except OSError as error:
        sys.exit(f"{address}/health does not answer: {error}")


if __name__ == "__main__":
    main()
