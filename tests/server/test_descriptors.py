"""The limit of file descriptors, in processes of their own: it cannot be raised again once it was lowered."""

import subprocess
import sys

import pytest

from tests.services import ROOT


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
[(256, 256, "256 60"), (128, 400, "400 204"), (128, 1000, "496 300"), (600, 1000, "600 300"), (100, 100, "100 1")],
)  # fmt: skip
def test_the_limit_is_raised_as_far_as_it_goes(soft: int, hard: int, expected: str) -> None:
    """Never lowered; where the system gives less, fewer requests are served at once, but always one."""
    code = f"""
import resource
from banana.server.descriptors import raise_limit, requests_within_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
raise_limit(300, 100)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], requests_within_limit(300, 100))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == expected
