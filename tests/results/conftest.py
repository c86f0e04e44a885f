"""Both kinds of kept files, behind one interface."""

from collections.abc import Callable
from pathlib import Path

import pytest

from banana.results.files import Files
from banana.results.storage import open_files
from tests.s3_server import BUCKET, S3Server


@pytest.fixture(params=["folder", "s3"])
def opened(request: pytest.FixtureRequest) -> Callable[[float, int], Files]:
    """Opens the files, empty at first, for some seconds and bytes."""
    url, variables = "state/results", {}
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        s3.empty()
        url, variables = f"s3://{BUCKET}/kept", s3.variables
    return lambda keep_seconds, max_bytes: open_files(url, lambda: variables, keep_seconds, max_bytes, Path("state"))
