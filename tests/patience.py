"""Patience: what a service does after its response, or another process in its own time, is waited for."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
# A machine that is busy with something else takes its time.
PATIENCE_SECONDS = 120
# Of the app that runs in the tests' own process.
LOG = Path("logs/app.log")


def until(condition: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """Return what `condition` gives, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.05)
    return found


async def eventually(condition: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """Return what `condition` gives, as soon as that is true; the event loop goes on meanwhile."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.01)
    return found


async def soon(condition: Callable[[], object], seconds: float) -> None:
    """Return when `condition` holds, which is within so many seconds as this event loop counts them.

    It looks a hundred times a second: where the machine is busy, what runs in the loop has as many turns, and more time.
    """
    for _ in range(round(100 * seconds)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it was not so within {seconds} s")


def lines_of(log: Path = LOG) -> list[dict[str, Any]]:
    """Every line of a log, parsed, but one that is being written; none where there is no log yet."""
    *whole, _ = log.read_bytes().split(b"\n") if log.exists() else [b""]
    return [json.loads(line) for line in whole]


def matching(is_meant: Callable[[dict[str, Any]], object], count: int, log: Path = LOG) -> list[dict[str, Any]]:
    """The lines of a log that are meant; none before there are `count` of them."""
    found = [line for line in lines_of(log) if is_meant(line)]
    return found if len(found) >= count else []


async def logged(is_meant: Callable[[dict[str, Any]], object], count: int = 1) -> list[dict[str, Any]]:
    """The lines of the log that are meant, when there are `count`: a line is written when its response has been sent."""
    return await eventually(lambda: matching(is_meant, count))
