"""Where results are kept: a folder of this machine, or a bucket that several share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from banana.results.files import Files
from banana.results.folder import FolderFiles


class ResultsError(Exception):
    """RESULTS_URL cannot be used at all; the message names what is wrong."""


def open_files(
    url: str, variables: Callable[[], Mapping[str, str]], keep_seconds: float, max_bytes: int, state_folder: Path
) -> Files:
    """Return the files at `url`, a folder or s3://bucket/prefix, each for `keep_seconds` and all within `max_bytes`.

    Args:
        url: RESULTS_URL.
        variables: returns the AWS_* variables.
        keep_seconds: for how long.
        max_bytes: how much.
        state_folder: where the workers of a machine take turns at sweeping a bucket.

    Raises ResultsError.

    """
    if not url.startswith("s3:"):
        return FolderFiles(Path(url), keep_seconds, max_bytes)
    try:
        # An optional package, which takes 15 MB and half a second.
        from banana.results.s3 import S3Files
    except ModuleNotFoundError as error:
        raise ResultsError(
            f"RESULTS_URL is {url}, and the package {error.name} is not installed: pip install -r requirements-all.txt"
            " (start.sh and the Docker image install it)"
        ) from error
    parts = urlsplit(url)
    turns = state_folder / "results.sweep"
    try:
        return S3Files(parts.netloc, parts.path.strip("/"), variables(), keep_seconds, max_bytes, turns)
    except ValueError as error:
        raise ResultsError(f"RESULTS_URL cannot be used: {error}") from error
