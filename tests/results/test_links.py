"""Links: what they hold, whose they are, until when."""

import stat
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from banana import errors
from banana.intervals import Intervals
from banana.ledger.redis import RedisLedger
from banana.ledger.thread import LedgerThread
from banana.results.links import Links
from tests.redis_server import RedisServer
from tests.services import needs

FILE = Path("state/results.secret")
SOON = int(time.time()) + 10_000


def parts_of(url: str) -> tuple[str, str, str]:
    """The file's name, the expiry and the signature."""
    query = parse_qs(urlsplit(url).query)
    return url.partition("/results/")[2].partition("?")[0], query["exp"][0], query["sig"][0]


def test_a_link_is_good_until_it_expires() -> None:
    """And says for how long."""
    links = Links("a secret of the operator", FILE)
    url = links.url("https://pictures.example.org", "abc-0.jpg", SOON)

    assert url.startswith(f"https://pictures.example.org/results/abc-0.jpg?exp={SOON}&sig=")
    assert 0 < links.check(*parts_of(url)) <= 10_000
    assert not FILE.exists()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_link_that_was_changed_is_refused(which: int) -> None:
    """Its name, its expiry, its signature."""
    links = Links("a secret of the operator", FILE)
    parts = list(parts_of(links.url("", "abc-0.jpg", SOON)))
    parts[which] = {0: "abd-0.jpg", 1: str(SOON + 1), 2: "ä" * 43}[which]

    with pytest.raises(errors.BadSignature):
        links.check(*parts)


def test_the_signature_is_looked_at_before_the_time() -> None:
    """Nobody learns from an expired link whether it was ever one."""
    links = Links("a secret of the operator", FILE)
    name, exp, sig = parts_of(links.url("", "abc-0.jpg", 1))

    with pytest.raises(errors.Expired):
        links.check(name, exp, sig)
    with pytest.raises(errors.BadSignature):
        links.check(name, exp, "x")


def test_the_secret_is_made_once() -> None:
    """Two workers agree, and another start does too; nobody else reads it."""
    url = Links(None, FILE).url("", "abc-0.jpg", SOON)

    assert Links(None, FILE).check(*parts_of(url)) > 0
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o600
    assert len(FILE.read_bytes()) == 64
    assert list(FILE.parent.iterdir()) == [FILE]


def test_no_room_for_a_secret_is_no_link() -> None:
    """The caller of `url` sends the picture itself."""
    FILE.parent.write_text("no folder")

    with pytest.raises(NotADirectoryError):
        Links(None, FILE).url("", "abc-0.jpg", SOON)
    with pytest.raises(errors.LedgerUnavailable):
        Links(None, FILE).check("abc-0.jpg", str(SOON), "x")


def test_a_secret_whose_file_is_gone_is_written_again() -> None:
    """Every worker has the same: links go on working in all of them, old and new."""
    file = Path("results.secret")
    workers = [Links(None, file, Intervals(file_look=0)) for _ in range(3)]
    made = [worker.url("", "a.png", 1 << 40) for worker in workers]
    secret = file.read_bytes()
    file.unlink()
    again = [worker.url("", "a.png", 1 << 40) for worker in reversed(workers)]

    assert len({*made, *again}) == 1
    assert file.read_bytes() == secret


@needs("redis-server")
@pytest.mark.anyio
async def test_machines_take_the_first_ones_secret(tmp_path: Path) -> None:
    """Links of one are good at all, also those of a machine that had another before; a setting goes before all that."""
    redis = RedisServer()
    ledgers = [LedgerThread(RedisLedger(redis.url)) for _ in range(3)]
    machines = [Links(None, tmp_path / str(number) / "secret") for number in range(2)]
    machines[1].url("", "abc-0.jpg", SOON)
    operators = Links("a secret of the operator", tmp_path / "none")
    for links, ledger in zip([*machines, operators], ledgers, strict=True):
        await links.share(ledger)
        await links.share(ledger)
    url = machines[0].url("", "abc-0.jpg", SOON)

    assert machines[1].check(*parts_of(url)) > 0
    assert machines[1].url("", "abc-0.jpg", SOON) == url
    with pytest.raises(errors.BadSignature):
        operators.check(*parts_of(url))
    assert not (tmp_path / "none").exists()
    for ledger in ledgers:
        await ledger.close()
    redis.kill()
