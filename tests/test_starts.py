"""What a start does without, because it would be waited for: the modules that the launcher and a worker do not import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import ROOT

pytestmark = pytest.mark.slow

# What answers requests, and no launcher: half a second.
OF_WORKERS = {
    "fastapi",
    "starlette",
    "slowapi",
    "prometheus_client",
    "opentelemetry",
    "banana.app",
    "banana.http.middleware",
}
# What few requests need, or only other settings: 0.2 s.
OF_NEITHER = {"redis", "PIL", "obstore", "aiohttp", "moto", "banana.ledger.redis", "banana.results.s3"}
LAUNCHER = "import config; from banana import launcher; launcher.check_store(config.read())"
WORKER = "import main; main.app"


def modules_after(statements: str, folder: Path) -> set[str]:
    """What a process has imported that does this in `folder`."""
    command = [sys.executable, "-c", f"import sys; {statements}; print(*sys.modules)"]
    # Of a log file that rotates, portalocker imports redis where it is installed, as it is here.
    environment = os.environ | {"GEMINI_API_KEY": "k", "PYTHONPATH": str(ROOT), "LOG_FILE": "-"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return set(ran.stdout.split())


def test_the_launcher_imports_nothing_of_a_worker(tmp_path: Path) -> None:
    """Its time is waited for before that of the workers begins."""
    modules = modules_after(LAUNCHER, tmp_path)

    assert "banana.admission.storage" in modules
    assert modules & (OF_WORKERS | OF_NEITHER) == set()


def test_a_worker_imports_what_its_requests_need(tmp_path: Path) -> None:
    """All of it, so that none of them waits; and nothing else."""
    modules = modules_after(WORKER, tmp_path)

    assert modules >= OF_WORKERS
    assert modules & OF_NEITHER == set()


def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    """Also where nobody has checked it before: `uvicorn main:app`."""
    environment = os.environ | {
        "GEMINI_API_KEY": "k",
        "PYTHONPATH": str(ROOT),
        "STORE_URL": "sqlite:////proc/no/store.db",
    }
    ran = subprocess.run(
        [sys.executable, "-c", "import main"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ran.returncode == 1
    assert ran.stderr.startswith("error: STORE_URL cannot be used")
    assert ran.stderr.count("\n") == 1
