"""The keys, and the way to Google, as they are checked at the start."""

import socket

import pytest

from banana.google.key_check import problems_with
from standin.server import StandIn
from tests.conftest import KEY

pytestmark = pytest.mark.anyio


async def test_keys_that_google_takes_are_no_problem(stand_in: StandIn) -> None:
    """Nothing is said, and nothing is made."""
    assert await problems_with(stand_in.base_url, None, [KEY, "another"]) == []
    assert stand_in.calls == []


async def test_a_key_that_google_refuses_is_told_in_its_words(stand_in: StandIn) -> None:
    """By its number where there are several, with what to do; never the key itself."""
    stand_in.bad_keys.add("wrong-key-of-mine")

    (alone,) = await problems_with(stand_in.base_url, None, ["wrong-key-of-mine"])
    (second,) = await problems_with(stand_in.base_url, None, [KEY, "wrong-key-of-mine"])

    assert alone.startswith("GEMINI_API_KEY: Google refused this service's API key: API key not valid.")
    assert second.startswith("GEMINI_API_KEY number 2: ")
    assert "edit GEMINI_API_KEY in .env, then ./restart.sh" in alone
    assert "wrong-key-of-mine" not in alone + second


@pytest.mark.parametrize("through_proxy", [False, True])
async def test_what_stands_in_the_way_is_named(through_proxy: bool) -> None:
    """Google's host, or the proxy by its setting; once, however many keys there are."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    base_url = "http://google.example/v1beta" if through_proxy else address

    (problem,) = await problems_with(base_url, address if through_proxy else None, ["a", "b"])

    assert "refuses the connection" in problem
    assert ("UPSTREAM_PROXY" in problem) == through_proxy


async def test_a_name_that_cannot_be_resolved_is_told_in_words() -> None:
    """No class of an exception."""
    (problem,) = await problems_with("http://nowhere.invalid/v1beta", None, ["a"])

    assert "nowhere.invalid cannot be resolved" in problem
    assert "gaierror" not in problem
