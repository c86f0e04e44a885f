"""Where the processor time of a request goes, by named parts: samples of the worker's stack while it is under load."""

import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import load, servers
from bench.servers import Server

# What each sample counts for: the first of these that the innermost frames lie in. Paths are below site-packages or the
# project.
PARTS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("rate limit", ("slowapi/", "limits/", "banana/admission/", "banana/database")),
    ("log", ("structlog/", "banana/logs")),
    ("metrics", ("prometheus_client/", "banana/metrics")),
    (
        "HTTP to callers",
        (
            "uvicorn/protocols/",
            "banana/server/protocol",
            "banana/server/cycle",
            "banana/server/client_connection",
            "banana/http/responses",
        ),
    ),
    (
        "middleware",
        ("banana/http/", "fastapi/_body", "fastapi/telemetry", "fastapi/middleware", "starlette/middleware"),
    ),
    ("routing", ("fastapi/", "starlette/")),
    ("request's body", ("pydantic", "banana/routes/fields", "banana/payload/multipart")),
    ("JSON in place", ("banana/payload/", "banana/google/wire", "banana/google/usage", "banana/google/prices")),
    (
        "HTTP to Google",
        (
            "httpx/",
            "banana/google/upstream",
            "banana/google/transport",
            "banana/google/connection",
            "aiohappyeyeballs/",
        ),
    ),
    ("calls", ("banana/google/",)),
    ("use case", ("banana/",)),
)
OTHER = "event loop and system"
# Loaded by every Python process of the service as it starts; the first SIGUSR1 begins the samples, the second ends them.
# A sample in the midst of compiled code is taken when that returns: what the event loop does for a callback counts with it.
_SAMPLER = """
import collections, json, os, signal
stacks, path = collections.Counter(), os.path.join({folder!r}, "samples-%d.json" % os.getpid())
def sample(_, frame):
    names = []
    while frame is not None:
        names.append(frame.f_code.co_filename)
        frame = frame.f_back
    stacks["\\n".join(names)] += 1
def begin(*_):
    signal.signal(signal.SIGUSR1, end)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
def end(*_):
    signal.setitimer(signal.ITIMER_PROF, 0)
    with open(path + ".new", "w") as file:
        json.dump(stacks, file)
    os.replace(path + ".new", path)
signal.signal(signal.SIGPROF, sample)
signal.signal(signal.SIGUSR1, begin)
"""
WRITTEN_SECONDS = 10


def profile(folder: Path, size_bytes: int, callers: int, seconds: float) -> dict[str, float]:
    """Return the microseconds of CPU a request takes in each part, the whole as `all`.

    The whole is measured without the samples, which take time themselves.
    """
    body = json.dumps({"prompt": "a banana"}).encode()
    with tempfile.TemporaryDirectory(dir=folder) as name, ExitStack() as stack:
        own = Path(name)
        own.chmod(0o755)
        (own / "sitecustomize.py").write_text(_SAMPLER.format(folder=name))
        upstream = stack.enter_context(servers.nginx_upstream(own, servers.answer_of(size_bytes)))
        service = stack.enter_context(servers.service(own, upstream, PYTHONPATH=name))
        service.settle()
        load.wrk(service, body, callers, 1, own)  # warm
        found = load.wrk(service, body, callers, seconds, own)
        _switch(service)
        load.wrk(service, body, callers, seconds, own)
        _switch(service)
        return shares(_samples(service, own), found.cpu_ms * 1000)


def _switch(service: Server) -> None:
    """Begin or end the samples in the workers."""
    for pid in service.pids()[1:]:
        os.kill(pid, signal.SIGUSR1)


def _samples(service: Server, folder: Path) -> Counter[str]:
    """Return what the workers sampled, once they have written it."""
    files = [folder / f"samples-{pid}.json" for pid in service.pids()[1:]]
    until = time.monotonic() + WRITTEN_SECONDS
    while not all(file.exists() for file in files):
        if time.monotonic() > until:
            raise RuntimeError("the service wrote no samples")
        time.sleep(0.05)
    samples: Counter[str] = Counter()
    for file in files:
        samples.update(json.loads(file.read_text()))
    return samples


def shares(samples: Counter[str], whole: float) -> dict[str, float]:
    """Return how much of the whole each part takes, most first, given how often each stack was seen."""
    parts: Counter[str] = Counter()
    for files, count in samples.items():
        parts[part_of(files.split("\n"))] += count
    return {"all": whole} | {name: count * whole / samples.total() for name, count in parts.most_common()}


def part_of(files: Sequence[str]) -> str:
    """Return the part that a stack counts for, given its files, the innermost first."""
    for name in files:
        below = name.rpartition("site-packages/")[2].removeprefix(f"{servers.ROOT}/")
        for part, prefixes in PARTS:
            if below.startswith(prefixes):
                return part
    return OTHER


def markdown(parts: dict[str, float]) -> str:
    """Return the parts as a table."""
    lines = ["| part | µs a request |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {taken:.0f} |" for name, taken in parts.items())])
