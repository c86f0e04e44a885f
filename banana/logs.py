"""The log: one JSON object a line, in the same shape for this service and for the libraries below it.

Lines are appended whole, so that several workers can share one file; one that is full is renamed, and every worker opens
the new one with its next line, as it does after logrotate, without a signal. What is logged in one turn of the event loop
is written at its end, together. Bodies, prompts and keys are never given to it.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import structlog

from banana.redaction import Redaction, printable

# Chatty at INFO, or writing whole URLs.
_QUIET = ("httpx", "httpcore", "aiohttp", "asyncio", "limits", "watchfiles")
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2
_FIRST = ("timestamp", "level", "event", "request_id")
_LEVELS = {level: name.lower() for name, level in logging.getLevelNamesMapping().items()}
# What every line of a request has: its id, and that of its trace.
request_fields: ContextVar[Mapping[str, str]] = ContextVar("request_fields", default=MappingProxyType({}))


def configure(
    log_file: str, level: str, max_bytes: int = 0, backups: int = 0, redaction: Redaction | None = None
) -> "Sink":
    """Send every line to `log_file` as JSON (`-`: standard output), and to a terminal in colour if there is one.

    Returns where they go. Raises LogFileError.

    A file that reaches `max_bytes` (0: any size) is renamed to `.1`, and so on up to `.backups`, and a new one is begun.
    What `redaction` knows stands in no line.
    """
    sink = Sink(log_file, max_bytes, backups, redaction or Redaction())
    structlog.configure(
        processors=[
            _with_request,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )
    global _lines
    _lines = _Lines(sink, logging.getLevelNamesMapping()[level.upper()])
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Foreign)]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(_Foreign(sink))
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("slowapi").setLevel(logging.ERROR)  # each 429 has a line of ours already
    logging.getLogger("uvicorn.access").disabled = True  # each request has a line of ours, without what may be a token
    return sink


def write(level: int, event: str, fields: Mapping[str, Any]) -> None:
    """Write a line as structlog would, without what it builds anew for each: a request has two of these.

    `level` is that of the standard library's logging.
    """
    if _lines is None:
        structlog.get_logger().log(level, event, **fields)
    elif level >= _lines.level:
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        _lines.sink.append({"timestamp": at, "level": _LEVELS[level], "event": event, **request_fields.get(), **fields})


class LinesOf:
    """A context manager: every line written meanwhile is one of this request."""

    def __init__(self, request_id: str, trace_id: str | None = None) -> None:
        self._fields = {"request_id": request_id} | ({"trace_id": trace_id} if trace_id else {})

    def __enter__(self) -> None:
        """Begin."""
        self._token = request_fields.set(self._fields)

    def __exit__(self, *_: object) -> None:
        """End."""
        request_fields.reset(self._token)


def _with_request(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**request_fields.get(), **event}


def digest_of(secret: str) -> str:
    """Return eight characters that stand for a secret where people look."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


class _Lines(NamedTuple):
    """Where `write` writes, and from which level on."""

    sink: "Sink"
    level: int


_lines: _Lines | None = None


class LogFileError(Exception):
    """The log file cannot be opened; the message names the setting."""


