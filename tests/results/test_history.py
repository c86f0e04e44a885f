"""What conversations refer to: links and ids of kept pictures, and signatures."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from banana import errors
from banana.exchange import Exchange
from banana.google.contents import Part, Turn, user_turn
from banana.google.wire import Image, Words
from banana.images import Outcome
from banana.intervals import Intervals
from banana.ledger.ledger import State
from banana.ledger.sqlite import SQLiteLedger
from banana.ledger.thread import LedgerThread
from banana.payload.memory import Buffers
from banana.payload.pictures import EncodedPicture
from banana.results.documents import document_of, encoded, kept
from banana.results.downloads import Downloads
from banana.results.folder import FolderFiles
from banana.results.history import History, KeptHistory, NoHistory, Said, keep_signature
from banana.results.links import Links
from tests.ledger.entries import ENTRY
from tests.pictures import png

pytestmark = pytest.mark.anyio
NAME = f"{ENTRY.id}-0.png"


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FolderFiles]:
    made = FolderFiles(tmp_path / "results", 1000, 1 << 20)
    yield made
    made.close()


@pytest.fixture
def links(tmp_path: Path) -> Links:
    return Links("a secret of many characters", tmp_path / "secret")


@pytest.fixture
def history(tmp_path: Path, files: FolderFiles, links: Links) -> KeptHistory:
    ledger = LedgerThread(SQLiteLedger(tmp_path / "ledger.db"))
    return KeptHistory(ledger, files, links, Downloads((), 2000), Buffers(1 << 20), 2000)


def of(caller: str) -> Exchange:
    return Exchange(deadline=0, caller=caller)


def refers(reference: str, *, is_model: bool = False) -> list[Turn]:
    return [Turn([Part("x"), Part(reference=reference)], is_model)]


def decoded(picture: EncodedPicture | None) -> bytes:
    assert picture is not None
    return b"".join(picture.decoded())


async def keep_entry(tmp_path: Path, files: FolderFiles) -> None:
    """An entry that ended with words and a picture."""
    image = Image(encoded(png()), "image/png", text="Here.", signature=[b"c2ln"])
    outcome = await kept(Outcome(0, image), ENTRY.id, files)
    await keep_signature(image, files)
    ledger = SQLiteLedger(tmp_path / "ledger.db")
    ledger.begin(ENTRY)
    ledger.mark_sent(ENTRY.id, ENTRY.owner)
    ledger.settle(ENTRY.id, ENTRY.owner, State.COMPLETED, document_of([outcome]), time.time() + 1000)
    ledger.close()


async def test_what_refers_to_nothing_stays_as_it_is(history: KeptHistory) -> None:
    """The very same turns, without a look at anything."""
    turns = [user_turn("x", [encoded(png())])]

    assert await history.looked_up(turns, of("anna")) is turns


async def test_a_link_is_the_picture_it_names(history: KeptHistory, files: FolderFiles, links: Links) -> None:
    """Whatever host stands in it: the signature is the permission."""
    await files.write(NAME, [png()])
    url = links.url("https://elsewhere.example/prefix", NAME, int(time.time()) + 100)

    (turn,) = await history.looked_up(refers(url), of("anybody"))

    assert decoded(turn.parts[1].picture) == png()


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://a.b/picture.png", errors.InvalidRequest),
        ("http://127.0.0.1/results/../../etc/passwd", errors.InvalidRequest),
        (f"http://127.0.0.1/results/{NAME}", errors.InvalidRequest),
        (f"http://127.0.0.1/results/{NAME}?exp=99999999999&sig=wrong", errors.BadSignature),
        ("http://[", errors.InvalidRequest),
    ],
)
async def test_what_is_no_link_of_ours_is_not_fetched(history: KeptHistory, url: str, kind: type[Exception]) -> None:
    """No other host is asked, and no other file is read."""
    with pytest.raises(kind):
        await history.looked_up(refers(url), of("anna"))


async def test_a_link_to_what_is_gone_says_so(history: KeptHistory, links: Links) -> None:
    """Over its time, and without its file: deleted, or it made room."""
    for seconds in (-1, 100):
        with pytest.raises(errors.Expired):
            await history.looked_up(refers(links.url("http://x", NAME, int(time.time()) + seconds)), of("anna"))


async def test_an_earlier_response_goes_back_as_it_was(
    history: KeptHistory, files: FolderFiles, tmp_path: Path
) -> None:
    """Its words and its picture with the signature; of a picture's id the picture alone."""
    await keep_entry(tmp_path, files)

    await history.store_input(ENTRY.id, "", Said([], "in oil"))
    (whole,), developer = await history.conversation(f"resp_{ENTRY.id}", of(ENTRY.caller))
    (alone,) = await history.looked_up([Turn([Part(reference=f"ig_{ENTRY.id}")], is_model=True)], of(ENTRY.caller))

    words, picture = whole.parts
    assert (words.text, decoded(picture.picture), picture.signature) == ("Here.", png(), [b"c2ln"])
    assert [decoded(part.picture) for part in alone.parts] == [png()]
    assert developer == "in oil"


