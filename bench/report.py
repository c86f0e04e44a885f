"""The bench's results as a page and as a picture."""

from dataclasses import dataclass, field

from bench.load import Round

NAMES = {
    "nginx": "nginx proxy_pass",
    "nginx-unbuffered": "nginx, buffering off",
    "banana": "BananaService",
    "native": "BananaService, Google's route",
    "chat": "BananaService, chat",
    "chat-stream": "BananaService, chat as a stream",
    "keyed": "BananaService, Idempotency-Key",
    "plain": "plain FastAPI + httpx",
}
NOT_MEASURED = ("LiteLLM and the other big relays", "HTTPS to the upstream", "more than one worker")
COLOURS = {
    "nginx": "#4c9f70",
    "nginx-unbuffered": "#8fc5a5",
    "banana": "#e0b000",
    "native": "#ecd06a",
    "chat": "#d9bb4a",
    "chat-stream": "#f2df94",
    "keyed": "#b98f2e",
    "plain": "#9a9aa8",
}


@dataclass
class Results:
    """Everything measured; sizes and callers are keys as they are printed."""

    machine: str
    answers: dict[tuple[str, int], dict[str, Round]] = field(default_factory=dict)
    direct: dict[str, float] = field(default_factory=dict)
    uploads: dict[str, Round] = field(default_factory=dict)
    peaks: dict[tuple[int, str, str], float] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)


def markdown(results: Results, rounds: int) -> str:
    """Return the page."""
    lines = [
        "# Performance",
        "",
        f"`python -m bench`: medians of {rounds} interleaved rounds, one worker on one core, the upstream (nginx, a file) and",
        f"the load (wrk) on another; {results.machine}. Deadline, cancel, retries, log and rate limit are on. Compare within a run.",
        "",
        "![CPU per request](results.svg)",
        "",
        "## Ratios",
        "",
        "| what | measured | reach |",
        "|---|---|---|",
        *(f"| {what} | {value:.2f} | {reach} |" for what, value, reach in _ratios(results)),
        "",
    ]
    for (size, callers), rows in results.answers.items():
        direct = results.direct[size] if callers == 1 else None  # what is added to many callers is queueing
        lines += _table(
            f"## Answers of {size}, {callers} caller{'s' * (callers > 1)}", rows, float(size.split()[0]), direct
        )
    lines += _table("## Uploads of 10 MB, 1 caller", results.uploads, 10, None)
    lines += ["## Memory and start", "", "| what | BananaService | plain FastAPI + httpx |", "|---|---|---|"]
    for count, size in dict.fromkeys((count, size) for count, size, _ in results.peaks):
        own, plain = (results.peaks[count, size, name] for name in ("banana", "plain"))
        lines.append(f"| peak above idle ÷ payload, {count} × {size} in flight | {own:.2f} | {plain:.2f} |")
    own, plain = (results.waiting[name] / 1000 for name in ("banana", "plain"))
    lines.append(f"| memory of a request that waits, 2,000 in flight | {own:.0f} KB | {plain:.0f} KB |")
    lines.append(f"| start to ready | {results.starts['banana']:.2f} s | {results.starts['plain']:.2f} s |")
    lines += ["", f"Not measured: {', '.join(NOT_MEASURED)}.", ""]
    return "\n".join(lines)


def _ratios(results: Results) -> list[tuple[str, float, str]]:
    keys = (("1.4 MB", 1), ("1.4 MB", 16), ("1.4 MB", 100), ("14 MB", 1))
    one, middle, many, large = (results.answers[key] for key in keys)
    return [
        ("requests per second ÷ nginx, 1.4 MB, 16 callers", middle["banana"].per_second / middle["nginx"].per_second, "≥ 0.6"),
        ("CPU per MB ÷ nginx, 14 MB, 1 caller", large["banana"].cpu_ms / large["nginx"].cpu_ms, "≤ 0.7"),
        ("requests per second ÷ plain, 1.4 MB, 16 callers", middle["banana"].per_second / middle["plain"].per_second, "≥ 5"),
        ("CPU per MB, Google's route ÷ /generate, 14 MB", large["native"].cpu_ms / large["banana"].cpu_ms, "≤ 1.2"),
        ("CPU per MB, chat ÷ /generate, 14 MB", large["chat"].cpu_ms / large["banana"].cpu_ms, "≤ 1.2"),
        ("CPU per MB, chat as a stream ÷ /generate, 14 MB", large["chat-stream"].cpu_ms / large["banana"].cpu_ms, "≤ 1.2"),
        ("CPU per request, 100 callers ÷ 16 callers, 1.4 MB", many["banana"].cpu_ms / middle["banana"].cpu_ms, "≤ 1.2"),
        ("peak memory above idle ÷ payload, 100 × 1.4 MB", results.peaks[100, "1.4 MB", "banana"], "≤ 0.8"),
        ("CPU of a 10 MB upload ÷ nginx unbuffered", results.uploads["banana"].cpu_ms / results.uploads["nginx-unbuffered"].cpu_ms, "≤ 4"),
        ("CPU that an Idempotency-Key adds, 1.4 MB, 1 caller, ms", one["keyed"].cpu_ms - one["banana"].cpu_ms, "≤ 5"),
        ("memory of a waiting request, KB", results.waiting["banana"] / 1000, "≤ 50"),
    ]  # fmt: skip


def _table(title: str, rows: dict[str, Round], size_mb: float, direct_ms: float | None) -> list[str]:
    lines = [
        title,
        "",
        "| | CPU per request | per MB | requests/s | p50 | p99 | added p50 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in rows.items():
        added = "" if direct_ms is None else f"{one.p50_ms - direct_ms:.1f} ms"
        lines.append(
            f"| {NAMES[name]} | {one.cpu_ms:.2f} ms | {one.cpu_ms / size_mb:.2f} ms | {one.per_second:.0f} |"
            f" {one.p50_ms:.1f} ms | {one.p99_ms:.1f} ms | {added} |"
        )
    return [*lines, ""]


def plot(results: Results) -> str:
    """Return bars of CPU per request, answers of 1.4 MB from 16 callers, as SVG."""
    rows = results.answers["1.4 MB", 16]
    most = max(one.cpu_ms for one in rows.values())
    bars = []
    for number, (name, one) in enumerate(rows.items()):
        y, width = 44 + number * 34, one.cpu_ms / most * 350
        bars.append(
            f'<text x="210" y="{y + 16}" text-anchor="end">{NAMES[name]}</text>'
            f'<rect x="220" y="{y}" width="{width:.0f}" height="22" rx="3" fill="{COLOURS[name]}"/>'
            f'<text x="{226 + width:.0f}" y="{y + 16}">{one.cpu_ms:.2f} ms</text>'
        )
    height = 54 + len(rows) * 34
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 {height}" font-family="sans-serif" font-size="13">'
        f'<rect width="660" height="{height}" fill="#ffffff"/><g fill="#222222">'
        '<text x="20" y="26" font-size="15" font-weight="bold">CPU per request: answers of 1.4 MB, 16 callers, one core</text>'
        f"{''.join(bars)}</g></svg>\n"
    )
