"""Whether what a file pins is installed: nobody waits twice for an installation."""

from importlib import metadata
from pathlib import Path

import pytest

from scripts.installed import missing

HTTPX = f"httpx=={metadata.version('httpx')}"


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (HTTPX, []),
        (f"# a comment\n\n{HTTPX}", []),
        ("httpx==0.0.1", ["httpx==0.0.1"]),
        ("no-such-package==1.0", ["no-such-package==1.0"]),
        ("no-such-package==1.0 ; python_version < '3'", []),
        ("no-such-package==1.0 ; python_version > '3'", ["no-such-package==1.0 ; python_version > '3'"]),
        ("httpx>=0.1", ["httpx>=0.1"]),
        (f"uvicorn[standard]=={metadata.version('uvicorn')}", []),
    ],
)
def test_a_pin_is_met_by_its_version_alone(tmp_path: Path, lines: str, left: list[str]) -> None:
    """Markers decide whether it is asked for at all."""
    file = tmp_path / "requirements.txt"
    file.write_text(lines)

    assert missing(file) == left
