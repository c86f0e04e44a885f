"""The bench's results as a page."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.load import Round
from bench.servers import SIZES

NAMES = {
    "nginx": "nginx proxy_pass",
    "nginx-unbuffered": "nginx, buffering off",
    "banana": "BananaService",
    "native": "BananaService, Google's route",
    "chat": "BananaService, chat",
    "chat-stream": "BananaService, chat as a stream",
    "keyed": "BananaService, Idempotency-Key",
    "plain": "plain FastAPI + httpx",
    "litellm": "LiteLLM, images",
    "litellm-native": "LiteLLM, Google's route",
}
LINE = 120
# Whose memory and start are measured, by the names in the table.
PROCESSES = {"banana": "BananaService", "plain": "plain FastAPI + httpx", "litellm": "LiteLLM"}


@dataclass
class Results:
    """Everything measured; sizes and callers are keys as they are printed. Without LiteLLM its version is empty.

    Attributes:
        direct: the upstream's own p50 in ms.
        peaks: memory above idle at its peak, as a share of the payload in flight.
        kept: the same after a rest of `rest_seconds`.
        waiting: bytes of memory that a request takes while it waits.
        starts: seconds to the first response.
        at_rest: bytes of memory before the first request.
        workers: by their number.

    """

    machine: str
    litellm_version: str = ""
    rest_seconds: float = 0
    answers: dict[tuple[str, int], dict[str, Round]] = field(default_factory=dict)
    direct: dict[str, float] = field(default_factory=dict)
    uploads: dict[str, Round] = field(default_factory=dict)
    peaks: dict[tuple[int, str, str], float] = field(default_factory=dict)
    kept: dict[tuple[int, str, str], float] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    at_rest: dict[str, float] = field(default_factory=dict)
    workers: dict[int, Round] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratio:
    """A figure that has a bound: the least it is to be, or the most."""

    what: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the bound holds for the figure as it is printed."""
        shown = round(self.value, 2)
        return shown >= self.bound if self.at_least else shown <= self.bound


def markdown(results: Results, rounds: int) -> str:
    """Return the page."""
    lines = ["# Performance", "", *gains(results), "", *_conditions(results, rounds), ""]
    lines += ["![CPU per request](results.svg)", "", *_ratio_table(ratios(results))]
    for (size, callers), rows in results.answers.items():
        direct = results.direct[size] if callers == 1 else None  # what is added to many callers is queueing
        lines += [f"## Answers of {size}, {counted(callers, 'caller')}", "", *_rounds(rows, _megabytes(size), direct)]
    lines += ["## Uploads of 10 MB, 1 caller", "", *_rounds(results.uploads, 10, None)]
    lines += [*_workers(results), *_processes(results), f"Not measured: {', '.join(_not_measured(results))}.", ""]
    return "\n".join(lines)


def counted(count: int, what: str) -> str:
    """Return a number and the word for what it counts."""
    return f"{count} {what}{'s' if count > 1 else ''}"


def gains(results: Results) -> list[str]:
    """Return what the figures mean for whoever runs the service."""
    rows, one = results.answers["1.4 MB", 16], results.answers["1.4 MB", 1]["banana"]
    others = {"plain": "a plain FastAPI relay", "litellm": f"LiteLLM {results.litellm_version}", "nginx": "nginx"}
    times = [
        f"{rows['banana'].per_second / rows[name].per_second:.1f} times as many as {other}"
        for name, other in others.items()
        if name in rows
    ]
    payload = 100 * SIZES["1.4 MB"] / 1e6
    peak, plain_peak = (results.peaks[100, "1.4 MB", name] * payload for name in ("banana", "plain"))
    added, waiting = one.p50_ms - results.direct["1.4 MB"], results.waiting["banana"] / 1000
    text = (
        f"One core hands on {rows['banana'].per_second:.0f} pictures of 1.4 MB a second with BananaService: {_listed(times)}."
        f" Each comes {added:.1f} ms later than straight from Google, which takes seconds for it; until then a request takes"
        f" {waiting:.0f} KB of memory, and 100 pictures on their way at once take {peak:.0f} MB (plain relay: {plain_peak:.0f} MB)."
    )
    return textwrap.wrap(text, LINE)


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _conditions(results: Results, rounds: int) -> list[str]:
    text = (
        f"`python -m bench`: medians of {counted(rounds, 'interleaved round')}, one worker on one core, the upstream (nginx, a file)"
        f" and the load (wrk) on another; {results.machine}. Deadline, cancel, retries, log and rate limit are on. Compare within a run."
    )
    if results.litellm_version:
        text += f" LiteLLM (`--litellm`) is {results.litellm_version}: its proxy as it comes, without keys and without a database."
    return textwrap.wrap(text, LINE)


