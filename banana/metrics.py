"""What is counted for Prometheus, over all workers.

In several processes prometheus-client keeps its values in files of a folder that the launcher names before this module
is imported; the values of a worker that is gone go on counting, its gauges do not.
"""

import os
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_SECONDS = (0.005, 0.05, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180)

requests = Counter("banana_requests_total", "Requests answered", ["route", "status"])
request_seconds = Histogram("banana_request_duration_seconds", "From request to answer", ["route"], buckets=_SECONDS)
request_bytes = Counter("banana_bytes_total", "Bytes of bodies", ["direction"])
in_flight = Gauge("banana_requests_in_flight", "Requests being answered", multiprocess_mode="livesum")
limited = Counter("banana_limited_total", "Requests over their caller's allowance")
upstream_calls = Counter("banana_upstream_calls_total", "Calls to Google by how they ended", ["outcome"])
upstream_seconds = Histogram("banana_upstream_duration_seconds", "Calls to Google", buckets=_SECONDS)
upstream_in_flight = Gauge("banana_upstream_in_flight", "Calls to Google that run", multiprocess_mode="livesum")
waiting = Gauge("banana_upstream_waiting", "Calls that wait for a connection", multiprocess_mode="livesum")
keys_resting = Gauge(
    "banana_keys_resting", "API keys at rest, in the worker that has most", multiprocess_mode="livemax"
)
images = Counter("banana_images_total", "Images that reached their caller")
tokens = Counter("banana_tokens_total", "Tokens that Google counted")


def exposition(folder: Path | None) -> bytes:
    """Return all values in Prometheus' text format: those of every worker that writes to `folder`, or our own."""
    if folder is None or not folder.is_dir():
        return generate_latest(REGISTRY)
    _forget_the_dead(folder)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _forget_the_dead(folder: Path) -> None:
    """Drop the gauges of workers that were killed and could not say goodbye."""
    for file in folder.glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:
            pass