class Sink:
    """Where lines go: a structlog logger whose every method writes the event it is given.

    Attributes:
        fails: whether the last line could not be written.

    """

    def __init__(self, log_file: str, max_bytes: int, backups: int, redaction: Redaction) -> None:
        self._redacted = redaction.text
        self._path = None if log_file == "-" else Path(log_file)
        self._max_bytes = max_bytes
        self._backups = backups
        self._file = -1
        self._inode = self._size_bytes = 0
        self._unwritten: list[bytes] = []
        self._writes_on: asyncio.AbstractEventLoop | None = None  # at the end of whose turn they are written
        self._writes_at_once = False
        self.fails = False
        self._lock = threading.Lock()  # not only the event loop writes
        self._has_terminal = sys.stdout.isatty()
        if self._path:
            try:
                self._open(self._path)
            except OSError as error:
                raise LogFileError(f"LOG_FILE: {log_file!r} cannot be opened: {error.strerror}") from error

    def write(self, **event: Any) -> None:
        """Write one line."""
        self.append(event)

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one line, whole, at the end of the event loop's turn, where one runs; it never costs a request."""
        loop = None if self._writes_at_once else _running_loop()
        try:
            with self._lock:
                self._take(event)
                if loop is None:
                    self._write()
                elif self._unwritten and self._writes_on is not loop:
                    loop.call_soon(self.write_taken)
                    self._writes_on = loop
        except Exception as error:  # a full disk, a text that is no Unicode
            self._notice(error)

    def write_at_once(self) -> None:
        """Gather no more lines: the process is about to end, by a signal that leaves no time for it."""
        self._writes_at_once = True
        self.write_taken()

    def write_taken(self) -> None:
        """Write the lines of the turn, in one system call."""
        try:
            with self._lock:
                self._writes_on = None
                self._write()
        except Exception as error:
            self._notice(error)

    def _notice(self, error: Exception) -> None:
        """Say it where somebody may look, once."""
        if not self.fails:
            # Past Python's buffers, here and below: what cannot be flushed stays in them, and makes the next flush fail,
            # which multiprocessing does before it starts a worker.
            with contextlib.suppress(OSError):  # standard error may be on the same disk
                os.write(_STANDARD_ERROR, f"the log cannot be written: {error}\n".encode())
        self.fails = True

    def _take(self, event: Mapping[str, Any]) -> None:
        event = {name: self._redacted(value) if type(value) is str else value for name, value in event.items()}
        if self._path or not self._has_terminal:
            self._unwritten.append(_json(event))
        if self._has_terminal and is_for_people(event):
            _write_all(_STANDARD_OUTPUT, f"{readable(event, on_terminal=True)}\n".encode())

    def _write(self) -> None:
        """Write what was taken; where that fails, it is lost. Raises OSError."""
        lines, self._unwritten = b"".join(self._unwritten), []
        if not lines:
            return
        if self._path is None:
            _write_all(_STANDARD_OUTPUT, lines)
        else:
            _append(self._open(self._path), lines)
            if self._max_bytes and self._size_bytes + len(lines) >= self._max_bytes:
                self._rotate(self._path)
        self.fails = False

    debug = info = warning = error = critical = exception = msg = write

    def close(self) -> None:
        """Write what was taken, and close the file; the next line opens it again."""
        if self._unwritten:
            self.write_taken()
        self._close_file()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._inode = -1, 0

    def _rotate(self, path: Path) -> None:
        """Move the files up by one. Of several workers that find the file full, one does it; no line is lost.

        Whoever still has the old file open writes its line there, and finds the new one with the next.
        """
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists() and path.stat().st_ino == self._inode:
                for number in range(self._backups - 1, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        path.with_name(f"{path.name}.{number}").rename(path.with_name(f"{path.name}.{number + 1}"))
                path.rename(path.with_name(f"{path.name}.1"))

    def _open(self, path: Path) -> int:
        """Return the file of that name, opened anew when another one has the name by now."""
        try:
            found = os.stat(path)  # noqa: PTH116 # a path object is slower
            inode, self._size_bytes = found.st_ino, found.st_size
        except FileNotFoundError:
            inode = self._size_bytes = 0
        if inode == 0 or inode != self._inode:
            self._close_file()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            self._inode = os.fstat(self._file).st_ino
        return self._file


class _Foreign(logging.Handler):
    """Takes the lines of libraries, which use the standard library's logging, into the same shape."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            self._sink.write(**self._event(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Close the file as well."""
        self._sink.close()
        super().close()

    def _event(self, record: logging.LogRecord) -> MutableMapping[str, Any]:
        event: MutableMapping[str, Any] = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
            **request_fields.get(),
        }
        stamped = structlog.processors.TimeStamper(fmt="iso", utc=True)(None, "", event)
        if record.exc_info:
            stamped["exc_info"] = record.exc_info
        return dict(structlog.processors.format_exc_info(None, "", stamped))


# What a readable line says in its own words, or only the JSON line has.
_NOT_FOR_PEOPLE = {
    *("timestamp", "level", "event", "status", "method", "path", "duration_ms", "route", "outcome", "model", "logger"),
    *("exception", "request_id", "bytes_in", "bytes_out", "dialect", "upstream_ms", "images_asked", "images_returned"),
    *(
        "attempt",
        "attempts",
        "trace_id",
        "message",
        "code",
        "caller",
        "kept_id",
        "tokens",
        "cost_usd",
        "replayed",
        "key",
    ),
    *("unknown_cost_usd", "task"),
}
# Said by uvicorn of every worker at every start and stop; ours say what matters of it.
_ROUTINE = ("Started server", "Waiting for", "Application s", "Shutting down", "Finished server")
_CALLER_LEFT = 499
_LOOPBACK = ("127.0.0.1", "::1")
_COLOURS = {"debug": "\033[2m", "warning": "\033[33m", "error": "\033[31m"}
_END_OF_COLOUR = "\033[0m"
# Ids that the service made; their beginning is enough to find them by.
_OWN_ID = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{24}")


def is_for_people(event: Mapping[str, Any]) -> bool:
    """Return whether an event has a readable line: not what its request's line says too, nor each worker's start."""
    match event.get("event"):
        case "upstream_attempt":
            return event.get("outcome") != "ok"
        case "carried_out":
            return "task" in event
        case name:
            return not str(name).startswith(_ROUTINE)


