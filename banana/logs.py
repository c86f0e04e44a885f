"""The log: structlog over the standard library's handlers, one JSON object a line; libraries' lines have the same shape.

The workers share one file. concurrent-log-handler locks it for each line, and rotates it for all of them. Bodies, prompts
and keys are never given to it, and a line that cannot be written costs no request.
"""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import datetime
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from banana.redaction import Redaction, one_line, printable

# Chatty at INFO, or writing whole URLs.
_QUIET = ("httpx", "httpcore", "asyncio", "limits", "watchfiles")
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)
_FIRST = ("timestamp", "level", "event", "request_id")


class LogFileError(Exception):
    """The log file cannot be opened; the message names the setting."""


def configure(
    log_file: str, level: str, max_bytes: int = 0, backups: int = 0, redaction: Redaction | None = None
) -> "list[Handler]":
    """Send every line to `log_file` as JSON (`-`: standard output), and to a terminal for people if there is one.

    Args:
        log_file: a path, or `-`.
        level: the lowest that is written: `debug`, `info`, `warning` or `error`.
        max_bytes: a file that reaches them is renamed to `.1`, and so on up to `.backups`. 0: never, so that logrotate may.
        backups: how many renamed files there are at most.
        redaction: hides what it knows in every line.

    Returns the handlers. Raises LogFileError.
    """
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    hidden = _redacted(redaction or Redaction())
    handlers: list[Handler] = []
    if log_file != "-":
        handlers.append(_file_handler(log_file, max_bytes, backups))
    elif not sys.stdout.isatty():
        handlers.append(StreamHandler.to_standard_output())
    for handler in handlers:
        handler.setFormatter(_formatter(before, hidden, _in_order, structlog.processors.JSONRenderer(_as_json)))
    if sys.stdout.isatty():
        terminal = StreamHandler.to_standard_output()
        terminal.addFilter(_is_record_for_people)
        terminal.setFormatter(_formatter(before, hidden, for_people, console_renderer(colors=True)))
        handlers.append(terminal)
    _install(handlers, level)
    structlog.configure(
        processors=[*before, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    return handlers


def _install(handlers: "list[Handler]", level: str) -> None:
    """Make these the handlers of every logger, instead of those of an earlier configuration."""
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, Handler)]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("slowapi").setLevel(logging.ERROR)  # each 429 has a line of ours already
    logging.getLogger("uvicorn.access").disabled = True  # each request has a line of ours, without what may be a token


def _formatter(before: list[Processor], *processors: Processor) -> ProcessorFormatter:
    return ProcessorFormatter(
        foreign_pre_chain=[*before, structlog.stdlib.add_logger_name],
        processors=[ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info, *processors],
    )


class Handler(logging.Handler):
    """A handler whose failures cost no request: the first of a row is said on standard error.

    Attributes:
        fails: whether the last line could not be written.

    """

    fails = False
    _failed_before = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self._failed_before, self.fails = self.fails, False
        try:
            super().emit(record)
        except Exception:  # WatchedFileHandler looks for its file before it begins to catch
            self.handleError(record)

    def close(self) -> None:
        """Close it; lines that could not be written are lost."""
        with contextlib.suppress(OSError):
            super().close()

    def handleError(self, _: logging.LogRecord) -> None:  # noqa: N802 # logging's name
        """Take notice of the exception that a line met."""
        self.fails = True
        if not self._failed_before:
            with contextlib.suppress(OSError):  # standard error may be on the same disk
                os.write(_STANDARD_ERROR, f"the log cannot be written: {sys.exception()}\n".encode())


class FileHandler(Handler, WatchedFileHandler):
    """A file that somebody else rotates, or none that could be: a device, a pipe."""

    def reopenIfNeeded(self) -> None:  # noqa: N802 # logging's name
        """Open the file anew if another one has its name, in its folder, which somebody may have removed."""
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        super().reopenIfNeeded()


class StreamHandler(Handler, logging.StreamHandler):  # type: ignore[type-arg] # at run time it takes none
    """A stream."""

    @classmethod
    def to_standard_output(cls) -> "StreamHandler":
        """Return one past `sys.stdout`: lines that a full disk left in its buffer would fail multiprocessing's flush of it."""
        return cls(open(_STANDARD_OUTPUT, "w", encoding="utf-8", errors="backslashreplace", closefd=False))


