"""What operators load: alert rules, the dashboard, traces."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.patience import until
from tests.services import ROOT, Service, free_port, needs

pytestmark = pytest.mark.slow
RULES = ROOT / "ops/prometheus-rules.yml"
PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs: [{{job_name: banana, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""


def asked(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as response:
        return json.load(response)


@needs("promtool")
def test_the_alert_rules_are_rules() -> None:
    """Promtool finds nothing wrong with them."""
    ran = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "12 rules found" in ran.stdout


@needs("prometheus")
def test_a_prometheus_scrapes_the_service_and_answers_every_panel(demo: Service, tmp_path: Path) -> None:
    """A real Prometheus loads the rules, scrapes all workers, and knows every series of the dashboard and the rules."""
    demo.run("test_request.sh")
    used = set(re.findall(r"banana_[a-z_]+", (ROOT / "ops/grafana-dashboard.json").read_text() + RULES.read_text()))
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(PROMETHEUS.format(rules=RULES, port=demo.port))
    command = [shutil.which("prometheus") or "prometheus", f"--config.file={tmp_path}/prometheus.yml",
               f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: images_known_to(port) >= 2)  # what the other worker counted is there a moment later
            known = set(asked(f"http://127.0.0.1:{port}/api/v1/label/__name__/values")["data"])
            rules = asked(f"http://127.0.0.1:{port}/api/v1/rules")["data"]["groups"][0]["rules"]
        finally:
            process.send_signal(signal.SIGTERM)

    assert used - known == set()
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}


def images_known_to(port: int) -> float:
    """How many pictures Prometheus knows of; none while it does not answer."""
    with suppress(OSError):
        found = asked(f"http://127.0.0.1:{port}/api/v1/query?query=banana_images_total")["data"]["result"]
        return sum(float(series["value"][1]) for series in found)
    return 0


def test_opentelemetry_sees_one_trace_with_the_call_to_google(tmp_path: Path) -> None:
    """The launch line under opentelemetry-instrument: the caller's trace holds our span and that of the upstream call."""
    service = Service(tmp_path, workers=1)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    instrument = shutil.which("opentelemetry-instrument", path=environment["PATH"])
    assert instrument
    request = urllib.request.Request(f"{service.address}/generate", b'{"prompt":"x"}')
    request.add_header("traceparent", f"00-{trace}-00f067aa0ba902b7-01")

    def is_answered() -> bool:
        with suppress(OSError), urllib.request.urlopen(request, timeout=20) as response:
            return bool(response.status == 200)
        return False

    def kinds() -> set[str]:
        """Of the trace's spans, as far as the exporter has printed them."""
        spans = re.findall(r'"trace_id": "0x(\w+)".*?"kind": "SpanKind.(\w+)"', printed.read_text(), re.DOTALL)
        return {kind for found, kind in spans if found == trace}

    command, printed = [instrument, sys.executable, "main.py", "--demo"], tmp_path / "printed"
    with printed.open("w") as out, subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out) as process:
        try:
            until(is_answered)
            until(lambda: kinds() >= {"SERVER", "CLIENT"})
        finally:
            process.terminate()
            process.wait(30)
