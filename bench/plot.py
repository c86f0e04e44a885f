"""The bench's results as a picture: how many answers each gives for a second of processor time."""

from bench.load import Round
from bench.report import NAMES, Results

# Which are drawn, in groups that share a colour.
COLOURS = {
    "banana": "#e3a900",
    "native": "#e3a900",
    "chat": "#e3a900",
    "nginx": "#5b8c85",
    "nginx-unbuffered": "#5b8c85",
    "plain": "#8d93a1",
    "litellm": "#b0746a",
    "litellm-native": "#b0746a",
}
WIDTH, LEFT, LONGEST, STEP, TOP = 760, 252, 350, 32, 78


def svg(results: Results) -> str:
    """Return bars of answers per second of CPU, 1.4 MB, 16 callers: the more, the longer, with the CPU of each beside.

    The inverse of what an answer costs: so that those that cost ten times as much leave the others room to differ.
    """
    rows = results.answers["1.4 MB", 16]
    drawn = {name: rows[name] for name in COLOURS if name in rows}
    most = max(_per_second_of_cpu(one) for one in drawn.values())
    bars = "".join(_bar(number, name, one, most) for number, (name, one) in enumerate(drawn.items()))
    height = TOP + len(drawn) * STEP + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        ' font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="14" fill="#24292f">'
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#ffffff" stroke="#d8dee4"/>'
        '<text x="24" y="34" font-size="17" font-weight="600">Pictures of 1.4 MB per second of processor time</text>'
        f'<text x="24" y="56" font-size="13" fill="#57606a">{_subtitle(results)}</text>{bars}</svg>\n'
    )


def _per_second_of_cpu(one: Round) -> float:
    return 1000 / one.cpu_ms


def _subtitle(results: Results) -> str:
    version = f" LiteLLM {results.litellm_version}." if results.litellm_version else ""
    return f"More is better. One worker, 16 callers; beside each bar what one picture takes.{version}"


def _bar(number: int, name: str, one: Round, most: float) -> str:
    y, carried = TOP + number * STEP, _per_second_of_cpu(one)
    width, weight = carried / most * LONGEST, ' font-weight="600"' if name.startswith("banana") else ""
    return (
        f'<text x="{LEFT - 12}" y="{y + 16}" text-anchor="end"{weight}>{NAMES[name]}</text>'
        f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="22" rx="3" fill="{COLOURS[name]}"/>'
        f'<text x="{LEFT + width + 10:.1f}" y="{y + 16}"{weight}>{carried:.0f}'
        f'<tspan fill="#57606a" font-weight="400" dx="8">{one.cpu_ms:.1f} ms</tspan></text>'
    )
