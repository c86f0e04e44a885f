"""What is measured, part by part: the bench's rounds take turns, and its figures are their medians."""

import asyncio
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pybase64

from bench import litellm, load, report, servers
from bench.servers import SIZES, Server

PROMPT = json.dumps({"prompt": "a banana"}).encode()
CHAT = {"messages": [{"role": "user", "content": "a banana"}]}
# What is sent to each, where it is not a prompt for /generate.
BODIES = {
    "chat": json.dumps(CHAT).encode(),
    "chat-stream": json.dumps(CHAT | {"stream": True}).encode(),
    "litellm": litellm.IMAGES_BODY,
    "litellm-native": litellm.NATIVE_BODY,
}
# How many callers ask for answers of each size, and in which of these LiteLLM is measured, where it is.
CALLERS = {"1 KB": (16,), "0.1 MB": (1,), "1.4 MB": (1, 16, 100), "14 MB": (1,)}
LITELLM_AT = {("1 KB", 16), ("1.4 MB", 1), ("1.4 MB", 16)}
STORMS = ((100, "1.4 MB"), (20, "14 MB"))
WORKERS = (1, 2, 4)
CROWD = 2000


@dataclass
class Plan:
    """How long and how often; for how long after a storm; beside LiteLLM, where an installation is given."""

    rounds: int = 5
    seconds: float = 3
    folder: Path = field(default_factory=Path)
    rest_seconds: float = (
        32  # the service looks every 15 s whether there are pages to give back, and twice before it does
    )
    installation: litellm.Installation | None = None


def measured(
    plan: Plan, contenders: Sequence[Server], body: Callable[[Server], bytes], callers: int
) -> dict[str, load.Round]:
    """Return each contender's medians over rounds that take turns."""
    rounds: dict[str, list[load.Round]] = defaultdict(list)
    for contender in contenders:
        contender.settle()
        with suppress(load.NothingAnsweredError):
            load.wrk(contender, body(contender), callers, 1, plan.folder)  # warm
        contender.settle()
    for _ in range(plan.rounds):
        for contender in contenders:
            rounds[contender.name].append(load.wrk(contender, body(contender), callers, plan.seconds, plan.folder))
            contender.settle()  # what its callers left behind takes nothing from the next
    return {name: median(done) for name, done in rounds.items()}


def median(rounds: Sequence[load.Round]) -> load.Round:
    """Return the median of each figure."""
    names = ("cpu_ms", "per_second", "p50_ms", "p99_ms")
    return load.Round(*(statistics.median(getattr(one, name) for one in rounds) for name in names))


def body_for(contender: Server) -> bytes:
    """Return what asks a contender for one picture."""
    return BODIES.get(contender.name, PROMPT)


def answers(plan: Plan, results: report.Results) -> None:
    """Measure answers of each size, from so many callers, all contenders side by side."""
    for size, counts in CALLERS.items():
        with ExitStack() as stack:
            upstream = stack.enter_context(servers.nginx_upstream(plan.folder, servers.answer_of(SIZES[size])))
            contenders = _contenders(plan, stack, upstream)
            others = (
                _litellm(plan, stack, upstream, results) if any((size, one) in LITELLM_AT for one in counts) else []
            )
            for callers in counts:
                print(f"answers of {size}, {report.counted(callers, 'caller')}", flush=True)
                asked = [*contenders, *(others if (size, callers) in LITELLM_AT else [])]
                results.answers[size, callers] = measured(plan, asked, body_for, callers)
            if 1 in counts:
                results.direct[size] = measured(plan, [upstream], body_for, 1)["upstream"].p50_ms


def _contenders(plan: Plan, stack: ExitStack, upstream: Server) -> list[Server]:
    """Run the service, under each of its names, and what it is always measured against."""
    return [
        stack.enter_context(servers.nginx_proxy(plan.folder, upstream, buffered=True)),
        stack.enter_context(servers.nginx_proxy(plan.folder, upstream, buffered=False)),
        own := stack.enter_context(servers.service(plan.folder, upstream)),
        replace(own, name="native", path=servers.GOOGLE_PATH),
        replace(own, name="chat", path=servers.CHAT_PATH),
        replace(own, name="chat-stream", path=servers.CHAT_PATH),
        replace(own, name="keyed", new_keys=True),
        stack.enter_context(servers.plain_relay(plan.folder, upstream)),
    ]


