"""What is counted for Prometheus, over all workers.

In several processes prometheus-client keeps its values in files of a folder that the launcher names before this module
is imported; the values of a worker that is gone go on counting, its gauges do not.
"""

import os
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_SECONDS = (0.005, 0.05, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180)

requests = Counter("banana_requests_total", "Requests by route and status", ["route", "status"])
request_seconds = Histogram(
    "banana_request_duration_seconds", "Seconds from request to the end of the response", ["route"], buckets=_SECONDS
)
request_bytes = Counter("banana_bytes_total", "Bytes of request and response bodies", ["direction"])
in_flight = Gauge("banana_requests_in_flight", "Requests in flight", multiprocess_mode="livesum")
limited = Counter("banana_limited_total", "Requests over their caller's rate limit")
upstream_calls = Counter("banana_upstream_calls_total", "Calls to Google by outcome", ["outcome"])
upstream_seconds = Histogram("banana_upstream_duration_seconds", "Seconds a call to Google took", buckets=_SECONDS)
upstream_in_flight = Gauge("banana_upstream_in_flight", "Calls to Google in flight", multiprocess_mode="livesum")
waiting = Gauge("banana_upstream_waiting", "Calls to Google that wait for a slot", multiprocess_mode="livesum")
keys_resting = Gauge(
    "banana_keys_resting",
    "API keys waiting for Google's quota, in the worker that has most",
    multiprocess_mode="livemax",
)
store_degraded = Gauge(
    "banana_store_degraded", "Workers whose shared store of the rate limit failed", multiprocess_mode="livesum"
)
keys_refused = Gauge(
    "banana_keys_refused", "API keys that Google refused, in the worker that has most", multiprocess_mode="livemax"
)
keys_out_of_money = Gauge(
    "banana_keys_out_of_money",
    "API keys whose project has no money left, in the worker that has most",
    multiprocess_mode="livemax",
)
images = Counter("banana_images_total", "Images delivered to their caller or kept for it", ["model", "caller"])
cost_usd = Counter(
    "banana_cost_usd_total",
    "USD that calls cost, by Google's count of tokens; the most they may where that was never learnt",
    ["caller", "model"],
)
undelivered_usd = Counter(
    "banana_cost_undelivered_usd_total",
    "Of it, what reached nobody as a picture: no_image, caller_left, or unknown, which may not have been billed",
    ["caller", "model", "reason"],
)
key_cost_usd = Counter("banana_key_cost_usd_total", "USD that calls cost, by the digest of the API key", ["key"])
budget_refusals = Counter("banana_budget_refusals_total", "Requests over their caller's budget", ["caller"])
tokens = Counter("banana_tokens_total", "Tokens used, as Google counts them")
replays = Counter("banana_replays_total", "Requests given the outcome of an earlier one with the same key", ["how"])
unknown_outcomes = Counter(
    "banana_unknown_outcomes_total", "Requests with a key and tasks whose outcome was never learnt"
)
keeping_degraded = Gauge(
    "banana_keeping_degraded", "Workers that cannot keep results, by part", ["part"], multiprocess_mode="livesum"
)
tasks = Gauge("banana_tasks", "Tasks that are kept, by state", ["state"], multiprocess_mode="livemostrecent")
kept_bytes = Gauge("banana_kept_bytes", "Bytes of kept results", multiprocess_mode="livemostrecent")
kept_files = Gauge("banana_kept_files", "Files of kept results", multiprocess_mode="livemostrecent")
# A series that begins with its first event is not seen to grow: these begin at 0.
for _outcome in ("ok", "upstream_rejected_key", "upstream_quota", "upstream_error", "timeout"):
    upstream_calls.labels(_outcome)
for _part in ("ledger", "results"):
    keeping_degraded.labels(_part)
for _how in ("joined", "replayed"):
    replays.labels(_how)

# Series of their own; further models, which callers may name as they like, are counted together.
MAX_MODELS = 100
# Callers whose series begin at 0; there is room for so many.
MAX_CALLERS = 100
_models: set[str] = set()


def model_label(model: str) -> str:
    """Return the label of a model that made an image."""
    if model not in _models and len(_models) >= MAX_MODELS:
        return "other"
    _models.add(model)
    return model


def begin_costs(callers: Iterable[str], model: str) -> None:
    """Let the series of these callers begin at 0: one that begins with its first event is not seen to grow."""
    for caller in sorted(callers)[:MAX_CALLERS]:
        cost_usd.labels(caller, model)
        budget_refusals.labels(caller)
        for reason in ("no_image", "caller_left", "unknown"):
            undelivered_usd.labels(caller, model, reason)


def count_cost(caller: str, model: str, cost: Decimal, undelivered: Mapping[str, Decimal]) -> None:
    """Count what a request cost, in USD, and what of it reached nobody, by the reason."""
    if not cost:
        return
    labels = caller, model_label(model)
    cost_usd.labels(*labels).inc(float(cost))
    for reason, amount in undelivered.items():
        if amount:
            undelivered_usd.labels(*labels, reason).inc(float(amount))


def exposition(folder: Path | None) -> bytes:
    """Return all values in Prometheus' text format: those of every worker that writes to `folder`, or our own."""
    if folder is None or not folder.is_dir():
        return generate_latest(REGISTRY)
    _drop_gauges_of_dead_workers(folder)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _drop_gauges_of_dead_workers(folder: Path) -> None:
    """Drop the gauges of workers that were killed before they could remove them."""
    for file in folder.glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:
            pass
