"""Pages that held pictures are used again."""

import ctypes

import pytest

from banana.payload import memory


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
