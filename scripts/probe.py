"""`python -m scripts.probe`: exit 0 and print the address when the service answers; for scripts and health checks.

Needs nothing but the settings and Python, so that it works in an image without curl.
"""

import sys
import urllib.request
from contextlib import suppress
from http.client import HTTPException, HTTPResponse

import config

TIMEOUT_SECONDS = 3
# What a stop may take beyond the deadline of requests and tasks.
STOP_GRACE_SECONDS = 10
# Where start.sh sends standard output.
START_LOG = ".state/start.log"


def read_settings(**values: object) -> config.Settings:
    """Return the settings in force; `values` go before the environment. Exits with one line when they are wrong."""
    try:
        return config.read(None, **values)
    except config.SettingsError as error:
        sys.exit(f"error: {str(error).replace(config.WITHOUT_A_KEY, 'use ./start.sh --demo')}")


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


def answers(address: str) -> bool:
    """Return whether the service answers there."""
    with suppress(OSError, HTTPException), open_url(f"{address}/health", TIMEOUT_SECONDS):
        return True
    return False


def stop_seconds(settings: config.Settings | None) -> int:
    """Return how long a stop may take: the longest deadline of requests and tasks, the workers' own grace, and a little."""
    if settings is None:  # they cannot be read
        settings = config.Settings.model_construct()
    task_seconds = settings.task_timeout_seconds if settings.keep_results_seconds else 0
    return int(max(settings.request_timeout_seconds, task_seconds)) + STOP_GRACE_SECONDS


def main() -> None:
    """Ask `/health`."""
    address = address_of(read_settings(demo=True))  # whether there is a key does not matter here
    try:
        with open_url(f"{address}/health", TIMEOUT_SECONDS):
            print(address)
    except OSError as error:
        sys.exit(f"{address}/health does not answer: {error}")


if __name__ == "__main__":
    main()