async def test_a_conversation_that_is_not_whole_is_refused(
    history: KeptHistory, files: FolderFiles, tmp_path: Path
) -> None:
    """Another image would be paid for: its input, an image of that, or a response before it is gone."""
    await keep_entry(tmp_path, files)
    name = f"resp_{ENTRY.id}"
    shown = Said([Turn([Part(picture=encoded(png("blue")))])])

    with pytest.raises(errors.InvalidRequest, match="previous_response_id"):
        await history.conversation(name, of(ENTRY.caller))
    await history.store_input(ENTRY.id, f"resp_{'0' * 32}", shown)
    with pytest.raises(errors.InvalidRequest, match=f"resp_{'0' * 32}, which its conversation goes back to"):
        await history.conversation(name, of(ENTRY.caller))
    await history.store_input(ENTRY.id, "", shown)
    assert len((await history.conversation(name, of(ENTRY.caller))).turns) == 2
    for image in (tmp_path / "results").glob("*.input"):
        image.unlink()
    with pytest.raises(errors.InvalidRequest, match="previous_response_id"):
        await history.conversation(name, of(ENTRY.caller))


@pytest.mark.parametrize("reference", [f"ig_{ENTRY.id}", f"msg_{ENTRY.id}", "ig_unknown", f"ig_{'0' * 32}"])
async def test_anothers_response_is_not_there(
    history: KeptHistory, files: FolderFiles, tmp_path: Path, reference: str
) -> None:
    """Nor one that was never kept; the error names the field."""
    await keep_entry(tmp_path, files)

    with pytest.raises(errors.InvalidRequest) as caught:
        await history.looked_up(refers(reference), of("somebody else"))

    assert "was not found" in caught.value.message
    with pytest.raises(errors.InvalidRequest, match="previous_response_id"):
        await history.conversation(reference, of("somebody else"))


async def test_a_picture_of_the_models_is_signed_where_its_signature_is_kept(
    history: KeptHistory, files: FolderFiles
) -> None:
    """By its digest, wherever it comes from; another picture, and a caller's own, go without."""
    await keep_signature(Image(encoded(png("red")), "image/png", signature=[b"c2", b"ln"]), files)
    turns = [
        Turn([Part(picture=encoded(png("red"))), Part(picture=encoded(png("blue")))], is_model=True),
        user_turn("x", [encoded(png("red"))]),
    ]

    model, user = await history.looked_up(turns, of("anna"))

    assert [list(part.signature) for part in model.parts] == [[b"c2ln"], []]
    assert [list(part.signature) for part in user.parts] == [[], []]


@pytest.mark.parametrize("signature", [b'c2ln"},{"text":"x', b"", b"a b", b"\\u0041"])
async def test_a_signature_that_is_none_is_not_kept(files: FolderFiles, tmp_path: Path, signature: bytes) -> None:
    """It would stand in our JSON as it is."""
    await keep_signature(Image(encoded(png()), "image/png", signature=[signature]), files)

    assert not list((tmp_path / "results").glob("*.signature"))


async def test_nothing_can_be_referred_to_where_nothing_is_kept() -> None:
    """It is refused; what refers to nothing goes on."""
    history: History = NoHistory(Downloads((), 2000), Buffers(1 << 20), 2000)
    turns = [Turn([Part(picture=encoded(png()))], is_model=True)]

    assert await history.looked_up(turns, of("anna")) is turns
    with pytest.raises(errors.InvalidRequest):
        await history.looked_up(refers("https://a.b/c.png"), of("anna"))


def test_words_are_no_picture() -> None:
    """A response of words alone has nothing to sign."""
    assert not hasattr(Words("x", "STOP"), "signature")


@pytest.mark.parametrize(("count", "room", "kind"), [(50, 1 << 20, errors.TooLarge), (3, 200, errors.Overloaded)])
async def test_what_is_referred_to_is_bounded(
    tmp_path: Path, files: FolderFiles, links: Links, count: int, room: int, kind: type[Exception]
) -> None:
    """A reference is short, and what it stands for is not; what there is no room for is refused before it is paid for."""
    buffers = Buffers(room)
    ledger = LedgerThread(SQLiteLedger(tmp_path / "ledger.db"))
    history = KeptHistory(ledger, files, links, Downloads((), 2000), buffers, 2000)
    await files.write(NAME, [png()])
    url = links.url("http://x", NAME, int(time.time()) + 100)
    exchange = of("anna")

    with pytest.raises(kind):
        await history.looked_up(refers(url) * count, exchange)

    assert exchange.held_bytes <= min(room, 2000)


async def test_what_is_brought_along_is_counted(history: KeptHistory, files: FolderFiles, links: Links) -> None:
    """While the request is served, as its body is; what came with the body is not counted twice."""
    await files.write(NAME, [png()])
    exchange = of("anna")
    turns = [*refers(links.url("http://x", NAME, int(time.time()) + 100)), user_turn("x", [encoded(png())])]
    await history.looked_up(turns, exchange)

    assert exchange.held_bytes == encoded(png()).size_bytes


async def test_signatures_that_do_not_come_hold_nobody_up(
    files: FolderFiles, links: Links, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many pictures there are: without them the conversation goes to Google all the same."""
    ledger, soon = LedgerThread(SQLiteLedger(tmp_path / "ledger.db")), Intervals(signatures=0.1)
    history = KeptHistory(ledger, files, links, Downloads((), 2000), Buffers(1 << 20), 2000, soon)

    async def never(name: str) -> bytes:
        await asyncio.sleep(60)
        return b""

    monkeypatch.setattr(files, "read", never)
    turns = [Turn([Part(picture=encoded(png()))] * 20, is_model=True)]

    async with asyncio.timeout(10):
        (turn,) = await history.looked_up(turns, of("anna"))
    assert [part.signature for part in turn.parts] == [turns[0].parts[0].signature] * 20