def readable(event: Mapping[str, Any], *, on_terminal: bool) -> str:
    """Return an event of the log as one line for people: the time, how it ended, what happened, then what else matters.

    On a terminal it is in colour, and ids are shortened, so that it fits. Tracebacks follow on lines of their own.
    """
    at = _local_time(str(event.get("timestamp", "")))
    others = [f"{name}={value}" for name, value in event.items() if name not in _NOT_FOR_PEOPLE]
    request_id = str(event.get("request_id", ""))
    text = printable("  ".join(filter(None, [at, _head(event), *_details(event), request_id, _caller(event), *others])))
    if on_terminal:
        text = _OWN_ID.sub(r"\1", text)
    if "exception" in event:
        text += "".join(f"\n{printable(line)}" for line in str(event["exception"]).split("\n"))
    colour = _COLOURS.get(str(event.get("level"))) if on_terminal else None
    return f"{colour}{text}{_END_OF_COLOUR}" if colour else text


def _local_time(timestamp: str) -> str:
    """Return the time of day where the reader is, of a timestamp in UTC; what is none stays as it is."""
    try:
        return f"{datetime.fromisoformat(timestamp).astimezone():%H:%M:%S}"
    except ValueError:
        return timestamp[11:19]


def _head(event: Mapping[str, Any]) -> str:
    name, level = str(event.get("event", "")), str(event.get("level", ""))
    took = _duration(_number(event, "duration_ms"))
    if name == "request":
        return f"{event.get('status', '')} {took}  {event.get('method', '')} {event.get('path', '')}"
    if name == "upstream_attempt":
        return f"  → {took}  {event.get('model', '')}: {event.get('outcome', '')}"
    if name == "carried_out":
        return f"  ✓ {took}  {'task' if event.get('task') else 'request'} finished"
    text = ": ".join(filter(None, [name, str(event.get("message") or "")]))
    return text if level == "info" else f"{level}  {text}"


def _number(event: Mapping[str, Any], name: str) -> Any:
    """Return a number of an event; 0 where it is none, as in a line of somebody else's."""
    value = event.get(name)
    return value if isinstance(value, int | float) else 0


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:>4.0f}ms" if milliseconds < 1000 else f"{milliseconds / 1000:>5.1f}s"


def _details(event: Mapping[str, Any]) -> Iterator[str]:
    """Yield what came of a request or a call, the error first."""
    yield "caller left" if event.get("status") == _CALLER_LEFT else str(event.get("code", ""))
    asked, returned = _number(event, "images_asked"), _number(event, "images_returned")
    if returned:
        yield f"{returned if returned == asked else f'{returned}/{asked}'} image{'s' if asked > 1 else ''}"
    if (attempts := _number(event, "attempts")) > (asked or 1):
        yield f"{attempts} calls"
    if (attempt := _number(event, "attempt")) > 1:
        yield f"attempt {attempt}"
    if "cost_usd" in event:
        yield f"${_number(event, 'cost_usd'):.3f}"
    if "unknown_cost_usd" in event:
        yield f"at most ${_number(event, 'unknown_cost_usd'):.3f}"
    yield "replayed" if event.get("replayed") else ""


def _caller(event: Mapping[str, Any]) -> str:
    caller = event.get("caller", "")
    return "" if caller in _LOOPBACK else str(caller)


# What some readers of lines take for the end of one, and JSON does not escape: https://docs.python.org/3/library/stdtypes.html#str.splitlines
_LINE_ENDS = {"\u2028".encode(): rb"\u2028", "\u2029".encode(): rb"\u2029", "\x85".encode(): rb"\u0085"}


def one_line(encoded: bytes) -> bytes:
    """Return JSON as one line for every reader."""
    for end, escaped in _LINE_ENDS.items():
        if end in encoded:
            encoded = encoded.replace(end, escaped)
    return encoded


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _append(file: int, lines: bytes) -> None:
    """Append lines, or raise OSError and leave no part of one."""
    written = os.write(file, lines)
    if written < len(lines):  # a disk that is full by now
        end = os.lseek(file, 0, os.SEEK_CUR)
        if os.fstat(file).st_size == end:
            os.ftruncate(file, end - written + lines.rfind(b"\n", 0, written) + 1)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_all(descriptor: int, line: bytes) -> None:
    while line:
        line = line[os.write(descriptor, line) :]


def _json(event: Mapping[str, Any]) -> bytes:
    """Return the line, what people look for first in front."""
    line: Mapping[str, Any] = event
    if next(iter(event), None) != _FIRST[0]:
        line = {name: event[name] for name in _FIRST if name in event} | dict(event)
    try:
        encoded = msgspec.json.encode(line, enc_hook=str) + b"\n"
        return encoded if encoded.isascii() else one_line(encoded)
    except UnicodeEncodeError:  # half a surrogate pair: escaped, it can be written
        return json.dumps(line, default=str).encode() + b"\n"
