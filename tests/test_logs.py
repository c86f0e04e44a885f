"""The log: one JSON object a line, one request traceable, nothing secret in it."""

import json
import logging
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest

from banana import logs
from banana.app import create_app
from standin.server import StandIn
from tests.conftest import client_of, settings_for

pytestmark = pytest.mark.anyio


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("logs/app.log").read_text(encoding="utf-8").splitlines()]


async def test_one_request_is_found_by_its_id(stand_in: StandIn) -> None:
    """The request's line and those of its calls share the id; they say what happened."""
    stand_in.plan.append("503")
    async with client_of(create_app(settings_for(stand_in))) as client:
        await client.post("/generate", json={"prompt": "a banana"}, headers={"X-Request-ID": "find-me"})

    found = [line for line in lines() if line.get("request_id") == "find-me"]
    assert [line["event"] for line in found] == ["upstream_attempt", "upstream_attempt", "request"]
    assert [line["outcome"] for line in found[:2]] == ["overloaded", "ok"]
    request = found[2]
    assert (request["method"], request["path"], request["status"]) == ("POST", "/generate", 200)
    assert (request["images_asked"], request["images_returned"]) == (1, 1)
    assert request["bytes_out"] > 10_000
    assert request["duration_ms"] > 0


async def test_nothing_secret_is_logged(stand_in: StandIn) -> None:
    """Key, prompt and picture are in no line."""
    picture = "iVBORw0KGgo" + "CANARYPICTURE" * 20
    async with client_of(
        create_app(settings_for(stand_in, gemini_api_key=("CANARY-KEY",), log_level="debug"))
    ) as client:
        await client.post("/generate", json={"prompt": "CANARY-PROMPT", "image_base64": picture})
        await client.post("/generate", json={"prompt": "CANARY-PROMPT", "image_base64": "CANARY"})

    assert "CANARY" not in Path("logs/app.log").read_text(encoding="utf-8")


def test_libraries_lines_have_the_same_shape() -> None:
    """A line of uvicorn's, with a traceback, is one JSON object."""
    logs.configure("logs/app.log", "info")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("went %s", "wrong", extra={"color_message": "x"})

    (line,) = lines()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["event"], line["level"], line["logger"]) == ("went wrong", "error", "uvicorn.error")
    assert "ValueError: two\nlines" in line["exception"]


def test_a_log_that_was_moved_away_is_opened_anew() -> None:
    """logrotate may move the file at any time."""
    logs.configure("logs/app.log", "info")
    logging.getLogger("x").warning("first")
    Path("logs/app.log").rename("logs/app.log.1")
    logging.getLogger("x").warning("second")

    assert [line["event"] for line in lines()] == ["second"]


@pytest.mark.parametrize("max_bytes", [0, 100_000])
def test_a_folder_that_is_gone_costs_nothing(max_bytes: int) -> None:
    """It is made again; where it cannot be, that is known, and whoever logs goes on."""
    (handler,) = logs.configure("logs/app.log", "info", max_bytes, 1)
    logging.getLogger("x").warning("first")
    shutil.rmtree("logs")
    logging.getLogger("x").warning("second")
    assert [line["event"] for line in lines()] == ["second"]
    shutil.rmtree("logs")
    Path("logs").write_text("no folder")
    logging.getLogger("x").warning("third")

    assert handler.fails


def test_standard_output_is_json_when_nobody_reads_along(capfd: pytest.CaptureFixture[str]) -> None:
    """With LOG_FILE=- the lines go to standard output, as Docker wants them."""
    logs.configure("-", "info")
    logging.getLogger("x").warning("hello")
    for handler in logging.getLogger().handlers[:]:
        logging.getLogger().removeHandler(handler)

    assert json.loads(capfd.readouterr().out)["event"] == "hello"


def _write_lines(worker: int) -> None:
    logs.configure("logs/app.log", "info", max_bytes=20_000, backups=99)
    for number in range(1000):
        logging.getLogger("x").warning("%s-%s", worker, number)


