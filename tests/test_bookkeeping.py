"""Ledgers and stores that say nothing: an image that was paid for comes all the same, and what must be recorded is refused."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import config
from banana.app import create_app
from banana.intervals import Intervals
from banana.ledger.sqlite_spend import SQLiteSpend
from banana.results import works
from banana.results.folder import FolderFiles
from standin.server import StandIn
from tests.conftest import client_of, error_of, settings_for
from tests.patience import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
LEDGER = Path(".state/ledger.db")


@contextmanager
def held() -> Iterator[None]:
    """Another process holds the ledger."""
    with closing(sqlite3.connect(LEDGER, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


async def asked(stand_in: StandIn) -> None:
    while not stand_in.calls:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}], ids=["unkeyed", "keyed"])
async def test_an_image_does_not_wait_for_a_ledger_that_is_held(stand_in: StandIn, key: dict[str, str]) -> None:
    """It is there while the ledger is still held; what it cost is charged when that is over."""
    stand_in.latency_seconds = 0.5
    settings = settings_for(stand_in, budgets="*=5/day", request_timeout_seconds=60)
    app = create_app(settings, intervals=Intervals(ledger_answer=600, ledger_lock=600))
    async with client_of(app) as client:
        asking = asyncio.create_task(client.post("/generate", json={"prompt": "a banana"}, headers=key))
        await asked(stand_in)
        with held():
            response = await asking
            assert response.status_code == 200, response.text
            assert response.json()["images"]
        while (await client.get("/v1/key")).json()["data"]["usage"] == 0:
            await asyncio.sleep(0.05)
        again = await client.post("/generate", json={"prompt": "a banana"}, headers=key)

    assert (again.headers.get("Idempotent-Replayed"), len(stand_in.calls)) == (("true", 1) if key else (None, 2))


async def test_what_must_be_recorded_is_refused_while_the_ledger_says_nothing(stand_in: StandIn) -> None:
    """With a key, as a task, under a budget: nothing is sent; and the key is free when the ledger is back."""
    headers = {"Idempotency-Key": "k"}
    app = create_app(settings_for(stand_in, request_timeout_seconds=60), intervals=Intervals(ledger_answer=0.3))
    async with client_of(app) as client:
        await client.post("/generate", json={"prompt": "a"}, headers={"Idempotency-Key": "first"})
        before = len(stand_in.calls)
        with held():
            for sent in (headers, {"Prefer": "respond-async"}):
                refused = await client.post("/generate", json={"prompt": "a banana"}, headers=sent)
                assert (refused.status_code, error_of(refused)["code"]) == (503, "overloaded")
            assert (await client.post("/generate", json={"prompt": "a banana"})).status_code == 200
            assert len(stand_in.calls) == before + 1
        for _ in range(100):
            if (response := await client.post("/generate", json={"prompt": "a banana"}, headers=headers)).is_success:
                break
            await asyncio.sleep(0.1)

    assert (response.status_code, len(stand_in.calls)) == (200, before + 2)


async def test_an_image_comes_before_the_deadline_though_it_cannot_be_stored(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that says nothing holds it until shortly before; when the store answers in the end, it is replayed."""
    stored = asyncio.Event()
    write = FolderFiles.write

    async def silent(self: FolderFiles, *given: Any) -> None:
        await stored.wait()
        await write(self, *given)

    monkeypatch.setattr(FolderFiles, "write", silent)
    headers = {"Idempotency-Key": "k"}
    async with client_of(create_app(settings_for(stand_in, request_timeout_seconds=3))) as client:
        response = await client.post("/generate", json={"prompt": "a banana"}, headers=headers)
        as_link = await client.post("/generate", json={"prompt": "another", "response_format": "url"})
        stored.set()
        again = await client.post("/generate", json={"prompt": "a banana"}, headers=headers)

    assert (response.status_code, again.status_code) == (200, 200), response.text[:300]
    assert response.json() == again.json()
    assert (as_link.status_code, len(stand_in.calls)) == (200, 2)
    assert works.STORE_SPARE_SECONDS < 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("LEDGER_URL", "mysql://h/db"), ("LEDGER_URL", "postgres:/x"), ("LEDGER_URL", "sqlite:///"), ("STORE_URL", "postgres://h"),
     ("RESULTS_URL", "gs://bucket"), ("RESULTS_URL", "s3:/bucket"), ("KEEP_RESULTS_BYTES", "200000"),
     ("LEDGR_URL", "sqlite:///x"), ("STORE_ULR", "redis://h"), ("ACCES_TOKENS", "a"), ("BUDGET", "*=1/day"), ("LEDGERURL", "sqlite:///x")],
)  # fmt: skip
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_what_would_be_recorded_elsewhere_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, place: str
) -> None:
    """A scheme that is not known, a name that is written wrong: each is named, wherever it stands."""
    if place == ".env":
        Path(".env").write_text(f"GEMINI_API_KEY=k\n{name}={value}\n", encoding="utf-8")
    else:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv(name, value)

    with pytest.raises(config.SettingsError, match=name):
        config.read()


