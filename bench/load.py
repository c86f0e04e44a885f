"""The load: wrk, which costs little, and a crowd that only waits."""

import asyncio
import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.servers import LOAD_CORE, Server

_SCRIPT = (
    'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = io.open("{body}"):read("*a")\n'
)
# Every request with a key of its own.
_NEW_KEYS = """
local count = 0
request = function()
  count = count + 1
  wrk.headers["Idempotency-Key"] = "{run}-" .. count
  return wrk.format()
end
"""
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass
class Round:
    """What one round of load measured: a server's CPU per request and requests per second, latencies in ms."""

    cpu_ms: float
    per_second: float
    p50_ms: float
    p99_ms: float


class NothingAnsweredError(RuntimeError):
    """A round was over before its first response: it was too short for this machine."""


def installed() -> bool:
    """Tell whether wrk is there."""
    return shutil.which("wrk") is not None


def wrk(server: Server, body: bytes, callers: int, seconds: float, folder: Path) -> Round:
    """Let `callers` ask for `seconds`, each again as soon as it has its answer. Raises RuntimeError on any error."""
    (folder / "body.json").write_bytes(body)
    script = _SCRIPT.format(body=folder / "body.json")
    if server.new_keys:
        script += _NEW_KEYS.format(run=time.time_ns())
    (folder / "post.lua").write_text(script)
    command = [
        "taskset",
        "-c",
        str(LOAD_CORE),
        "wrk",
        "-t1",
        f"-c{callers}",
        f"-d{max(1, round(seconds))}s",
        "--timeout=60s",
    ]
    before = server.cpu_seconds()
    ran = subprocess.run(
        [*command, "-s", str(folder / "post.lua"), "--latency", server.url], capture_output=True, text=True, check=True
    )
    used = server.cpu_seconds() - before
    if wrong := re.findall(r"Non-2xx.*|Socket errors.*", ran.stdout):
        raise RuntimeError(f"{server.name}: {wrong}")
    requests = int(re.findall(r"(\d+) requests in", ran.stdout)[0])
    if not requests:
        raise NothingAnsweredError(f"{server.name}: no request was answered in {seconds} s")
    rate = float(re.findall(r"Requests/sec: +([\d.]+)", ran.stdout)[0])
    return Round(used * 1e3 / requests, rate, _latency(ran.stdout, 50), _latency(ran.stdout, 99))


def _latency(text: str, percentile: int) -> float:
    number, unit = re.findall(rf"^ +{percentile}% +([\d.]+)(us|ms|s) *$", text, re.MULTILINE)[0]
    return float(number) * _UNITS[unit]


async def crowd(server: Server, size: int) -> float:
    """Let `size` callers wait at once for one small answer each; return the growth of memory in bytes a caller."""
    body = json.dumps({"prompt": "a banana"}).encode()
    # The service answers only to hosts that it knows.
    host = f"Host: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    request = f"POST {server.path} HTTP/1.1\r\n{host}\r\n\r\n".encode() + body
    before = server.memory_bytes("VmRSS")
    connections = []
    for _ in range(size):
        connections.append(await asyncio.open_connection("127.0.0.1", server.port))
        connections[-1][1].write(request)
    until = time.monotonic() + 2
    peak = 0
    while time.monotonic() < until:
        await asyncio.sleep(0.2)
        peak = max(peak, server.memory_bytes("VmRSS"))
    statuses = [await reader.readline() for reader, _ in connections]
    for _, writer in connections:
        writer.close()
    if any(b" 200 " not in status for status in statuses):
        raise RuntimeError(f"{server.name}: not every caller of {size} was answered 200")
    return (peak - before) / size
