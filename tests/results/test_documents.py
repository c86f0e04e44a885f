"""What a request became, written and read again."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from banana import errors
from banana.errors import UpstreamResponse
from banana.google.wire import Image
from banana.images import Outcome
from banana.ledger.ledger import Entry, State
from banana.payload.pictures import read_picture
from banana.payload.pieces import size_of
from banana.results.documents import (
    decisive_error,
    document_of,
    error_in,
    kept,
    outcomes_of,
    recovered_outcomes,
)
from banana.results.folder import FolderFiles
from tests.ledger.entries import ENTRY
from tests.pictures import encoded, opened, png

pytestmark = pytest.mark.anyio


@pytest.fixture
async def files() -> AsyncIterator[FolderFiles]:
    made = FolderFiles(Path("results"), keep_seconds=60, max_bytes=1 << 20)
    yield made
    made.close()


def image(text: str, mime_type: str = "image/png") -> Image:
    return Image(read_picture(text), mime_type, {"totalTokenCount": 7})


def entry_with(outcomes: list[Outcome]) -> Entry:
    return replace(ENTRY, result=document_of(outcomes))


async def test_an_image_is_read_as_it_was_kept(files: FolderFiles) -> None:
    """Its base64 too, whichever alphabet Google used: what is sent first is what is read later."""
    odd = encoded(png(size=(64, 64))).translate(str.maketrans("+/", "-_")).rstrip("=")
    first = await kept(Outcome(3, image(odd), 1000), "a" * 32, files)
    (again,) = await outcomes_of(entry_with([first]), files, with_content=True)

    assert first.file == "a" * 32 + "-3.png"
    assert (again.index, again.created_at, again.file) == (3, 1000, first.file)
    assert isinstance(again.result, Image)
    assert isinstance(first.result, Image)
    assert b"".join(again.result.picture.pieces) == b"".join(first.result.picture.pieces)
    assert opened(b"".join(first.result.picture.decoded())).size == (64, 64)
    assert (again.result.mime_type, again.result.usage) == ("image/png", {"totalTokenCount": 7})


async def test_without_content_an_image_is_its_name(files: FolderFiles) -> None:
    """Megabytes are not read for a link."""
    first = await kept(Outcome(0, image(encoded(png(size=(64, 64))))), "a" * 32, files)
    (again,) = await outcomes_of(entry_with([first]), files, with_content=False)

    assert isinstance(again.result, Image)
    assert size_of(again.result.picture.pieces) < 100


async def test_a_type_without_links_is_kept_all_the_same(files: FolderFiles) -> None:
    """And read whole, because there is nothing else to give."""
    first = await kept(Outcome(0, image(encoded(b"GIF89a" + bytes(100)), "image/gif")), "a" * 32, files)
    (again,) = await outcomes_of(entry_with([first]), files, with_content=False)

    assert first.file.endswith("-0.bin")
    assert isinstance(again.result, Image)
    assert b"".join(again.result.picture.decoded()) == b"GIF89a" + bytes(100)
    assert again.result.mime_type == "image/gif"


async def test_a_response_of_googles_is_kept_whole(files: FolderFiles) -> None:
    """Bytes and type."""
    first = await kept(Outcome(0, UpstreamResponse(200, "application/json", [b'{"a"', b":1}"])), "a" * 32, files)
    (again,) = await outcomes_of(entry_with([first]), files, with_content=False)

    assert again.result == UpstreamResponse(200, "application/json", [b'{"a":1}'])


async def test_an_error_is_read_as_it_was(files: FolderFiles) -> None:
    """Status, code, words, details, Google's own response; with the id of the first request."""
    error = errors.Blocked("no", reason="SAFETY")
    error.upstream_response = UpstreamResponse(403, "application/json", [b"{}"])
    (again,) = await outcomes_of(entry_with([Outcome(1, error)]), files, with_content=True)

    read: Any = again.result
    assert (read.status, read.code, read.message, read.extra) == (422, "blocked", "no", {"reason": "SAFETY"})
    assert (read.request_id, read.upstream_response) == ("r", error.upstream_response)


async def test_what_is_gone_is_expired(files: FolderFiles) -> None:
    """Deleted, or never written."""
    for result in (b"", document_of([Outcome(0, image(encoded(png())))])):
        with pytest.raises(errors.Expired):
            await outcomes_of(replace(ENTRY, result=result), files, with_content=True)


async def test_a_removed_file_is_expired(files: FolderFiles) -> None:
    """With content and without."""
    first = await kept(Outcome(0, image(encoded(png()))), "a" * 32, files)
    await files.remove("a" * 32)

    for with_content in (True, False):
        with pytest.raises(errors.Expired):
            await outcomes_of(entry_with([first]), files, with_content=with_content)


async def test_what_lies_in_files_is_recovered(files: FolderFiles) -> None:
    """Of a worker that was killed: the pictures that it wrote; the rest is unknown."""
    await kept(Outcome(1, image(encoded(png()))), ENTRY.id, files)
    outcomes = await recovered_outcomes(replace(ENTRY, calls=3), files)

    assert [type(outcome.result).__name__ for outcome in outcomes] == ["OutcomeUnknown", "Image", "OutcomeUnknown"]
    assert isinstance(outcomes[1].result, Image)
    assert outcomes[1].result.mime_type == "image/png"


async def test_a_whole_response_is_recovered_too(files: FolderFiles) -> None:
    """As Google sent it; it is read when it is wanted."""
    await kept(Outcome(0, UpstreamResponse(200, "application/json", [b"{}"])), ENTRY.id, files)

    (outcome,) = await recovered_outcomes(ENTRY, files)

    assert outcome.result == UpstreamResponse(200, "application/json", [])
    document = document_of([outcome])
    (read,) = await outcomes_of(replace(ENTRY, result=document), files, with_content=True)
    assert read.result == UpstreamResponse(200, "application/json", [b"{}"])


async def test_a_foreign_file_recovers_nothing(files: FolderFiles) -> None:
    """Somebody made a copy of one."""
    await files.write(f"{ENTRY.id}-0 (1).jpg", [b"x"])

    (outcome,) = await recovered_outcomes(ENTRY, files)

    assert isinstance(outcome.result, errors.OutcomeUnknown)


def test_what_google_answered_decides_over_what_may_be_tried_again() -> None:
    """It keeps the key used: a repeat is not told in vain to come back."""
    full, blocked = errors.UpstreamOverloaded("full"), errors.Blocked("no")

    assert decisive_error([full, blocked]) is blocked
    assert decisive_error([full]) is full


def test_an_error_that_is_kept_says_when_to_try_again() -> None:
    """In its header, too."""
    quota = errors.UpstreamQuota("used up", retry_after_seconds=30)
    error = error_in(replace(ENTRY, state=State.FAILED, result=document_of([Outcome(0, quota)])))

    assert error is not None
    assert error.headers == {"Retry-After": "30"}


def test_the_unknown_decides_over_the_first() -> None:
    """It may have been billed."""
    first, unknown = errors.Blocked("no"), errors.OutcomeUnknown()

    assert decisive_error([first, unknown]) is unknown
    assert decisive_error([first, errors.NoImage("x")]) is first