def test_rotation_loses_no_line_of_four_workers() -> None:
    """Four processes write 4,000 lines while the log is renamed every 20 kB: every line is somewhere, whole."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(_write_lines, range(4))

    files = list(Path("logs").glob("app.log*"))
    written = [json.loads(line)["event"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(files) > 10
    assert sorted(written) == sorted(f"{worker}-{number}" for worker in range(4) for number in range(1000))


async def test_a_trace_is_honoured_and_prompts_are_logged_when_asked_for(stand_in: StandIn) -> None:
    """The W3C trace id stands in the request's lines; LOG_PROMPTS adds the prompt."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with client_of(create_app(settings_for(stand_in, log_prompts=True))) as client:
        headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        await client.post("/generate", json={"prompt": "a blue banana"}, headers=headers)

    found = [line for line in lines() if line.get("trace_id") == trace]
    assert [line["event"] for line in found] == ["upstream_attempt", "request"]
    request = found[1]
    assert request["prompt"] == "a blue banana"
    assert (request["attempts"], request["tokens"], request["caller"]) == (1, 1353, "127.0.0.1")
    assert request["upstream_ms"] > 0
    assert request["bytes_in"] > 20


async def test_what_is_logged_after_the_application_is_written_at_once(stand_in: StandIn) -> None:
    """uvicorn's last lines: the signal that ends the process leaves no time for a turn of the loop."""
    async with client_of(create_app(settings_for(stand_in))):
        pass
    logging.getLogger("uvicorn.error").warning("the last line")

    assert lines()[-1]["event"] == "the last line"


def test_a_disk_that_is_full_costs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Lines that find no room are lost, which is known, and said once."""
    (handler,) = logs.configure("/dev/full", "info", 100_000_000, 1)
    for number in range(100):
        logging.getLogger("x").warning("%s %s", number, "x" * 100)

    assert handler.fails
    assert capfd.readouterr().err.count("the log cannot be written") == 1


@pytest.mark.parametrize("file", ["/proc/nowhere/app.log", "/dev/null/app.log", "."])
def test_a_log_that_cannot_be_opened_is_one_line(file: str) -> None:
    """The message names the setting."""
    with pytest.raises(logs.LogFileError, match="LOG_FILE"):
        logs.configure(file, "info")


REQUEST = {
    "timestamp": "2026-11-23T08:26:18.1Z", "level": "info", "event": "request", "request_id": "0123456789abcdef" * 2,
    "route": "/generate", "method": "POST", "path": "/generate", "status": 200, "duration_ms": 594.2, "bytes_in": 45,
    "bytes_out": 75555, "dialect": "generate", "caller": "127.0.0.1", "images_asked": 1, "images_returned": 1, "attempts": 1,
    "tokens": 7, "cost_usd": 0.137116, "kept_id": "ab" * 16,
}  # fmt: skip


def shown(event: dict[str, Any]) -> str:
    return logs.console_renderer(colors=False)(None, "", logs.for_people(None, "", event))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "200 594.2ms POST /generate 1 image"),
        ({"images_asked": 4, "images_returned": 3}, "200 594.2ms POST /generate 3/4 images"),
        ({"status": 422, "code": "blocked", "user": "u-1"}, "422 594.2ms POST /generate 1 image"),
        ({"event": "upstream_attempt", "outcome": "overloaded", "model": "m"}, "→ 594.2ms m: overloaded"),
    ],
)
def test_a_request_is_one_line(changes: dict[str, Any], text: str) -> None:
    """Its time, how it ended and how long it took, what was asked, then what else matters."""
    line = shown(REQUEST | changes)

    assert text in line
    assert line.startswith("08:26:18")
    assert "request_id=" + str(REQUEST["request_id"]) in line
    assert "dialect" not in line
    for name in ("code", "user"):
        assert (f"{name}={changes.get(name)}" in line) == (name in changes)


def test_an_event_is_its_message() -> None:
    """What is no request says what happened; a traceback follows."""
    warning = {"event": "store_failed", "level": "error", "message": "Full.", "error": "x"}

    assert "store_failed: Full. error=x" in shown(warning)
    assert shown({"event": "odd", "exception": "one\ntwo"}).endswith("odd\none\ntwo")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"event": "upstream_attempt", "outcome": "ok"}, False),
        ({"event": "upstream_attempt", "outcome": "timeout"}, True),
        ({"event": "carried_out"}, False),
        ({"event": "carried_out", "task": True}, True),
        ({"event": "Started server process [1]"}, False),
        ({"event": "Started parent process [1]"}, True),
        ({"event": "request"}, True),
    ],
)
def test_what_says_nothing_new_is_not_shown(event: dict[str, Any], expected: bool) -> None:
    """A call that went well stands in its request's line; workers start without a word of their own."""
    assert logs.is_for_people(event) == expected
