"""What a worker holds has a bound."""

import pytest

from banana import errors
from banana.exchange import Exchange
from banana.payload.memory import Buffers


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
