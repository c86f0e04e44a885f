"""`python -m scripts.read_log`: what logs.sh does; the log's JSON lines as people read them."""

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from banana.logs import console_renderer, for_people, is_for_people
from banana.redaction import printable
from scripts.probe import log_path, read_settings

FOLLOW_SECONDS = 0.3
# Lines of the file for a line that is shown: those of probes and calls are not.
LINES_READ_FOR_ONE = 10


def main() -> None:
    """Print the last lines of the log, or those of one request, and follow it when asked to."""
    arguments = _arguments()
    log_file = arguments.file or log_path(read_settings(demo=True))
    if log_file == "-":
        _show(_events(sys.stdin, arguments.request))
        return
    path = Path(log_file)
    if not path.exists():
        sys.exit(f"error: there is no log at {path}. The service creates it when it starts: ./start.sh")
    with path.open(encoding="utf-8", errors="replace") as lines:
        if arguments.request:
            _show(_events(lines, arguments.request))
        else:
            _show(deque(_events(deque(lines, maxlen=arguments.last * LINES_READ_FOR_ONE), ""), maxlen=arguments.last))
        if arguments.follow:
            _show(_events(_following(path, lines), arguments.request))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("./logs.sh", description="Shows the log in readable form: one line per request.")
    parser.add_argument("file", nargs="?", help="default: LOG_FILE; - reads standard input")
    parser.add_argument("--last", type=int, default=50, help="number of lines (default: 50)")
    parser.add_argument("--follow", "-f", action="store_true", help="and new lines as they come")
    parser.add_argument("--request", metavar="ID", default="", help="every line of one request, by its X-Request-ID")
    return parser.parse_args()


def _events(lines: Iterable[str], request_id: str) -> Iterator[dict[str, Any] | str]:
    """Yield the events for people; with `request_id`, every event of that request. What is no JSON stays as it is."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            yield from () if request_id else (line.rstrip("\n"),)
        elif str(event.get("request_id", "")).startswith(request_id) if request_id else is_for_people(event):
            yield event


def _show(events: Iterable[dict[str, Any] | str]) -> None:
    on_terminal = sys.stdout.isatty()
    render = console_renderer(colors=on_terminal)
    for event in events:
        line = printable(event) if isinstance(event, str) else render(None, "", for_people(None, "", event))
        print(line, flush=on_terminal)


def _following(path: Path, lines: TextIO) -> Iterator[str]:
    """Yield lines as they come; when the file was renamed, those of the new one."""
    while True:
        if line := lines.readline():
            yield line
            continue
        time.sleep(FOLLOW_SECONDS)
        if path.exists() and path.stat().st_ino != Path(f"/dev/fd/{lines.fileno()}").stat().st_ino:
            lines = path.open(encoding="utf-8", errors="replace")  # followed until the end


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
