"""What a worker does for those that died; their entries are written by hand, by owners who show nothing."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from banana.app import create_app
from banana.intervals import Intervals
from banana.ledger.ledger import Entry, State
from banana.ledger.sqlite import SQLiteLedger
from banana.results.fingerprints import fingerprint_of
from banana.results.folder import FolderFiles
from standin.server import StandIn
from tests.conftest import client_of, settings_for
from tests.ledger.entries import ENTRY, TASK
from tests.patience import eventually, logged
from tests.pictures import png

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
SHORT = Intervals(task_look=0.02, sweep=0.2, lease=0.2, beat=0.02, retry=0.02)
# The caller of all requests here, who sent them just now.
MINE: dict[str, Any] = {"caller": "127.0.0.1", "owner": "dead", "created_at": time.time()}


@pytest.fixture
async def client(stand_in: StandIn, lease_seconds: float) -> AsyncIterator[httpx.AsyncClient]:
    """A service that finds the dead soon, and sweeps often."""
    intervals = replace(SHORT, lease=lease_seconds)
    async with client_of(create_app(settings_for(stand_in), intervals=intervals)) as client:
        yield client


@pytest.fixture
def lease_seconds() -> float:
    return SHORT.lease


@pytest.fixture
def ledger() -> SQLiteLedger:
    return SQLiteLedger(Path(".state/ledger.db"))


def ended(ledger: SQLiteLedger, entry: Entry) -> Callable[[], bool]:
    def is_so() -> bool:
        found = ledger.get([entry.id])
        return not found or not found[0].state.is_active

    return is_so


async def write(name: str, content: bytes) -> None:
    files = FolderFiles(Path(".state/results"), 60, 1 << 20)
    await files.write(name, [content])
    files.close()


async def test_a_task_that_was_not_sent_is_taken_up(
    client: httpx.AsyncClient, stand_in: StandIn, ledger: SQLiteLedger
) -> None:
    """And carried out, once; its order is gone then."""
    task = replace(TASK, **MINE, route="/v1/images/generations", has_links=True)
    await write(f"orders/{task.id}", b'{"prompt":"a banana"}')
    ledger.begin(task)
    await eventually(ended(ledger, task))

    polled = (await client.get(f"/v1/images/tasks/{task.id}")).json()

    assert (polled["status"], len(stand_in.calls)) == ("completed", 1)
    assert (await client.get(polled["result"]["data"][0]["url"])).status_code == 200
    assert list(Path(".state/results/orders").iterdir()) == []


async def test_googles_tasks_are_taken_up_too(
    client: httpx.AsyncClient, stand_in: StandIn, ledger: SQLiteLedger
) -> None:
    """With their model and their body."""
    task = replace(TASK, **MINE, route=":generateContent")
    body = b'{"contents":[{"parts":[{"text":"a banana"}]}]}'
    await write(f"orders/{task.id}", b'["gemini-3-pro-image","models/gemini-3-pro-image:generateContent"]\n' + body)
    ledger.begin(task)
    await eventually(ended(ledger, task))

    polled = (await client.get(f"/v1/images/tasks/{task.id}")).json()

    assert polled["result"]["candidates"], polled
    assert len(stand_in.calls) == 1


@pytest.mark.parametrize("order", [None, b"{", b'{"prompt":""}'])
async def test_a_task_whose_order_is_gone_fails_and_says_so(
    client: httpx.AsyncClient, stand_in: StandIn, ledger: SQLiteLedger, order: bytes | None
) -> None:
    """Nothing was billed."""
    task = replace(TASK, **MINE, route="/v1/images/generations")
    if order is not None:
        await write(f"orders/{task.id}", order)
    ledger.begin(task)
    await eventually(ended(ledger, task))

    polled = (await client.get(f"/v1/images/tasks/{task.id}")).json()

    assert (polled["status"], polled["http_status"], stand_in.calls) == ("failed", 503, [])
    assert "Nothing was sent to Google or billed" in polled["error"]["message"]


@pytest.mark.parametrize("is_task", [True, False])
async def test_what_was_sent_is_unknown(
    client: httpx.AsyncClient, stand_in: StandIn, ledger: SQLiteLedger, is_task: bool
) -> None:
    """It is settled, and never sent again."""
    body = {"prompt": "x"}
    entry = replace(ENTRY, **MINE, is_task=is_task, fingerprint=fingerprint_of("/generate", body))
    ledger.begin(entry)
    ledger.mark_sent(entry.id, "dead")

    response = await client.post("/generate", json=body, headers={"Idempotency-Key": "k"})

    assert (response.status_code, response.json()["error"]["code"], stand_in.calls) == (502, "outcome_unknown", [])
    if is_task:
        polled = (await client.get(f"/v1/images/tasks/{entry.id}")).json()
        assert (polled["status"], polled["error"]["code"]) == ("failed", "outcome_unknown")
    metrics = (await client.get("/metrics")).text
    assert "banana_unknown_outcomes_total 0.0" not in metrics


async def test_pictures_that_were_written_are_delivered(
    client: httpx.AsyncClient, stand_in: StandIn, ledger: SQLiteLedger
) -> None:
    """They were paid for: killed before it could say so, a worker leaves them behind."""
    body = {"prompt": "x", "number_of_images": 2}
    entry = replace(ENTRY, **MINE, calls=2, fingerprint=fingerprint_of("/generate", body))
    ledger.begin(entry)
    ledger.mark_sent(entry.id, "dead")
    await write(f"{entry.id}-1.png", png())

    response = await client.post("/generate", json=body, headers={"Idempotency-Key": "k"})

    assert (response.status_code, len(response.json()["images"]), stand_in.calls) == (200, 1, [])
    assert response.json()["metadata"]["failed"][0]["code"] == "outcome_unknown"


async def test_what_was_not_sent_is_carried_out_for_its_caller(
    client: httpx.AsyncClient, stand_in: StandIn, ledger: SQLiteLedger
) -> None:
    """A repeat that waits for it becomes the one that does it."""
    body = {"prompt": "x"}
    entry = replace(ENTRY, **MINE, fingerprint=fingerprint_of("/generate", body))
    ledger.begin(entry)

    response = await client.post("/generate", json=body, headers={"Idempotency-Key": "k"})

    assert (response.status_code, len(stand_in.calls)) == (200, 1)
    assert "idempotent-replayed" not in response.headers


@pytest.mark.parametrize("lease_seconds", [1])
async def test_an_owner_who_shows_that_it_lives_is_left_alone(client: httpx.AsyncClient, ledger: SQLiteLedger) -> None:
    """For as long as it does, whatever any clock says; then it is taken for dead."""
    entry = replace(ENTRY, **MINE | {"owner": "alive"})
    ledger.begin(entry)
    ledger.mark_sent(entry.id, "alive")
    until_seconds = asyncio.get_running_loop().time() + 1.5
    while asyncio.get_running_loop().time() < until_seconds:
        ledger.beat("alive")
        await asyncio.sleep(0.02)
    assert ledger.get([entry.id])[0].state is State.SENT
    await eventually(ended(ledger, entry))


async def test_what_this_worker_lost_sight_of_is_settled(
    client: httpx.AsyncClient, stand_in: StandIn, ledger: SQLiteLedger
) -> None:
    """Its own entries, which it is not at: as those of the dead."""
    stand_in.latency_seconds = 0.6
    busy = asyncio.create_task(client.post("/generate", json={"prompt": "x"}, headers={"Idempotency-Key": "busy"}))
    await eventually(lambda: bool(ledger.owners()))
    (own,) = ledger.owners()
    lost = replace(ENTRY, **MINE | {"owner": own})
    ledger.begin(lost)

    await eventually(ended(ledger, lost))

    assert (await busy).status_code == 200


async def test_a_task_cancelled_elsewhere_ends_here(
    client: httpx.AsyncClient, stand_in: StandIn, ledger: SQLiteLedger
) -> None:
    """Its call is cancelled too."""
    stand_in.plan.append("hang")
    task = (await client.post("/v1/images/generations/async", json={"prompt": "x"})).json()
    await eventually(lambda: len(stand_in.calls) == 1)
    ledger.cancel(task["id"], "127.0.0.1", b"", 1e12)

    await eventually(lambda: stand_in.calls[0].aborted)

    assert (await client.get(task["poll_url"])).json()["status"] == "cancelled"


async def test_what_expired_is_swept_and_the_rest_counted(
    client: httpx.AsyncClient, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and files; the metrics have what is left."""
    ledger.begin(replace(ENTRY, **MINE))
    ledger.settle(ENTRY.id, "dead", State.COMPLETED, b"[]", 1)
    await write(f"{ENTRY.id}-0.png", bytes(1000))
    await eventually(lambda: not ledger.get([ENTRY.id]))
    await client.get(
        (await client.post("/v1/images/generations/async", json={"prompt": "x"})).json()["poll_url"],
        params={"wait": 20},
    )

    async with asyncio.timeout(20):
        while 'banana_tasks{state="completed"} 1.0' not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.05)
    text = (await client.get("/metrics")).text
    assert "banana_kept_files 3.0" in text  # the other, the task's, and the signature of that