def _litellm(plan: Plan, stack: ExitStack, upstream: Server, results: report.Results) -> list[Server]:
    """Run LiteLLM, if it is to be measured, under the names of two of its routes."""
    if plan.installation is None:
        return []
    images = stack.enter_context(litellm.relay(plan.installation, plan.folder, upstream))
    results.starts["litellm"] = images.ready_seconds
    results.at_rest["litellm"] = images.memory_bytes("VmRSS")
    return [images, replace(images, name="litellm-native", path=servers.GOOGLE_PATH)]


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


def workers(plan: Plan, results: report.Results) -> None:
    """Measure the service with several workers, on all cores."""
    print(f"{', '.join(map(str, WORKERS))} workers", flush=True)
    with ExitStack() as stack:
        upstream = stack.enter_context(servers.nginx_upstream(plan.folder, servers.answer_of(SIZES["1.4 MB"])))
        contenders = [_with_workers(plan, stack, upstream, count) for count in WORKERS]
        found = measured(plan, contenders, body_for, 16)
    results.workers = {count: found[str(count)] for count in WORKERS}


def _with_workers(plan: Plan, stack: ExitStack, upstream: Server, count: int) -> Server:
    """Run the service with so many workers, in a folder of its own, under their number as its name."""
    folder = plan.folder / f"workers-{count}"
    folder.mkdir()
    own = stack.enter_context(servers.service(folder, upstream, None, WORKERS=str(count)))
    return replace(own, name=str(count))


def storms(plan: Plan, results: report.Results) -> None:
    """Measure memory above idle, as a share of the payload: at its peak in a storm of answers, and after a rest."""
    for count, size in STORMS:
        print(f"memory with {count} × {size} in flight", flush=True)
        payload, above = count * SIZES[size], {}
        with ExitStack() as stack:
            upstream = stack.enter_context(servers.nginx_upstream(plan.folder, servers.answer_of(SIZES[size])))
            contenders = [
                stack.enter_context(servers.service(plan.folder, upstream)),
                stack.enter_context(servers.plain_relay(plan.folder, upstream)),
            ]
            for contender in contenders:
                above[contender.name] = _storm(plan, contender, count)
            time.sleep(plan.rest_seconds)
            for contender in contenders:
                idle, peak = above[contender.name]
                results.peaks[count, size, contender.name] = (peak - idle) / payload
                results.kept[count, size, contender.name] = (contender.memory_bytes("VmRSS") - idle) / payload


def _storm(plan: Plan, contender: Server, callers: int) -> tuple[int, int]:
    """Let so many callers ask; return resident memory before, and at its peak."""
    load.wrk(contender, PROMPT, 1, 1, plan.folder)
    idle = contender.memory_bytes("VmRSS")
    contender.forget_peak()
    load.wrk(contender, PROMPT, callers, plan.seconds, plan.folder)
    contender.settle()  # it may hold most after the load has ended
    return idle, contender.memory_bytes("VmHWM")


def crowds(plan: Plan, results: report.Results) -> None:
    """Measure the memory of callers who wait."""
    print(f"memory of {CROWD} callers who wait", flush=True)
    with ExitStack() as stack:
        slow = stack.enter_context(servers.slow_upstream(plan.folder, 4))
        settings = {"MAX_CONNECTIONS": str(CROWD), "REQUEST_TIMEOUT_SECONDS": "60"}
        for contender in (
            stack.enter_context(servers.service(plan.folder, slow, **settings)),
            stack.enter_context(servers.plain_relay(plan.folder, slow)),
        ):
            asyncio.run(load.crowd(contender, 20))
            results.waiting[contender.name] = asyncio.run(load.crowd(contender, CROWD))


def starts(plan: Plan, results: report.Results) -> None:
    """Measure the seconds from the start to the first response, and the memory it is there with."""
    print("starts", flush=True)
    seconds: dict[str, list[float]] = defaultdict(list)
    resident: dict[str, list[float]] = defaultdict(list)
    with servers.nginx_upstream(plan.folder, servers.answer_of(1000)) as upstream:
        for _ in range(plan.rounds):
            for start in (servers.service, servers.plain_relay):
                with start(plan.folder, upstream) as server:
                    seconds[server.name].append(server.ready_seconds)
                    resident[server.name].append(server.memory_bytes("VmRSS"))
    results.starts |= {name: statistics.median(taken) for name, taken in seconds.items()}
    results.at_rest |= {name: statistics.median(taken) for name, taken in resident.items()}


PARTS = (answers, uploads, workers, storms, crowds, starts)
