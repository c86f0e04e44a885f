"""Bodies in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from banana.payload.pieces import head, size_of, without_head

pieces = st.lists(st.binary(max_size=8), max_size=6)


@given(pieces, st.integers(0, 40))
def test_cutting_pieces_is_cutting_what_they_are_together(given: list[bytes], size: int) -> None:
    """Head, rest and size are those of the joined bytes, wherever the borders lie."""
    joined = b"".join(given)

    assert size_of(given) == len(joined)
    assert head(given, size) == joined[:size]
    assert b"".join(without_head(given, size)) == joined[size:]


def test_the_rest_is_not_copied() -> None:
    """What is left of a piece is a view into it."""
    piece = bytearray(b"abcdef")
    (rest,) = without_head([memoryview(piece)], 2)
    piece[2] = ord("X")

    assert bytes(rest) == b"Xdef"
