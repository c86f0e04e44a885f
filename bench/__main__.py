"""`python -m bench`: measure, print, and write bench/RESULTS.md and bench/results.svg; with --scale bench/SCALE.md.

Each figure is the median of interleaved rounds; figures of different machines do not compare, ratios of one run do.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pybase64

from bench import load, profile, report, scale, servers
from bench.servers import Server

PROMPT = json.dumps({"prompt": "a banana"}).encode()
CHAT = {"messages": [{"role": "user", "content": "a banana"}]}
# What is sent to each, where it is not a prompt for /generate.
BODIES = {"chat": json.dumps(CHAT).encode(), "chat-stream": json.dumps(CHAT | {"stream": True}).encode()}
MB = 1e6
# Bytes of base64 in an answer.
SIZES = {"0.1 MB": 100_000, "1.4 MB": 1_400_000, "14 MB": 14_000_000}


@dataclass
class Plan:
    """How long and how often."""

    rounds: int = 5
    seconds: float = 3
    folder: Path = field(default_factory=Path)


def measured(
    plan: Plan, contenders: Sequence[Server], body: Callable[[Server], bytes], callers: int
) -> dict[str, load.Round]:
    """Return each contender's medians over rounds that take turns."""
    rounds: dict[str, list[load.Round]] = defaultdict(list)
    for contender in contenders:
        with suppress(load.NothingAnsweredError):
            load.wrk(contender, body(contender), callers, 1, plan.folder)  # warm
    for _ in range(plan.rounds):
        for contender in contenders:
            rounds[contender.name].append(load.wrk(contender, body(contender), callers, plan.seconds, plan.folder))
    names = ("cpu_ms", "per_second", "p50_ms", "p99_ms")
    return {
        name: load.Round(*(statistics.median(getattr(one, field_name) for one in done) for field_name in names))
        for name, done in rounds.items()
    }


def body_for(contender: Server) -> bytes:
    """Return what asks a contender for one picture."""
    return BODIES.get(contender.name, PROMPT)


def answers(plan: Plan, results: report.Results) -> None:
    """Measure answers of each size, from 1, 16 and 100 callers, all contenders side by side."""
    for size, size_bytes in SIZES.items():
        with ExitStack() as stack:
            upstream = stack.enter_context(servers.nginx_upstream(plan.folder, servers.answer_of(size_bytes)))
            contenders = [
                stack.enter_context(servers.nginx_proxy(plan.folder, upstream, buffered=True)),
                stack.enter_context(servers.nginx_proxy(plan.folder, upstream, buffered=False)),
                own := stack.enter_context(servers.service(plan.folder, upstream)),
                replace(own, name="native", path=servers.GOOGLE_PATH),
                replace(own, name="chat", path=servers.CHAT_PATH),
                replace(own, name="chat-stream", path=servers.CHAT_PATH),
                replace(own, name="keyed", new_keys=True),
                stack.enter_context(servers.plain_relay(plan.folder, upstream)),
            ]
            for callers in (1, 16, 100) if size == "1.4 MB" else (1,):
                print(f"answers of {size}, {callers} callers", flush=True)
                results.answers[size, callers] = measured(plan, contenders, body_for, callers)
            results.direct[size] = measured(plan, [upstream], lambda _: PROMPT, 1)["upstream"].p50_ms


def uploads(plan: Plan, results: report.Results) -> None:
    """Measure a picture of 10 MB on its way up; Google's answer is small."""
    picture = pybase64.b64encode(b"\xff\xd8\xff" + os.urandom(7_500_000)).decode()
    own = json.dumps({"prompt": "a banana", "image_base64": picture}).encode()
    with ExitStack() as stack:
        upstream = stack.enter_context(servers.slow_upstream(plan.folder, 0))  # nginx would answer before it has read
        contenders = [
            stack.enter_context(servers.nginx_proxy(plan.folder, upstream, buffered=False)),
            stack.enter_context(servers.service(plan.folder, upstream)),
            stack.enter_context(servers.plain_relay(plan.folder, upstream)),
        ]
        print("uploads of 10 MB, 1 caller", flush=True)
        results.uploads = measured(plan, contenders, lambda _: own, 1)


