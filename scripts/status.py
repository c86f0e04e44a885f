"""`python -m scripts.status`: what start.sh and restart.sh say of the service: where it is, in which mode, what was spent."""

import asyncio
import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path

from dotenv import dotenv_values

import config
from banana.ledger.spend import day_of
from banana.money import usd
from scripts.probe import PAUSE_SECONDS, TIMEOUT_SECONDS, address_of, log_path, open_url, read_settings

# Which key the running service has does not matter to what is said of it.
_ANY_KEY = ("any",)
_LAUNCH = re.compile(r"\d+ (True|False) .*?'host': '([^']*)', 'port': (\d+)")


def answers_in_time(address: str, pid: int, seconds: float) -> bool:
    """Return whether the service answers before its process ends or so much time has passed; writes dots meanwhile."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends start.sh as well, without a traceback
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and is_running(pid):
        with suppress(OSError, HTTPException), open_url(f"{address}/health", TIMEOUT_SECONDS):
            return True
        say(".", end="")
        time.sleep(PAUSE_SECONDS)
    return False


def is_running(pid: int) -> bool:
    """Return whether there is such a process."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def summary(settings: config.Settings) -> Iterator[str]:
    """Yield what start.sh says when the service is ready."""
    address = address_of(settings)
    yield f"The service is ready: {address}"
    yield from hints(settings)
    yield from _rows(
        {
            "page": f"{address}/",
            "test": "./test_request.sh",
            "API docs": f"{address}/docs",
            "log": f"./logs.sh   ({log_path(settings)})",
            "stop": "./stop.sh",
        }
    )


def status(settings: config.Settings, workers: str) -> Iterator[str]:
    """Yield where the service is that runs, in which mode, with how many workers, and what was spent today."""
    rows = {"address": address_of(settings), "mode": "demo" if settings.demo else "Google", "workers": workers}
    spent = _spent_today(settings) if settings.ledger_is_a_file else None
    yield from _rows(rows if spent is None else rows | {"spent": f"{spent} USD today (UTC)"})
    yield from hints(settings)


def hints(settings: config.Settings) -> Iterator[str]:
    """Yield what people may not expect of a service that runs with these settings."""
    if settings.demo:
        yield "Demo mode: images come from a built-in simulator. Nothing is sent to Google, nothing is billed."
        if os.environ.get("GEMINI_API_KEY") or dotenv_values(".env").get("GEMINI_API_KEY"):
            yield "GEMINI_API_KEY is set, and the demo does not use it. To use it: ./stop.sh, then ./start.sh (and no DEMO in .env)"
    if not settings.on_loopback and not settings.access_tokens:
        yield (
            f"Warning: it listens on HOST {settings.host} without ACCESS_TOKENS. Anyone who can reach it can spend your money."
            " Set ACCESS_TOKENS in .env, then ./restart.sh."
        )


def as_it_runs(arguments: list[str]) -> config.Settings:
    """Return the settings of the running service: what start.sh wrote down of its start (banana/launcher.py) goes before what is set now."""
    found = None
    with suppress(OSError, IndexError):
        found = _LAUNCH.match(Path(".state/banana.pid").read_text(encoding="utf-8").splitlines()[2])
    if found is None:
        return read_settings(demo="--demo" in arguments, gemini_api_key=_ANY_KEY)
    return read_settings(demo=found[1] == "True", gemini_api_key=_ANY_KEY, host=found[2], port=int(found[3]))


def key_warnings(settings: config.Settings) -> Iterator[str]:
    """Yield what is wrong with the API keys, or with the way to Google: a list of models is asked for, which is free."""
    # Not at the top: it takes a while, and the demo has no key.
    from banana.google.key_check import problems_with

    if not settings.demo:
        keys = settings.gemini_api_key
        yield from (
            f"Warning: {problem}"
            for problem in asyncio.run(problems_with(settings.gemini_base_url, settings.upstream_proxy, keys))
        )


def say(text: str, end: str = "\n") -> None:
    """Print a text that nobody has to read."""
    with suppress(BrokenPipeError):
        print(text, end=end, flush=True)


def _rows(rows: dict[str, str]) -> Iterator[str]:
    return (f"  {name:<10} {text}" for name, text in rows.items())


def _spent_today(settings: config.Settings) -> str | None:
    """Return what all callers have spent since midnight UTC, in USD; None where that is not recorded yet."""
    file = Path(settings.ledger_file)
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as ledger:
        (amount,) = ledger.execute("SELECT SUM(nanodollars) FROM spend WHERE day = ?", [day_of(time.time())]).fetchone()
        return f"{usd(amount or 0):.2f}"
    return None


def _started_with(arguments: list[str]) -> config.Settings:
    """Return the settings of a service that was just started with these arguments."""
    return read_settings(demo=True) if "--demo" in arguments else read_settings()


def main() -> None:
    """Say what start.sh or restart.sh asks for."""
    command, *arguments = sys.argv[1:]
    match command:
        case "--started":
            settings = _started_with(arguments)
            pid, seconds, *_ = arguments
            if not answers_in_time(address_of(settings), int(pid), float(seconds)):
                sys.exit(1)
            say("\n\n" + "\n".join(summary(settings)))
            for warning in key_warnings(settings):
                say(warning)
        case "--running":
            running = as_it_runs(arguments)
            say("\n".join(status(running, workers=arguments[0])))
            if "--wants-demo" in arguments and not running.demo:
                say("It is not the demo: requests are billed. For the demo: ./stop.sh, then ./start.sh --demo")
            if (wanted := address_of(read_settings(demo=True))) != address_of(running):
                say(f"HOST or PORT has changed ({wanted}). To use it: ./restart.sh")
        case "--restarted":
            settings = _started_with(arguments)
            for line in [*hints(settings), *key_warnings(settings)]:
                say(line)
    # What could not be written to a pipe that nobody reads is no error at the exit either.
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