def ratios(results: Results) -> list[Ratio]:
    """Return what has a bound."""
    tiny, one, middle, many, large = (
        results.answers[key] for key in (("1 KB", 16), ("1.4 MB", 1), ("1.4 MB", 16), ("1.4 MB", 100), ("14 MB", 1))
    )
    own, upload = middle["banana"], results.uploads
    return [
        Ratio("CPU of a tiny answer, 16 callers ÷ plain FastAPI + httpx", tiny["banana"].cpu_ms / tiny["plain"].cpu_ms, 0.22),
        Ratio("requests/s ÷ nginx, 1.4 MB, 16 callers", own.per_second / middle["nginx"].per_second, 1.0, at_least=True),
        Ratio("requests/s ÷ plain, 1.4 MB, 16 callers", own.per_second / middle["plain"].per_second, 4.5, at_least=True),
        Ratio("CPU per MB ÷ nginx, 14 MB, 1 caller", large["banana"].cpu_ms / large["nginx"].cpu_ms, 0.6),
        Ratio("p99 ÷ nginx' p99, 1.4 MB, 100 callers", many["banana"].p99_ms / many["nginx"].p99_ms, 2),
        Ratio("CPU per request, 100 callers ÷ 16 callers, 1.4 MB", many["banana"].cpu_ms / own.cpu_ms, 1.1),
        Ratio("CPU per MB, Google's route ÷ /generate, 14 MB", large["native"].cpu_ms / large["banana"].cpu_ms, 1.2),
        Ratio("CPU per MB, chat ÷ /generate, 14 MB", large["chat"].cpu_ms / large["banana"].cpu_ms, 1.2),
        Ratio("CPU per MB, chat as a stream ÷ /generate, 14 MB", large["chat-stream"].cpu_ms / large["banana"].cpu_ms, 1.2),
        Ratio("CPU of a 10 MB upload ÷ nginx, buffering off", upload["banana"].cpu_ms / upload["nginx-unbuffered"].cpu_ms, 4),
        Ratio("CPU that an Idempotency-Key adds, 1.4 MB, 1 caller, ms", one["keyed"].cpu_ms - one["banana"].cpu_ms, 5),
        Ratio("peak memory above idle ÷ payload, 100 × 1.4 MB", results.peaks[100, "1.4 MB", "banana"], 0.7),
        Ratio("peak memory above idle ÷ payload, 20 × 14 MB", results.peaks[20, "14 MB", "banana"], 0.7),
        Ratio("memory of a waiting request, 2,000 in flight, KB", results.waiting["banana"] / 1000, 40),
        Ratio("start to ready, s", results.starts["banana"], 0.9),
    ]  # fmt: skip


def _ratio_table(found: list[Ratio]) -> list[str]:
    rows = (
        f"| {one.what} | {one.value:.2f} | {'≥' if one.at_least else '≤'} {one.bound} | {'yes' if one.holds else '**no**'} |"
        for one in found
    )
    return ["## Ratios", "", "| what | measured | bound | holds |", "|---|---|---|---|", *rows, ""]


def _megabytes(size: str) -> float | None:
    """Return a size in MB, None for one whose bytes are not what costs."""
    return SIZES[size] / 1e6 if size.endswith("MB") else None


def _rounds(rows: dict[str, Round], size_mb: float | None, direct_ms: float | None) -> list[str]:
    """Return a table of rounds, with the columns that make sense."""
    columns: dict[str, Callable[[Round], str]] = {"CPU per request": lambda one: f"{one.cpu_ms:.2f} ms"}
    if size_mb is not None:
        columns["per MB"] = lambda one: f"{one.cpu_ms / size_mb:.2f} ms"
    columns["requests/s"] = lambda one: f"{one.per_second:.0f}"
    columns["p50"] = lambda one: f"{one.p50_ms:.1f} ms"
    columns["p99"] = lambda one: f"{one.p99_ms:.1f} ms"
    if direct_ms is not None:
        columns["added p50"] = lambda one: f"{one.p50_ms - direct_ms:.1f} ms"
    return _table(
        "", list(columns), {NAMES[name]: [cell(one) for cell in columns.values()] for name, one in rows.items()}
    )


def _table(corner: str, columns: list[str], rows: dict[str, list[str]]) -> list[str]:
    lines = ([corner, *columns], ["---"] * (len(columns) + 1), *([name, *cells] for name, cells in rows.items()))
    return [*("".join(f"| {cell} " if cell else "| " for cell in line) + "|" for line in lines), ""]


def _workers(results: Results) -> list[str]:
    rows = {
        counted(count, "worker"): [
            f"{one.cpu_ms:.2f} ms",
            f"{one.per_second:.0f}",
            f"{one.p50_ms:.1f} ms",
            f"{one.p99_ms:.1f} ms",
        ]
        for count, one in results.workers.items()
    }
    return [
        "## Several workers: answers of 1.4 MB, 16 callers",
        "",
        "Not on a core of their own: the workers share all cores of the machine with each other, the upstream and the load, so",
        "that requests per second grow less than the workers do.",
        "",
        *_table("", ["CPU per request", "requests/s", "p50", "p99"], rows),
    ]


def _processes(results: Results) -> list[str]:
    """Return the table of memory and start; what was not measured of one of them stays empty."""
    rows: dict[str, dict[str, str]] = {}
    storms = dict.fromkeys((count, size) for count, size, _ in results.peaks)
    for title, shares in (
        ("peak above idle ÷ payload, {0} × {1} in flight", results.peaks),
        (f"above idle {results.rest_seconds:.0f} s later ÷ payload, {{0}} × {{1}}", results.kept),
    ):
        for count, size in storms:
            rows[title.format(count, size)] = {name: f"{shares[count, size, name]:.2f}" for name in ("banana", "plain")}
    rows["memory of a request that waits, 2,000 in flight"] = _each(results.waiting, 1e3, "{:.0f} KB")
    rows["memory before the first request, parent and worker"] = _each(results.at_rest, 1e6, "{:.0f} MB")
    rows["start to the first response"] = _each(results.starts, 1, "{:.2f} s")
    there = [name for name in PROCESSES if name in results.starts]
    cells = {what: [row.get(name, "") for name in there] for what, row in rows.items()}
    return ["## Memory and start", "", *_table("what", [PROCESSES[name] for name in there], cells)]


def _each(figures: dict[str, float], unit: float, form: str) -> dict[str, str]:
    return {name: form.format(figure / unit) for name, figure in figures.items()}


def _not_measured(results: Results) -> list[str]:
    others = "other big relays than LiteLLM" if results.litellm_version else "LiteLLM and other big relays"
    return [others, "HTTPS to the upstream", "several machines ([SCALE.md](SCALE.md))"]
