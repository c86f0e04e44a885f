"""JavaScript clients, unmodified, pointed here by address and token alone: SDKs of OpenAI, Google and Vercel."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import ROOT, Service

pytestmark = pytest.mark.slow


def installed() -> Path:
    """The folder of the JavaScript packages, as ./check.sh installs them."""
    command = "source scripts/environment.sh && source scripts/clients.sh && ensure_javascript tests/npm"
    ran = subprocess.run(["bash", "-euc", command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return Path(sys.prefix) / "javascript/node_modules"


@pytest.mark.parametrize(
    ("script", "checks", "resets"),
    [
        ("sdks.mjs", 7, 1),  # a reset is never repeated, by us or by an SDK
        ("chat.mjs", 10, 0),
    ],
)
def test_the_npm_sdks_make_pictures_and_raise_their_own_exceptions(
    tmp_path: Path, script: str, checks: int, resets: int
) -> None:
    """Every check of the script passes, and no failure was multiplied by an SDK's own repeats."""
    (tmp_path / "node_modules").symlink_to(installed())
    shutil.copy2(ROOT / "tests/npm" / script, tmp_path)
    service = Service(tmp_path / "service", workers=1, access_tokens="anna:anna-token", rate_limit_per_minute=1000)
    assert service.run("start.sh", "--demo").returncode == 0

    ran = subprocess.run(
        [Path(sys.executable).with_name("node"), script, service.address, "anna-token"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    service.run("stop.sh")
    attempts = [line["outcome"] for line in service.log() if line["event"] == "upstream_attempt"]

    assert ran.returncode == 0, ran.stdout + ran.stderr[:5000]
    assert ran.stdout.count("ok ") == checks
    assert attempts.count("upstream_error") == resets
