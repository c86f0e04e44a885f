"""Where results are kept."""

import sys
from pathlib import Path

import pytest

from banana.results.files import Files
from banana.results.folder import FolderFiles
from banana.results.s3 import S3Files
from banana.results.storage import ResultsError, open_files


def opened(url: str, **variables: str) -> Files:
    return open_files(url, lambda: variables, 60, 1000, Path("state"))


def test_the_address_decides() -> None:
    """A folder, or a bucket."""
    assert isinstance(opened("state/results"), FolderFiles)
    assert isinstance(opened("s3://bucket"), S3Files)
    assert isinstance(opened("s3://bucket/some/prefix/"), S3Files)


def test_what_can_never_be_used_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that makes no sense, and a package that is missing; what to do about it."""
    with pytest.raises(ResultsError, match="RESULTS_URL cannot be used"):
        opened("s3://bucket", AWS_VIRTUAL_HOSTED_STYLE_REQUEST="what")
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "banana.results.s3")
    with pytest.raises(ResultsError, match=r"obstore is not installed: pip install -r requirements-all\.txt"):
        opened("s3://bucket")
