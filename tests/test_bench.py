"""The bench runs and writes its page; its figures are nobody's test."""

import http.server
import json
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import TypeVar
from xml.etree import ElementTree

import pytest

from bench import litellm, plot, profile, report, scale, servers
from bench.load import NothingAnsweredError, Round
from bench.measure import CALLERS, PROMPT, STORMS, Plan, measured
from bench.servers import SIZES
from tests.services import needs

T = TypeVar("T")


def short(measure: Callable[[float], T]) -> T:
    """Measure a second, and longer on a machine that is too busy to respond within one."""
    for seconds in (1, 10, 60):
        try:
            return measure(seconds)
        except NothingAnsweredError as error:
            last = error
    raise last


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
        rounds = short(
            lambda seconds: measured(
                Plan(rounds=1, seconds=seconds, folder=folder), contenders, lambda _: PROMPT, callers=4
            )
        )

    assert set(rounds) == {"nginx", "banana", "plain"}
    assert all(one.per_second > 0 for one in rounds.values())


@pytest.mark.slow
@needs("wrk")
@needs("nginx")
def test_the_profile_has_no_part_for_the_start() -> None:
    """What the workers do before they are under load, which is imports, is not in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        parts = short(lambda seconds: sampled(profile.profile(folder, 1000, 4, seconds)))

    whole = parts.pop("all")
    assert sum(parts.values()) == pytest.approx(whole)
    assert parts.get(profile.OTHER, 0) < whole / 2


def sampled(parts: dict[str, float]) -> dict[str, float]:
    """A profile with samples of what takes the most of a request. Raises NothingAnsweredError for one with too few."""
    if not {"rate limit", "HTTP to callers", "HTTP to Google"} & set(parts):
        raise NothingAnsweredError(parts)
    return parts


def measured_results(litellm_version: str = "") -> report.Results:
    """As if all had been measured, with the same figures for everything."""
    one = Round(cpu_ms=1.5, per_second=100, p50_ms=2, p99_ms=3)
    names = [name for name in report.NAMES if litellm_version or not name.startswith("litellm")]
    storms = [(count, size, name) for count, size in STORMS for name in ("banana", "plain")]
    processes = ("banana", "plain", "litellm") if litellm_version else ("banana", "plain")
    return report.Results(
        machine="here",
        litellm_version=litellm_version,
        rest_seconds=32,
        answers={(size, callers): dict.fromkeys(names, one) for size in SIZES for callers in CALLERS[size]},
        direct=dict.fromkeys(SIZES, 1.0),
        uploads=dict.fromkeys(names, one),
        peaks=dict.fromkeys(storms, 0.5),
        kept=dict.fromkeys(storms, 0.1),
        waiting=dict.fromkeys(("banana", "plain"), 30_000.0),
        starts=dict.fromkeys(processes, 1.0),
        at_rest=dict.fromkeys(processes, 50e6),
        workers={1: one, 2: one},
    )


def test_the_page_names_every_ratio() -> None:
    """The page is made from whatever was measured."""
    page = report.markdown(measured_results(), 5)

    assert "| memory of a waiting request, 2,000 in flight, KB | 30.00 | ≤ 40 | yes |" in page
    assert "| start to ready, s | 1.00 | ≤ 0.9 | **no** |" in page
    assert "| above idle 32 s later ÷ payload, 20 × 14 MB | 0.10 | 0.10 |" in page
    assert "| 2 workers | 1.50 ms | 100 | 2.0 ms | 3.0 ms |" in page
    assert "LiteLLM and other big relays" in page


def test_the_page_begins_with_what_the_figures_mean() -> None:
    """In words, from the figures of that run, and only beside what was measured."""
    results = measured_results()
    slow = Round(cpu_ms=15, per_second=10, p50_ms=20, p99_ms=30)

    before = " ".join(report.gains(results))
    results = measured_results("1.2.3")
    results.answers["1.4 MB", 16] |= {"litellm": slow}
    beside = " ".join(report.gains(results))

    assert before.startswith(
        "One core hands on 100 pictures of 1.4 MB a second with BananaService: 1.0 times as many as"
    )
    assert "Each comes 1.0 ms later" in before
    assert "30 KB of memory" in before
    assert "take 70 MB (plain relay: 70 MB)" in before
    assert "LiteLLM" not in before
    assert "10.0 times as many as LiteLLM 1.2.3" in beside


def test_litellm_stands_in_the_tables_where_it_was_measured() -> None:
    """With its version; what was not measured of it stays empty."""
    page = report.markdown(measured_results("1.2.3"), 5)

    assert "LiteLLM (`--litellm`) is 1.2.3" in " ".join(page.split())
    assert "| LiteLLM, images | 1.50 ms |" in page
    assert "| memory of a request that waits, 2,000 in flight | 30 KB | 30 KB | |" in page
    assert "| peak above idle ÷ payload, 100 × 1.4 MB in flight | 0.50 | 0.50 | |" in page


def test_bytes_have_a_column_where_they_are_what_costs() -> None:
    """Not for an answer of 1 KB; the time added by the relay is for a single caller, where nobody queues."""
    sections = report.markdown(measured_results(), 5).split("## ")
    header = {section.split("\n")[0]: section.split("\n")[2] for section in sections if section.startswith("Answers")}

    assert header["Answers of 1 KB, 16 callers"] == "| | CPU per request | requests/s | p50 | p99 |"
    assert "| per MB |" in header["Answers of 1.4 MB, 16 callers"]
    assert header["Answers of 14 MB, 1 caller"].endswith("| p99 | added p50 |")


@pytest.mark.parametrize(
    ("value", "at_least", "holds"), [(0.7, False, True), (0.71, False, False), (0.7, True, True), (0.69, True, False)]
)
def test_a_bound_is_the_most_or_the_least(value: float, at_least: bool, holds: bool) -> None:
    """Itself included."""
    assert report.Ratio("x", value, 0.7, at_least=at_least).holds == holds


def test_the_picture_has_a_bar_for_each() -> None:
    """And one of LiteLLM's that is a tenth as long where an answer takes ten times as much."""
    results = measured_results("1.2.3")
    results.answers["1.4 MB", 16] |= {"litellm": Round(cpu_ms=15, per_second=10, p50_ms=20, p99_ms=30)}

    without, beside = (ElementTree.fromstring(plot.svg(one)) for one in (measured_results(), results))

    widths = [float(bar.attrib["width"]) for bar in beside.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(list(without.iter("{http://www.w3.org/2000/svg}rect"))) == 1 + len(plot.COLOURS) - 2
    assert widths[1:] == [plot.LONGEST] * 6 + [plot.LONGEST / 10, plot.LONGEST]
    assert "LiteLLM 1.2.3" in "".join(beside.itertext())


def test_every_part_of_the_profile_is_there() -> None:
    """No part names a module that has moved."""
    for _, prefixes in profile.PARTS:
        for prefix in prefixes:
            assert not prefix.startswith("banana/") or [*servers.ROOT.glob(f"{prefix}*")], prefix


def test_a_sample_counts_for_the_innermost_part() -> None:
    """The rate limit that a middleware calls is the rate limit's; the loop below all of them is nobody's."""
    loop = f"/x/site-packages/uvicorn/server.py\n{servers.ROOT}/main.py"
    middleware = f"{servers.ROOT}/banana/http/middleware.py\n{loop}"
    samples = Counter({loop: 1, middleware: 2, f"/lib/json/encoder.py\n/x/site-packages/limits/x.py\n{middleware}": 5})

    parts = profile.shares(samples, 80)

    assert parts == {"all": 80, "rate limit": 50, "middleware": 20, profile.OTHER: 10}
    assert "| rate limit | 50 |" in profile.markdown(parts)


def test_litellm_relays_to_the_upstream() -> None:
    """Its one model is the upstream's."""
    upstream = servers.Server("upstream", 1, 8001, servers.GOOGLE_PATH)

    (model,) = json.loads(litellm.configuration(upstream))["model_list"]

    assert model["litellm_params"]["api_base"] == "http://127.0.0.1:8001/v1beta"
    assert model["model_name"] == json.loads(litellm.IMAGES_BODY)["model"]
    assert f"/{model['model_name']}:" in servers.GOOGLE_PATH


def test_litellm_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again where an installation was cut off."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        tmp_path.joinpath("installed").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0, stdout="1.2.3")

    monkeypatch.setattr(subprocess, "run", run)

    first = litellm.installed(tmp_path / "installed")
    count = len(commands)
    again = litellm.installed(tmp_path / "installed")

    assert first == again == litellm.Installation(tmp_path / "installed", "1.2.3")
    assert any("litellm[proxy]" in command for command in commands)
    assert len(commands) == count


def test_what_accepts_connections_is_not_ready_before_it_responds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's socket is open before its workers are there."""
    monkeypatch.setattr(servers, "READY_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        assert servers.accepts(port)
        assert not servers.responds(port)
        assert not servers.is_healthy(port)


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (404, False), (503, False)])
def test_the_service_is_ready_when_its_health_is_200(status: int, healthy: bool) -> None:
    """Of the others any response will do."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            assert servers.responds(server.server_port)
            assert servers.is_healthy(server.server_port) == healthy
        finally:
            server.shutdown()


def test_a_server_has_settled_when_it_takes_no_more_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is waited for no longer than that."""
    taken = iter([1.0, 1.5, 2.0, 2.01, 9.0])
    monkeypatch.setattr(servers.Server, "cpu_seconds", lambda _: next(taken))
    monkeypatch.setattr(servers, "QUIET_SECONDS", 0)

    servers.Server("x", 1, 1, "/").settle()

    assert next(taken) == 9


@pytest.mark.slow
@needs("wrk")
@needs("redis-server")
def test_a_round_over_two_machines_measures_their_store() -> None:
    """Requests per second of both together, and what Redis did for each."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(scale, "SETUPS", [(2, 1, "Redis")])
        patched.setattr(scale, "KINDS", scale.KINDS[2:3])
        (row,) = short(lambda seconds: scale.measure(Path(name), rounds=1, seconds=seconds))

    assert row.per_second > 0
    assert row.redis_cpu_ms >= 0
    assert row.commands > 3


def test_the_page_of_several_machines_says_where_the_wall_is() -> None:
    """By the CPU of Redis, in the set-up with several machines."""
    rows = [
        scale.Row("1 × 1 workers, SQLite", "plain", 100, 1.0, 0, 0),
        scale.Row("2 × 2 workers, Redis", "plain", 90, 1.2, 0.25, 30),
    ]

    page = scale.markdown(rows, scale.Idle(8, 0.05), "here", 3)

    assert "| plain | 0.250 ms | 2000 |" in page
    assert "take 0.2 % of the core" in page
