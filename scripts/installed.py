"""Whether the packages that a file pins are installed here, so that nobody who installed them by hand waits for it twice.

python -m scripts.installed REQUIREMENTS.txt: exits 0 if so, 1 if one of them is missing or of another version.
"""

import re
import sys
from importlib import metadata
from pathlib import Path

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*])?==(?P<version>[^\s;]+)\s*(;\s*(?P<marker>.+))?")


def missing(requirements: Path) -> list[str]:
    """Return the lines of a file of pinned requirements that are not met here; all of them where nothing is installed."""
    try:
        from packaging.markers import Marker  # pinned itself: where it is not there, nothing is
    except ModuleNotFoundError:
        return requirements.read_text(encoding="utf-8").splitlines()
    left = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        pin = _PIN.fullmatch(line.strip())
        if pin is None:
            is_met = not line.strip() or line.startswith("#")
        else:
            is_asked_for = pin["marker"] is None or Marker(pin["marker"]).evaluate()
            is_met = not is_asked_for or _version(pin["name"]) == pin["version"]
        if not is_met:
            left.append(line)
    return left


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(bool(missing(Path(sys.argv[1]))))
