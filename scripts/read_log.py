"""`python -m scripts.read_log`: what logs.sh does; the log's JSON lines as people read them."""

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import config
from banana.logs import readable

FOLLOW_SECONDS = 0.3


def main() -> None:
    """Print the last lines of the log, and follow it when asked to."""
    parser = argparse.ArgumentParser(description="Shows the log for people.")
    parser.add_argument("file", nargs="?", help="another file than the settings'; - is standard input")
    parser.add_argument("--last", type=int, default=50, help="how many lines (50)")
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what comes")
    arguments = parser.parse_args()
    log_file = arguments.file or config.read(demo=True).log_file
    if log_file == "-":
        _show(sys.stdin)
        return
    path = Path(log_file)
    if not path.exists():
        sys.exit(f"error: there is no log at {path} yet; the service writes it when it starts")
    with path.open(encoding="utf-8", errors="replace") as lines:
        _show(deque(lines, maxlen=arguments.last))
        if arguments.follow:
            _show(_following(path, lines))


def _show(lines: "Iterator[str] | deque[str] | TextIO") -> None:
    is_terminal = sys.stdout.isatty()
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        print(
            readable(event, in_colour=is_terminal) if isinstance(event, dict) else line.rstrip("\n"), flush=is_terminal
        )


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
