"""The bench runs and writes its page; its figures are nobody's test."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import report, servers
from bench.__main__ import PROMPT, SIZES, Plan, measured
from bench.load import Round
from tests.services import needs


@pytest.mark.slow
@needs("wrk")
@needs("nginx")
def test_a_round_measures_every_contender() -> None:
    """One short round over real servers gives a figure for each."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        upstream = stack.enter_context(servers.nginx_upstream(folder, servers.answer_of(SIZES["0.1 MB"])))
        contenders = [
            stack.enter_context(servers.nginx_proxy(folder, upstream, buffered=True)),
            stack.enter_context(servers.service(folder, upstream)),
            stack.enter_context(servers.plain_relay(folder, upstream)),
        ]
        rounds = measured(Plan(rounds=1, seconds=1, folder=folder), contenders, lambda _: PROMPT, 4)

    assert set(rounds) == {"nginx", "banana", "plain"}
    assert all(one.per_second > 10 for one in rounds.values())


def test_the_page_names_every_ratio() -> None:
    """The page and the picture are made from whatever was measured."""
    one = Round(cpu_ms=1.5, per_second=100, p50_ms=2, p99_ms=3)
    rows = dict.fromkeys(report.NAMES, one)
    results = report.Results(
        machine="here",
        answers={(size, callers): rows for size in SIZES for callers in (1, 16, 100)},
        direct=dict.fromkeys(SIZES, 1.0),
        uploads=rows,
        peaks={(count, size, name): 0.5 for count, size in ((100, "1.4 MB"), (20, "14 MB")) for name in rows},
        waiting=dict.fromkeys(rows, 30_000.0),
        starts=dict.fromkeys(rows, 1.0),
    )

    page = report.markdown(results, 5)

    assert "| memory of a waiting request, KB | 30.00 | ≤ 50 |" in page
    assert report.plot(results).count("<rect") == 1 + len(rows)