def memory(plan: Plan, results: report.Results) -> None:
    """Measure the peak above idle while many large answers pass, and the memory of callers who wait."""
    for count, size in ((100, "1.4 MB"), (20, "14 MB")):
        print(f"memory with {count} × {size} in flight", flush=True)
        with ExitStack() as stack:
            upstream = stack.enter_context(servers.nginx_upstream(plan.folder, servers.answer_of(SIZES[size])))
            for contender in (
                stack.enter_context(servers.service(plan.folder, upstream)),
                stack.enter_context(servers.plain_relay(plan.folder, upstream)),
            ):
                load.wrk(contender, PROMPT, 1, 1, plan.folder)
                idle = contender.memory_bytes("VmRSS")
                contender.forget_peak()
                load.wrk(contender, PROMPT, count, plan.seconds, plan.folder)
                peak = contender.memory_bytes("VmHWM") - idle
                results.peaks[count, size, contender.name] = peak / (count * SIZES[size])
    crowd_size = 2000
    print(f"memory of {crowd_size} callers who wait", flush=True)
    with ExitStack() as stack:
        slow = stack.enter_context(servers.slow_upstream(plan.folder, 4))
        settings = {"MAX_CONNECTIONS": str(crowd_size), "REQUEST_TIMEOUT_SECONDS": "60"}
        for contender in (
            stack.enter_context(servers.service(plan.folder, slow, **settings)),
            stack.enter_context(servers.plain_relay(plan.folder, slow)),
        ):
            asyncio.run(load.crowd(contender, 20))
            results.waiting[contender.name] = asyncio.run(load.crowd(contender, crowd_size))


def starts(plan: Plan, results: report.Results) -> None:
    """Measure the seconds from the start to the first connection accepted."""
    print("starts", flush=True)
    times: dict[str, list[float]] = defaultdict(list)
    with servers.nginx_upstream(plan.folder, servers.answer_of(1000)) as upstream:
        for _ in range(plan.rounds):
            for start in (servers.service, servers.plain_relay):
                with start(plan.folder, upstream) as server:
                    times[server.name].append(server.ready_seconds)
    results.starts = {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    """Run the bench and write its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="length of a round")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for RESULTS.md and results.svg")
    parser.add_argument(
        "--scale", action="store_true", help="measure several workers and machines on one store instead"
    )
    parser.add_argument("--profile", action="store_true", help="only print where a request's processor time goes")
    arguments = parser.parse_args()
    if not load.installed() or servers.nginx_command() is None:
        parser.exit(1, "the bench needs nginx and wrk: apt-get install nginx-light wrk\n")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if arguments.scale:
        with tempfile.TemporaryDirectory() as folder:
            idle = scale.idle(Path(folder))
            rows = scale.measure(Path(folder), arguments.rounds, arguments.seconds)
        text = scale.markdown(rows, idle, machine, arguments.rounds)
        (arguments.out / "SCALE.md").write_text(text, encoding="utf-8")
        print(text)
        return
    if arguments.profile:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)  # nginx's workers are another user's when root starts it
            for size in ("1 KB", "1.4 MB"):
                parts = profile.profile(Path(folder), servers.SIZES[size], 16, arguments.seconds)
                print(f"\nAnswers of {size}, 16 callers\n\n{profile.markdown(parts)}", flush=True)
        return
    results = report.Results(machine=machine)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # nginx's workers are another user's when root starts it
        plan = Plan(arguments.rounds, arguments.seconds, Path(folder))
        for part in (answers, uploads, memory, starts):
            part(plan, results)
    text = report.markdown(results, arguments.rounds)
    (arguments.out / "RESULTS.md").write_text(text, encoding="utf-8")
    (arguments.out / "results.svg").write_text(report.plot(results), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
