"""Where the processor time of a request goes, by named parts: samples of the worker's stack while it is under load."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import load, servers

# What each sample counts for: the first of these that the innermost frames lie in. Paths are below site-packages or the
# project.
PARTS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("rate limit", ("slowapi/", "limits/", "banana/admission/", "banana/database")),
    ("log", ("structlog/", "banana/logs")),
    ("metrics", ("prometheus_client/", "banana/metrics")),
    ("HTTP to callers", ("uvicorn/", "banana/http/protocol", "banana/http/connection", "banana/http/responses")),
    (
        "middleware",
        ("banana/http/", "fastapi/_body", "fastapi/telemetry", "fastapi/middleware", "starlette/middleware"),
    ),
    ("routing", ("fastapi/", "starlette/")),
    ("request's body", ("pydantic", "banana/routes/fields", "banana/payload/multipart")),
    ("JSON in place", ("banana/payload/", "banana/google/wire", "banana/google/usage", "banana/google/prices")),
    ("HTTP to Google", ("banana/google/connection", "banana/google/transport", "aiohappyeyeballs/")),
    ("calls", ("banana/google/",)),
    ("use case", ("banana/",)),
)
OTHER = "event loop and system"
_SAMPLER = """
import collections, json, os, signal
stacks, path = collections.Counter(), os.path.join({folder!r}, "samples-%d.json" % os.getpid())
def sample(_, frame):
    names = []
    while frame is not None:
        names.append(frame.f_code.co_filename + ":" + frame.f_code.co_qualname)
        frame = frame.f_back
    stacks["\\n".join(names)] += 1
    if stacks.total() % {batch} == 0:  # a worker has no moment at its end
        signal.setitimer(signal.ITIMER_PROF, 0)
        with open(path + ".new", "w") as file:
            json.dump(stacks, file)
        os.replace(path + ".new", path)
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
signal.signal(signal.SIGPROF, sample)
signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
"""
_BATCH = 500


def profile(folder: Path, size_bytes: int, callers: int, seconds: float) -> dict[str, float]:
    """Return the microseconds of CPU a request takes in each part, the whole as `all`."""
    (folder / "sitecustomize.py").write_text(_SAMPLER.format(folder=str(folder), batch=_BATCH))
    body = json.dumps({"prompt": "a banana"}).encode()
    with ExitStack() as stack:
        upstream = stack.enter_context(servers.nginx_upstream(folder, servers.answer_of(size_bytes)))
        with servers.service(folder, upstream, PYTHONPATH=str(folder)) as service:
            load.wrk(service, body, callers, 1, folder)
            found = load.wrk(service, body, callers, seconds, folder)
    # The parent has few samples, the worker all the others.
    samples = max((json.loads(path.read_text()) for path in folder.glob("samples-*.json")), key=_count)
    parts: Counter[str] = Counter()
    for names, count in samples.items():
        parts[part_of(names.split("\n"))] += count
    scale = found.cpu_ms * 1000 / sum(parts.values())
    return {"all": found.cpu_ms * 1000} | {name: count * scale for name, count in parts.most_common()}


def part_of(names: Sequence[str]) -> str:
    """Return the part that a stack counts for, given its files, the innermost first."""
    for name in names:
        below = name.rpartition("site-packages/")[2].removeprefix(f"{servers.ROOT}/")
        for part, prefixes in PARTS:
            if below.startswith(prefixes):
                return part
    return OTHER


def markdown(parts: dict[str, float]) -> str:
    """Return the parts as a table."""
    lines = ["| part | µs a request |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {taken:.0f} |" for name, taken in parts.items())])


def _count(samples: dict[str, int]) -> int:
    return sum(samples.values())
