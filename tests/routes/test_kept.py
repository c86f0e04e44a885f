"""How a request asks that its result be kept."""

import pytest
from starlette.datastructures import Headers

from banana import errors
from banana.routes.kept import Preference, key_of, key_refused, preference_of


def headers(name: str, *values: str) -> Headers:
    return Headers(raw=[(name.lower().encode(), value.encode("latin-1")) for value in values])


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ([], None),
        (["order-1"], "order-1"),
        (['"order-1"'], "order-1"),
        ([" x "], "x"),
        (['"'], '"'),
        (["same", "same"], "same"),
        (["x" * 255], "x" * 255),
        (["!~"], "!~"),
    ],
)
def test_a_key_is_read(values: list[str], key: str | None) -> None:
    """With quotes around it, as the standard writes it, or without."""
    assert key_of(headers("Idempotency-Key", *values)) == key


@pytest.mark.parametrize("values", [[""], ['""'], ["a b"], ["é"], ["x" * 256], ["one", "other"], ["a\x00"]])
def test_what_is_no_key_is_refused(values: list[str]) -> None:
    """By the header's name."""
    with pytest.raises(errors.InvalidRequest, match="Idempotency-Key"):
        key_of(headers("Idempotency-Key", *values))


@pytest.mark.parametrize(
    ("values", "preference"),
    [
        ([], Preference()),
        (["respond-async"], Preference(True)),
        (["Respond-Async, wait=10"], Preference(True, 10)),
        (["wait=10", "respond-async;x=1"], Preference(True, 10)),
        (["respond-async, wait=3600"], Preference(True, 60)),
        (['respond-async,wait = "7"'], Preference(True, 7)),
        (["respond-async, wait=-1, wait=x"], Preference(True)),
        (["return=minimal, handling=lenient"], Preference()),
        (["x-respond-async"], Preference()),
    ],
)
def test_preferences_are_read(values: list[str], preference: Preference) -> None:
    """What is not known, or makes no sense, is ignored."""
    assert preference_of(headers("Prefer", *values)) == preference


def test_the_refusal_names_where_a_key_is_taken() -> None:
    """So that the caller knows where to go."""
    assert "/generate" in key_refused().message
