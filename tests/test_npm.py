"""The JavaScript SDKs of OpenAI and Google, unmodified, pointed here by address and token alone."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.services import ROOT, Service, needs

pytestmark = [pytest.mark.slow, needs("npm"), needs("node")]


def test_the_npm_sdks_make_pictures_and_raise_their_own_exceptions(tmp_path: Path) -> None:
    """Every check of tests/npm/sdks.mjs passes, and no failure was multiplied by an SDK's own repeats."""
    folder = tmp_path / "npm"
    shutil.copytree(ROOT / "tests/npm", folder, ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert installed.returncode == 0, installed.stderr
    service = Service(tmp_path / "service", workers=1, access_tokens="anna:anna-token", rate_limit_per_minute=1000)
    assert service.run("start.sh", "--demo").returncode == 0

    ran = subprocess.run(
        ["node", "sdks.mjs", service.address, "anna-token"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    attempts = [line for line in service.log() if line["event"] == "upstream_attempt"]
    service.run("stop.sh")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("ok ") == 7
    # A reset is never repeated, by us or by an SDK.
    assert [line["outcome"] for line in attempts].count("upstream_error") == 1
