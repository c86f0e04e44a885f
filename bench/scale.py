"""Several workers and several machines on one store: requests per second, and what the store has to do for each.

The answers are small, so that what is measured is everything but bytes. All of it shares the cores of one machine, with the
load and the upstream: the CPU per request is what can be carried over to others, requests per second are not.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from redis import Redis

from bench import load, servers
from bench.servers import Server

CALLERS = 16
ANSWER_BYTES = 1000
PROMPT = b'{"prompt":"a banana"}'
# The most requests a second of any kind at which one core of Redis is half busy are its limit in practice.
HALF = 0.5
# A kind of request: its name, the settings it needs, and whether each has a key of its own.
KINDS: list[tuple[str, dict[str, str], bool]] = [
    ("plain", {}, False),
    ("with a budget", {"BUDGETS": "*=1000000/month"}, False),
    ("Idempotency-Key", {}, True),
    ("both", {"BUDGETS": "*=1000000/month"}, True),
]
# Machines, workers of each, and the store.
SETUPS = [
    (1, 1, "SQLite"),
    (1, 2, "SQLite"),
    (1, 4, "SQLite"),
    (1, 1, "Redis"),
    (1, 2, "Redis"),
    (1, 4, "Redis"),
    (2, 2, "Redis"),
]


@dataclass
class Row:
    """One set-up under one kind of request: per second over all machines; CPU of them and of Redis, and commands, per request."""

    setup: str
    kind: str
    per_second: float
    cpu_ms: float
    redis_cpu_ms: float
    commands: float


@dataclass
class Idle:
    """What a worker without requests asks of Redis: commands, and CPU in ms, a second."""

    commands: float
    redis_cpu_ms: float


class Store:
    """A Redis that writes every change to the disk before it confirms it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = f"redis://127.0.0.1:{server.port}/0"
        self._client = Redis(port=server.port)

    def commands(self) -> int:
        """Return how many commands it was sent so far."""
        return int(self._client.info("stats")["total_commands_processed"])


@contextmanager
def store(folder: Path) -> Iterator[Store]:
    """Run one."""
    port = servers.free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    with servers.running("redis", command, port, "", servers.LOAD_CORE, folder, is_ready=servers.accepts) as server:
        yield Store(server)


def idle(folder: Path, seconds: float = 20) -> Idle:
    """Return what a worker asks of Redis when nobody asks anything of it."""
    workers = 4
    with ExitStack() as stack:
        upstream = stack.enter_context(servers.slow_upstream(folder, 0))
        shared = stack.enter_context(store(folder))
        stack.enter_context(_machine(folder, 0, upstream, {"WORKERS": str(workers), "STORE_URL": shared.url}))
        time.sleep(seconds / 4)  # until all of them are there
        commands, redis_cpu = shared.commands(), shared.server.cpu_seconds()
        time.sleep(seconds)
        count = workers * seconds
        return Idle((shared.commands() - commands) / count, (shared.server.cpu_seconds() - redis_cpu) * 1e3 / count)


def measure(folder: Path, rounds: int, seconds: float) -> list[Row]:
    """Return every set-up under every kind of request."""
    rows = []
    with ExitStack() as stack:
        upstream = stack.enter_context(servers.slow_upstream(folder, 0))
        shared = stack.enter_context(store(folder))
        for kind, settings, new_keys in KINDS:
            for machines, workers, engine in SETUPS:
                name = f"{machines} × {workers} workers, {engine}"
                print(f"{kind}: {name}", flush=True)
                given = settings | {"WORKERS": str(workers), "MAX_CONNECTIONS": "200"}
                if engine == "Redis":
                    given["STORE_URL"] = shared.url
                with ExitStack() as running:
                    started = [
                        replace(running.enter_context(_machine(folder, number, upstream, given)), new_keys=new_keys)
                        for number in range(machines)
                    ]
                    done = [_round(started, shared, folder, seconds) for _ in range(rounds + 1)][1:]
                rows.append(Row(name, kind, *(statistics.median(values) for values in zip(*done, strict=True))))
    return rows


@contextmanager
def _machine(folder: Path, number: int, upstream: Server, settings: dict[str, str]) -> Iterator[Server]:
    own = folder / f"machine-{number}"
    own.mkdir(exist_ok=True)
    with servers.service(own, upstream, None, **settings) as server:
        yield server


def _round(
    machines: Sequence[Server], shared: Store, folder: Path, seconds: float
) -> tuple[float, float, float, float]:
    """Let all machines be asked at the same time; return what a `Row` holds."""
    commands, redis_cpu = shared.commands(), shared.server.cpu_seconds()

    def asked(number: int) -> load.Round:
        own = folder / f"load-{number}"
        own.mkdir(exist_ok=True)
        return load.wrk(machines[number], PROMPT, CALLERS // len(machines), seconds, own)

    with ThreadPoolExecutor(len(machines)) as callers:
        found = list(callers.map(asked, range(len(machines))))
    per_second = sum(one.per_second for one in found)
    requests = per_second * max(1, round(seconds))
    cpu_ms = sum(one.cpu_ms * one.per_second for one in found) / per_second
    redis_cpu_ms = (shared.server.cpu_seconds() - redis_cpu) * 1e3 / requests
    return per_second, cpu_ms, redis_cpu_ms, (shared.commands() - commands) / requests


def markdown(rows: Sequence[Row], idle: Idle, machine: str, rounds: int) -> str:
    """Return the page."""
    lines = [
        "# Several workers, several machines",
        "",
        f"`python -m bench --scale`: medians of {rounds} rounds, {CALLERS} callers, answers of {ANSWER_BYTES // 1000} KB; {machine}. Everything",
        "shares these cores, with the load and the upstream: compare CPU per request; requests per second only within the page.",
        "Redis writes every change to the disk before it confirms it (`appendfsync always`).",
        "",
        "| request | machines × workers, store | requests/s | CPU per request | of Redis | commands |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row.kind} | {row.setup} | {row.per_second:.0f} | {row.cpu_ms:.2f} ms |"
            + (f" {row.redis_cpu_ms:.3f} ms | {row.commands:.1f} |" if row.setup.endswith("Redis") else " | |")
            for row in rows
        ),
        "",
        "## Where the next wall is",
        "",
        "Redis does one thing after the other, on one core. Half of that core is busy, and its queue begins to show, at:",
        "",
        "| request | CPU of Redis | requests/s |",
        "|---|---|---|",
        *(
            f"| {row.kind} | {row.redis_cpu_ms:.3f} ms | {HALF * 1e3 / row.redis_cpu_ms:.0f} |"
            for row in _largest(rows)
        ),
        "",
        f"A worker without requests asks {idle.commands:.0f} commands a second of it ({idle.redis_cpu_ms:.2f} ms of CPU); ten machines of four",
        f"workers take {idle.redis_cpu_ms * 4:.1f} % of the core by being there.",
        "",
    ]
    return "\n".join(lines)


def _largest(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the set-up with several machines."""
    return [row for row in rows if row.setup.startswith("2") and row.redis_cpu_ms]
