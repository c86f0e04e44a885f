"""`python -m bench`: measure, print, and write bench/RESULTS.md and bench/results.svg.

Each figure is the median of interleaved rounds; figures of different machines do not compare, ratios of one run do.
"""

import argparse
import os
import platform
import tempfile
from pathlib import Path

from bench import litellm, load, measure, plot, profile, report, scale, servers


def main() -> None:
    """Run the bench, or the part of it that was asked for."""
    arguments = _arguments()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's workers are another user's when root starts it
        if arguments.scale:
            _scale(arguments, folder, machine)
        elif arguments.profile:
            _profile(arguments, folder)
        else:
            _compare(arguments, folder, machine)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="length of a round")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for RESULTS.md and results.svg")
    parser.add_argument("--litellm", action="store_true", help="beside LiteLLM too; installs it into .state at first")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--scale", action="store_true", help="only several workers and machines on one store: SCALE.md")
    other.add_argument("--profile", action="store_true", help="only print where a request's processor time goes")
    arguments = parser.parse_args()
    if not load.installed() or servers.nginx_command() is None:
        parser.exit(1, "the bench needs nginx and wrk: apt-get install nginx-light wrk\n")
    return arguments


def _compare(arguments: argparse.Namespace, folder: Path, machine: str) -> None:
    installation = litellm.installed() if arguments.litellm else None
    plan = measure.Plan(arguments.rounds, arguments.seconds, folder, installation=installation)
    results = report.Results(machine, installation.version if installation else "", plan.rest_seconds)
    for part in measure.PARTS:
        part(plan, results)
    text = report.markdown(results, arguments.rounds)
    (arguments.out / "RESULTS.md").write_text(text, encoding="utf-8")
    (arguments.out / "results.svg").write_text(plot.svg(results), encoding="utf-8")
    print(text)


def _scale(arguments: argparse.Namespace, folder: Path, machine: str) -> None:
    idle = scale.idle(folder)
    rows = scale.measure(folder, arguments.rounds, arguments.seconds)
    text = scale.markdown(rows, idle, machine, arguments.rounds)
    (arguments.out / "SCALE.md").write_text(text, encoding="utf-8")
    print(text)


def _profile(arguments: argparse.Namespace, folder: Path) -> None:
    for size in ("1 KB", "1.4 MB"):
        parts = profile.profile(folder, servers.SIZES[size], 16, arguments.seconds)
        print(f"\nAnswers of {size}, 16 callers\n\n{profile.markdown(parts)}", flush=True)


if __name__ == "__main__":
    main()
