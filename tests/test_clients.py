"""Python clients that want an environment of their own, unmodified: LiteLLM's and LangChain's."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.services import ROOT, Service

pytestmark = pytest.mark.slow


def installed() -> Path:
    """The Python of the environment with the clients, as ./check.sh installs them."""
    command = "source scripts/environment.sh && ensure_clients tests/clients"
    ran = subprocess.run(["bash", "-euc", command], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ROOT / ".venv/clients/bin/python"


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


def recipes(library: str) -> list[str]:
    """The Python of docs/clients.md that imports it, in either language."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/clients.md").read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in blocks if re.search(rf"^(import|from) {library}\b", block, re.MULTILINE)]


@pytest.mark.parametrize("library", ["litellm", "langchain_openai"])
def test_the_recipes_make_pictures(library: str, demo: Service) -> None:
    """The Python of docs/clients.md, run as printed, ends with a picture in base64."""
    python = installed()
    english, chinese = recipes(library)
    for recipe in (english, chinese):
        script = recipe.replace("HOST:8000", f"127.0.0.1:{demo.port}") + "\nprint(image.rpartition(',')[2][:4])"
        environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # nothing is asked of another host
        ran = subprocess.run(
            [python, "-c", script], capture_output=True, text=True, timeout=120, env=environment, check=False
        )
        assert ran.stdout == "/9j/\n", ran.stdout + ran.stderr[:5000]