def _file_handler(log_file: str, max_bytes: int, backups: int) -> Handler:
    """Return the handler of a file that can be written. Raises LogFileError."""
    path = Path(log_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
        # A folder that takes no lock file, and the name of another file, are not ours to rotate in.
        if max_bytes and path.is_file() and not path.is_symlink() and os.access(path.parent, os.W_OK):
            return _rotating_handler(path, max_bytes, backups)
        return FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise LogFileError(f"LOG_FILE: {log_file!r} cannot be opened: {error.strerror}") from error


def _rotating_handler(path: Path, max_bytes: int, backups: int) -> Handler:
    """Return the handler of a file that all workers write and rotate."""
    # Not at the top: it imports redis where that is installed (14 MB), and a container logs to standard output.
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    class RotatingFileHandler(Handler, ConcurrentRotatingFileHandler):
        def do_open(self, mode: str | None = None) -> TextIOWrapper:
            """Open the file, in its folder, which somebody may have removed."""
            path.parent.mkdir(parents=True, exist_ok=True)
            return super().do_open(mode)

    return RotatingFileHandler(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")


def _redacted(redaction: Redaction) -> Processor:
    """Return what hides secrets in an event."""

    def hide(_: Any, __: str, event: EventDict) -> EventDict:
        return {name: redaction.text(value) if isinstance(value, str) else value for name, value in event.items()}

    return hide


def _in_order(_: Any, __: str, event: EventDict) -> EventDict:
    """Return an event with what people look for first in front."""
    return {name: event[name] for name in _FIRST if name in event} | dict(event)


def _as_json(event: EventDict, **_: Any) -> str:
    """Return an event as JSON, on one line for every reader; half a surrogate pair is escaped."""
    text = _JSON.encode(event)
    return text if text.isascii() else one_line(text.encode(errors="backslashreplace")).decode()


# Said by uvicorn of every worker at every start and stop; ours say what matters of it.
_ROUTINE = ("Started server", "Waiting for", "Application s", "Shutting down", "Finished server")
# What the text of a readable line says, or only the JSON line has.
_NOT_FOR_PEOPLE = {
    *("timestamp", "level", "event", "message", "status", "method", "path", "duration_ms", "route", "model", "dialect"),
    *("outcome", "key", "logger", "bytes_in", "bytes_out", "upstream_ms", "images_asked", "images_returned", "tokens"),
    *("trace_id", "kept_id", "attempts", "exception"),
}


def is_for_people(event: EventDict) -> bool:
    """Return whether an event has a readable line: not what its request's line says too, nor each worker's start."""
    match event.get("event"):
        case "upstream_attempt":
            return event.get("outcome") != "ok"
        case "carried_out":
            return "task" in event
        case name:
            return not str(name).startswith(_ROUTINE)


def _is_record_for_people(record: logging.LogRecord) -> bool:
    return is_for_people(record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()})


def for_people(_: Any, __: str, event: EventDict) -> EventDict:
    """Return an event for `console_renderer`: the local time, what happened, then what else matters; nothing forges a line."""
    read: EventDict = {"timestamp": _local_time(str(event.get("timestamp", "")))}
    if event.get("event") not in ("request", "upstream_attempt") and event.get("level", "info") != "info":
        read["level"] = printable(str(event["level"]))
    read["event"] = printable(_text_of(event))
    read.update({name: printable(str(value)) for name, value in event.items() if name not in _NOT_FOR_PEOPLE})
    if "exception" in event:
        read["exception"] = "\n".join(map(printable, str(event["exception"]).split("\n")))
    return read


def _text_of(event: EventDict) -> str:
    """Return what an event says: of a request and a call how it ended, how long it took, and what it was."""
    took = f"{event.get('duration_ms', 0)}ms"
    match event.get("event"):
        case "request":
            return f"{event.get('status')} {took} {event.get('method')} {event.get('path')}{_images_of(event)}"
        case "upstream_attempt":
            return f"→ {took} {event.get('model')}: {event.get('outcome')}"
        case name:
            return ": ".join(filter(None, [str(name or ""), str(event.get("message") or "")]))


def _images_of(event: EventDict) -> str:
    asked, returned = event.get("images_asked"), event.get("images_returned")
    return (
        f" {returned if returned == asked else f'{returned}/{asked}'} image{'s' if asked != 1 else ''}"
        if returned
        else ""
    )


def _local_time(timestamp: str) -> str:
    """Return the time of day where the reader is, of a timestamp in UTC; what is none stays as it is."""
    with contextlib.suppress(ValueError):
        return f"{datetime.fromisoformat(timestamp).astimezone():%H:%M:%S}"
    return printable(timestamp)


def console_renderer(*, colors: bool) -> Callable[[Any, str, EventDict], str]:
    """Return what writes an event of `for_people` as one line; a traceback follows on lines of its own."""
    return structlog.dev.ConsoleRenderer(
        colors=colors,
        sort_keys=False,
        pad_level=False,
        pad_event_to=0,
        exception_formatter=structlog.dev.plain_traceback,
    )
