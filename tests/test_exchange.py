"""One request while it is served."""

from banana.exchange import CALLER_LEFT, Exchange


def test_what_is_not_known_is_not_logged() -> None:
    """A request that no route answered has no model, no caller and no count of images."""
    fields = Exchange(deadline=0, method="GET", path="/x").log_fields(0.0123)

    assert fields == {
        "method": "GET", "path": "/x", "status": 499, "duration_ms": 12.3, "bytes_in": 0, "bytes_out": 0,
    }  # fmt: skip


def test_the_fields_of_the_log_keep_their_names() -> None:
    """Operators search for these; an image that did not come is a count of 0."""
    exchange = Exchange(
        deadline=0, dialect="generate", caller="anna", user="u", model="m", prompt="p", images_requested=2,
        images_returned=0, tokens=5, error_code="blocked", response_status=422,
    )  # fmt: skip
    exchange.count_attempt(0.25)
    exchange.count_attempt(0.5)

    fields = exchange.log_fields(1)

    assert list(fields)[6:] == [
        "dialect", "caller", "user", "model", "prompt", "images_asked", "images_returned", "attempts", "upstream_ms",
        "tokens", "code",
    ]  # fmt: skip
    assert (fields["status"], fields["images_returned"], fields["attempts"], fields["upstream_ms"]) == (422, 0, 2, 750)


def test_a_caller_who_left_is_499_whatever_was_sent() -> None:
    """The status of a response that nobody read to its end is not that response's."""
    exchange = Exchange(deadline=0, response_status=200)
    assert exchange.status == 200
    exchange.caller_left = True
    assert exchange.status == CALLER_LEFT


def test_every_request_has_an_id_of_its_own() -> None:
    """Two requests are never one in the log."""
    assert Exchange(deadline=0).request_id != Exchange(deadline=0).request_id
