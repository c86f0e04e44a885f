"""What start.sh and restart.sh say of the service: where it is, in which mode, what was spent."""

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import config
from banana.ledger.spend import day_of
from banana.money import usd
from scripts.probe import address_of, log_path


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


def status(settings: config.Settings, workers: int) -> Iterator[str]:
    """Yield where the service is that runs, in which mode, with how many workers, and what was spent today."""
    rows = {"address": address_of(settings), "mode": "demo" if settings.demo else "Google", "workers": str(workers)}
    spent = _spent_today(settings) if settings.ledger_is_a_file else None
    yield from _rows(rows if spent is None else rows | {"spent": f"{spent} USD today (UTC)"})
    yield from hints(settings)


def hints(settings: config.Settings) -> Iterator[str]:
    """Yield what people may not expect of a service that runs with these settings."""
    if settings.demo:
        yield "Demo mode: images come from a built-in simulator. Nothing is sent to Google, nothing is billed."
        if settings.gemini_api_key:
            yield "GEMINI_API_KEY is set, and the demo does not use it. To use it: ./stop.sh, then ./start.sh (and no DEMO in .env)"
    if not settings.on_loopback and not settings.access_tokens:
        yield (
            f"Warning: it listens on HOST {settings.host} without ACCESS_TOKENS. Anyone who can reach it can spend your money."
            " Set ACCESS_TOKENS in .env, then ./restart.sh."
        )


def say(text: str, end: str = "\n") -> None:
    """Print a text that nobody has to read."""
    with suppress(OSError):
        print(text, end=end, flush=True)
        return
    os.dup2(
        os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
    )  # nor is what is left in the buffer an error at the exit


def _rows(rows: dict[str, str]) -> Iterator[str]:
    return (f"  {name:<10} {text}" for name, text in rows.items())


def _spent_today(settings: config.Settings) -> str | None:
    """Return what all callers have spent since midnight UTC, in USD; None where that is not recorded yet."""
    file = Path(settings.ledger_file)
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as ledger:
        (amount,) = ledger.execute("SELECT SUM(nanodollars) FROM spend WHERE day = ?", [day_of(time.time())]).fetchone()
        return f"{usd(amount or 0):.2f}"
    return None