async def test_a_disk_that_has_room_again_is_noticed(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without anybody asking for a picture."""
    folder = Path(".state/results")
    folder.write_text("no folder")
    await client.post("/generate", json={"prompt": "x", "response_format": "url"})
    assert (await client.get("/ready")).json()["degraded"] == ["results"]
    folder.unlink()

    async with asyncio.timeout(20):
        while (await client.get("/ready")).json()["degraded"]:
            await asyncio.sleep(0.05)


async def test_a_file_that_cannot_be_read_holds_up_nothing_else(
    client: httpx.AsyncClient, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entry waits for a better moment; those behind it are settled."""
    names_of = FolderFiles.names_of

    async def failing_names_of(self: FolderFiles, entry_id: str) -> list[str]:
        if entry_id == ENTRY.id:
            raise OSError("bad sector")
        return await names_of(self, entry_id)

    bad, good = replace(ENTRY, **MINE), replace(ENTRY, **MINE, id="c" * 32, key="k2")
    with monkeypatch.context() as broken:
        broken.setattr(FolderFiles, "names_of", failing_names_of)
        for entry in (bad, good):
            ledger.begin(entry)
            ledger.mark_sent(entry.id, "dead")
        await eventually(ended(ledger, good))
        assert not ended(ledger, bad)()
    await eventually(ended(ledger, bad))


async def test_an_order_that_cannot_be_read_now_is_read_later(
    client: httpx.AsyncClient, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files are over in a moment."""
    looked = asyncio.Event()

    async def failing_read(self: FolderFiles, entry_id: str) -> bytes:
        looked.set()
        raise OSError("too many open files")

    task = replace(TASK, **MINE, route="/generate")
    await write(f"orders/{task.id}", b'{"prompt":"a banana"}')
    with monkeypatch.context() as broken:
        broken.setattr(FolderFiles, "read_order", failing_read)
        ledger.begin(task)
        await looked.wait()
    await eventually(ended(ledger, task))

    assert (await client.get(f"/v1/images/tasks/{task.id}")).json()["status"] == "completed"


@pytest.mark.parametrize("lease_seconds", [1000])
async def test_an_order_whose_task_has_ended_is_removed(client: httpx.AsyncClient, ledger: SQLiteLedger) -> None:
    """Its worker was killed in between; that of a task which has not ended stays, and one that was just written."""
    ledger.begin(replace(TASK, owner="alive"))
    left, fresh = "1" * 32, "2" * 32
    for name in (TASK.id, left, fresh):
        await write(f"orders/{name}", b"secret")
        if name != fresh:
            os.utime(f".state/results/orders/{name}", times=(time.time() - 120, time.time() - 120))
    await eventually(lambda: not Path(f".state/results/orders/{left}").exists())

    assert {path.name for path in Path(".state/results/orders").iterdir()} == {TASK.id, fresh}


async def test_what_is_taken_up_is_its_callers(stand_in: StandIn, ledger: SQLiteLedger) -> None:
    """In metrics by name where callers have names, and in the log in its API format."""
    task = replace(TASK, **MINE | {"caller": "left-behind"}, route="/generate")
    await write(f"orders/{task.id}", b'{"prompt":"a banana"}')
    ledger.begin(task)
    app = create_app(settings_for(stand_in, access_tokens="left-behind:a"), intervals=SHORT)
    async with client_of(app) as client:
        lines = await logged(lambda line: line["event"] == "carried_out")
        metrics = (await client.get("/metrics")).text

    assert 'banana_images_total{caller="left-behind",model="gemini-3-pro-image"} 1.0' in metrics
    assert [line["dialect"] for line in lines] == ["generate"]
