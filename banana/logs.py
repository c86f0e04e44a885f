"""The log: one JSON object a line, in the same shape for this service and for the libraries below it.

Lines are appended whole, so that several workers can share one file, and the file is opened anew when it was moved
away, so that logrotate needs no signal. Bodies, prompts and keys are never given to it.
"""

import logging
import sys
from collections.abc import MutableMapping
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

import structlog

# Chatty at INFO, or telling whole URLs.
_QUIET = ("httpx", "httpcore", "aiohttp", "asyncio", "slowapi", "limits", "watchfiles")
_FIRST = ("timestamp", "level", "event", "request_id")
_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(log_file: str, level: str) -> None:
    """Send every line to `log_file` as JSON (`-`: standard output), and to a terminal in colour if there is one."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in (*root.handlers,):
        root.removeHandler(handler)
        handler.close()
    for handler in _handlers(log_file):
        root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").propagate = False  # each request has a line of ours already


def _handlers(log_file: str) -> list[logging.Handler]:
    handlers: list[logging.Handler] = []
    if log_file != "-":
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(WatchedFileHandler(log_file, encoding="utf-8"))
    elif not sys.stdout.isatty():
        handlers.append(logging.StreamHandler(sys.stdout))
    for handler in handlers:
        handler.setFormatter(
            _formatter(structlog.processors.format_exc_info, _in_order, structlog.processors.JSONRenderer())
        )
    if sys.stdout.isatty():
        terminal = logging.StreamHandler(sys.stdout)
        terminal.setFormatter(_formatter(structlog.dev.ConsoleRenderer(colors=True)))
        handlers.append(terminal)
    return handlers


def _formatter(*renderers: Any) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_SHARED, _without_colour],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )


def _in_order(_: Any, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Put first what people look for first."""
    return {name: event.pop(name) for name in _FIRST if name in event} | dict(event)


def _without_colour(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("color_message", None)  # uvicorn's second wording of the same line
    return event
