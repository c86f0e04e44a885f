"""The tree of errors."""

import weakref
from collections.abc import Iterator

import pytest

from banana import errors


def kinds(kind: type[errors.BananaError] = errors.BananaError) -> Iterator[type[errors.BananaError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from kinds(child)


def test_the_drawing_shows_every_error() -> None:
    """The tree in the module's docstring has each class with its status and code."""
    assert errors.__doc__
    for kind in kinds():
        if kind is not errors.BananaError:
            (line,) = [line for line in errors.__doc__.splitlines() if f" {kind.__name__} " in f"{line} "]
            assert kind is errors.MethodNotAllowed or f"{kind.status} {kind.code}" in line


def test_several_fields_are_named_at_once() -> None:
    """Each wrong field is in the message and in `fields`."""
    error = errors.InvalidRequest.of_fields([("prompt", "is blank"), ("colour", "is unknown")])

    assert error.message == "prompt: is blank; colour: is unknown"
    assert error.extra["fields"] == [
        {"field": "prompt", "message": "is blank"},
        {"field": "colour", "message": "is unknown"},
    ]


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (45.83, "46")])
def test_retry_after_is_in_whole_seconds_and_never_zero(seconds: float, header: str) -> None:
    """Whoever waits that long does not come too early."""
    error = errors.RateLimited("Too many.", retry_after_seconds=seconds)

    assert error.headers["Retry-After"] == header
    assert error.extra["retry_after"] == int(header)


def test_errors_that_nobody_refers_to_are_not_held() -> None:
    """A loop that tries again for hours within one request leaves nothing; what is referred to loses its frames."""
    kept = errors.InvalidRequest("kept")
    made: list[weakref.ref[BaseException]] = []
    with errors.released():
        for _ in range(100):
            try:
                raise errors.Internal()
            except errors.Internal as error:
                made.append(weakref.ref(error))
        try:
            try:
                raise ValueError("within")
            except ValueError as cause:
                raise errors.InvalidRequest("x") from cause
        except errors.InvalidRequest as error:
            kept = error
        held = sum(reference() is not None for reference in made)

    assert held == 0
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)