async def test_no_task_is_begun_when_the_service_stops(
    client: httpx.AsyncClient, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller is told that nothing was sent; other requests are still served."""
    monkeypatch.setattr("banana.server.protocol.ServerProtocol.draining", True)
    headers = {"Prefer": "respond-async", "Idempotency-Key": "k"}
    refused = await client.post("/generate", json={"prompt": "a banana"}, headers=headers)
    served = await client.post("/generate", json={"prompt": "a banana"})

    assert (refused.status_code, error_of(refused)["code"], served.status_code) == (503, "overloaded", 200)
    assert len(stand_in.calls) == 1


@pytest.mark.parametrize(
    "name", ["GOOGLE_GEMINI_BASE_URL", "AWS_ACCESS_TOKEN", "NPM_ACCESS_TOKEN", "ACCESS_TOKEN_SECRET", "STORAGE_URL"]
)
def test_names_of_other_programs_stop_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """google-genai is pointed here by one of them."""
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.setenv(name, "x")

    assert config.read().gemini_api_key == ("k",)


async def test_what_a_slow_ledger_records_late_is_recorded_once(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a caller without a budget spends is added, not set: it is waited for, and not added again."""
    add = SQLiteSpend.add

    def slow(self: SQLiteSpend, rows: Any) -> None:
        add(self, rows)
        time.sleep(0.5)

    monkeypatch.setattr(SQLiteSpend, "add", slow)
    async with client_of(create_app(settings_for(stand_in), intervals=Intervals(ledger_answer=0.1))) as client:
        response = await client.post("/generate", json={"prompt": "a banana"})
    async with client_of(create_app(settings_for(stand_in))) as client:
        usage = (await client.get("/v1/key")).json()["data"]["usage"]

    assert f"{usage:.6f}" == response.headers["X-Cost-USD"]


@pytest.mark.parametrize("by_its_caller", [False, True])
async def test_what_is_stored_outlives_its_worker(stand_in: StandIn, by_its_caller: bool) -> None:
    """A task that its caller cancels takes its images along; one whose worker ends leaves them for the next."""
    stand_in.plan.extend([None, "hang"])
    app = create_app(settings_for(stand_in))
    async with client_of(app) as client:
        body = {"prompt": "a banana", "n": 2}
        task = (await client.post("/v1/images/generations/async", json=body)).json()["id"]
        images = Path(".state/results")
        await eventually(lambda: len(stand_in.calls) == 2 and list(images.glob(f"{task}-*")))
        if by_its_caller:
            await client.delete(f"/v1/images/tasks/{task}")
        else:
            (work,) = [one for one in asyncio.all_tasks() if "_carry_out" in repr(one.get_coro())]
            work.cancel()
            await asyncio.wait([work])
        await eventually(lambda: not by_its_caller or not list(images.glob(f"{task}-*")))
        left = list(images.glob(f"{task}-*"))

    assert len(left) == (0 if by_its_caller else 1)
