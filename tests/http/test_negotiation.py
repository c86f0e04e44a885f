"""Which media type a caller prefers."""

import pytest

from banana.http.negotiation import preferred_media_type


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        ("", ""),
        ("*/*", "*/*"),
        ("image/*", "image/*"),
        ("IMAGE/PNG", "image/png"),
        ("application/json, image/*", "application/json"),
        ("application/json;q=0.5, image/*", "image/*"),
        ("image/*;q=0", ""),
        ("image/*;q=x", ""),
        ("text/event-stream;charset=utf-8;q=0.9, application/json;q=0.8", "text/event-stream"),
    ],
)
def test_the_highest_quality_wins_and_the_first_of_equals(accept: str, preferred: str) -> None:
    """RFC 9110's qualities are heeded; what is refused is not preferred."""
    assert preferred_media_type(accept) == preferred
