"""Pages that held pictures are used again, and given back when a storm is over; what is held has a bound."""

import asyncio
import ctypes

import pytest

from banana import errors
from banana.exchange import Exchange
from banana.payload import memory
from banana.payload.memory import Buffers


def test_the_allocator_is_told_to_keep_what_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All three of glibc's settings are set, each within what it takes."""
    calls: dict[int, int] = {}

    class Glibc:
        def mallopt(self, name: int, value: int) -> int:
            calls[name] = value
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Glibc())
    memory.keep_pages()

    assert set(calls) == {-1, -2, -3}
    assert calls[-3] <= 32 << 20  # glibc refuses more, silently


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without glibc starts as well."""

    def missing(_: str) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    memory.keep_pages()


def test_a_body_is_taken_while_there_is_room() -> None:
    """What does not fit is refused and holds nothing; what has ended makes room."""
    buffers, first, second = Buffers(100), Exchange(0), Exchange(0)
    buffers.reserve(first, 60)
    with pytest.raises(errors.Overloaded, match="MAX_BUFFERED_BYTES") as refused:
        buffers.reserve(second, 41)
    assert (second.held_bytes, refused.value.headers) == (0, {"Retry-After": "5"})
    buffers.reserve(second, 40)
    buffers.release(first)
    buffers.reserve(second, 60)

    assert buffers.held_bytes == 100


def test_what_is_held_can_be_handed_over() -> None:
    """To what outlives the request: it is counted once, and given back once."""
    buffers, request, work = Buffers(100), Exchange(deadline=0), Exchange(deadline=0)
    buffers.reserve(request, 60)
    buffers.hand_over(request, work)
    buffers.release(request)
    assert (buffers.held_bytes, work.held_bytes) == (60, 60)
    buffers.release(work)

    assert buffers.held_bytes == 0


def test_a_response_is_always_held() -> None:
    """It was paid for."""
    buffers, exchange = Buffers(100), Exchange(0)
    buffers.hold(exchange, 1000)

    assert buffers.held_bytes == 1000
    with pytest.raises(errors.Overloaded):
        buffers.reserve(Exchange(0), 1)


@pytest.mark.anyio
async def test_pages_are_given_back_after_a_storm_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, when much less is held than before; a steady load never pays for it."""
    trims: list[int] = []
    monkeypatch.setattr(memory, "TRIM_SECONDS", 0.01)
    monkeypatch.setattr(memory, "_trim", lambda: trims.append(1))
    buffers = Buffers(1 << 40)

    async def passes(size_bytes: int, times: int) -> None:
        for _ in range(times):
            exchange = Exchange(0)
            buffers.hold(exchange, size_bytes)
            await asyncio.sleep(0.005)
            buffers.release(exchange)

    trimmer = asyncio.create_task(buffers.trim_when_quiet())
    await passes(1 << 30, 50)
    assert trims == []
    await passes(1 << 20, 20)
    assert trims == [1]
    await passes(1 << 20, 20)
    trimmer.cancel()

    assert trims == [1]
