"""Python clients that want an environment of their own, unmodified: LiteLLM's and LangChain's."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import ROOT, Service

pytestmark = pytest.mark.slow


def installed() -> Path:
    """The Python of the environment with the clients, as ./check.sh installs them."""
    command = "source scripts/environment.sh && source scripts/clients.sh && ensure_clients tests/clients"
    ran = subprocess.run(["bash", "-euc", command], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return Path(sys.prefix) / "clients/bin/python"


def test_litellm_and_langchain_chat_and_raise_their_own_exceptions(tmp_path: Path) -> None:
    """Every check of tests/clients/chat.py passes, by address and token alone."""
    service = Service(tmp_path / "service", workers=1, access_tokens="anna:anna-token", rate_limit_per_minute=1000)
    python = installed()
    assert service.run("start.sh", "--demo").returncode == 0

    ran = subprocess.run(
        [python, ROOT / "tests/clients/chat.py", service.address, "anna-token"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    service.run("stop.sh")
    log = "".join(map(str, service.log()))

    assert ran.returncode == 0, ran.stdout + ran.stderr[:5000]
    assert ran.stdout.count("ok ") == 8
    assert "anna-token" not in log
