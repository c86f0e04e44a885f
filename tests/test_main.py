"""The door: what is said before anything is served."""

import os
import subprocess
import sys
from pathlib import Path

from tests.services import ROOT


def checked(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """What `main.py --check` says, as the scripts ask it before a start or a restart."""
    environment = os.environ | {"GEMINI_API_KEY": "k", "PORT": "1", "PYTHONPATH": str(ROOT)} | settings
    command: list[str | Path] = [sys.executable, ROOT / "main.py", "--check", "--running"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_budget_that_is_nobodys_is_said_where_somebody_looks(tmp_path: Path) -> None:
    """Whom it was meant for would spend without one; the others are fine."""
    wrong = checked(tmp_path, ACCESS_TOKENS="alice:t,ci:u", BUDGETS="alise=5/day,ci=1/day,*=1/day")
    right = checked(tmp_path, ACCESS_TOKENS="alice:t", BUDGETS="alice=5/day")

    assert (wrong.returncode, right.returncode) == (0, 0)
    assert wrong.stderr == "warning: BUDGETS names alise, which is no name in ACCESS_TOKENS: nobody has that budget.\n"
    assert right.stderr == ""
