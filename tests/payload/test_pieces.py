"""Bodies in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from banana.payload.pieces import SMALL_BYTES, head, joined, size_of, without_head

pieces = st.lists(st.binary(max_size=8), max_size=6)


@given(pieces, st.integers(0, 40))
def test_cutting_pieces_is_cutting_what_they_are_together(given: list[bytes], size: int) -> None:
    """Head, rest and size are those of the joined bytes, wherever the borders lie."""
    together = b"".join(given)

    assert size_of(given) == len(together)
    assert head(given, size) == together[:size]
    assert b"".join(without_head(given, size)) == together[size:]


def test_the_rest_is_not_copied() -> None:
    """What is left of a piece is a view into it."""
    piece = bytearray(b"abcdef")
    (rest,) = without_head([memoryview(piece)], 2)
    piece[2] = ord("X")

    assert bytes(rest) == b"Xdef"


def test_small_neighbours_are_one_and_large_pieces_stay_as_they_are() -> None:
    """What is copied is small; the order is kept."""
    large = memoryview(bytes(SMALL_BYTES))

    assert list(joined([b"a", b"", b"b", large, large, b"c", memoryview(b"d")])) == [b"ab", large, large, b"cd"]
    assert next(piece for piece in joined([large])) is large
    assert list(joined([])) == []
