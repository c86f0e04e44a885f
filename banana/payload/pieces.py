"""A body in pieces: bytes in the chunks they came in, never joined but for small ones on their way out."""

from collections.abc import Iterator, Sequence

# As it came from the network; what has it may read it, and nobody writes to it any more.
Chunk = bytes | bytearray
Bytes = Chunk | memoryview
Pieces = Sequence[Bytes]
# Below it a copy is cheaper than a step more.
SMALL_BYTES = 4096
JOINED_BYTES = 64 * 1024


def size_of(pieces: Pieces) -> int:
    """Return the length of all pieces together, in bytes."""
    return sum(map(len, pieces))


def joined(pieces: Pieces) -> Iterator[Bytes]:
    """Yield `pieces`, small neighbours as one: each that is sent by itself costs more than its copy.

    What is copied at once is bounded, also when a whole picture came in small pieces.
    """
    small: list[Bytes] = []
    small_bytes = 0
    for piece in pieces:
        if len(piece) < SMALL_BYTES and small_bytes < JOINED_BYTES:
            small.append(piece)
            small_bytes += len(piece)
            continue
        small_bytes = 0
        if small:
            yield b"".join(small)
            small.clear()
        yield piece
    if small:
        yield b"".join(small)


def head(pieces: Pieces, size_bytes: int) -> bytes:
    """Return the first bytes of `pieces`, at most `size_bytes`."""
    taken = bytearray()
    for piece in pieces:
        taken += piece[: size_bytes - len(taken)]
        if len(taken) == size_bytes:
            break
    return bytes(taken)


def without_head(pieces: Pieces, size_bytes: int) -> list[Bytes]:
    """Return `pieces` without their first `size_bytes`; the rest stays where it lies."""
    rest: list[Bytes] = []
    for piece in pieces:
        rest.append(memoryview(piece)[size_bytes:])
        size_bytes = max(0, size_bytes - len(piece))
    return rest
