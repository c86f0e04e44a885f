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

import pytest

from bench import litellm, profile, report, scale, servers
from bench.__main__ import PROMPT, SIZES, Plan, measured
from bench.load import NothingAnsweredError, Round
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
@needs("nginx")
def test_the_profile_has_no_part_for_the_start() -> None:
    """What the workers do before they are under load, which is imports, is not in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        parts = short(lambda seconds: profile.profile(folder, 1000, 4, seconds))

    whole = parts.pop("all")
    assert sum(parts.values()) == pytest.approx(whole)
    assert parts.get(profile.OTHER, 0) < whole / 2
    assert {"rate limit", "HTTP to callers", "HTTP to Google"} & set(parts)


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
