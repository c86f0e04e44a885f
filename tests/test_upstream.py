"""The calls to Google: repeats, keys, room, and what becomes of a call whose caller has gone."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import respx

from banana import errors, gemini
from banana.upstream import Upstream
from standin import faults
from standin.server import StandIn

pytestmark = pytest.mark.anyio
REQUEST = gemini.ImageRequest("a banana")
MODEL = "gemini-3-pro-image"


@asynccontextmanager
async def upstream_of(stand_in: StandIn, **values: Any) -> AsyncIterator[Upstream]:
    given: dict[str, Any] = {"keys": ["key-a"], "backoff_seconds": 0, "base_url": stand_in.base_url}
    upstream = Upstream(**given | values)
    yield upstream
    await upstream.close()


def deadline(seconds: float = 5) -> float:
    return asyncio.get_running_loop().time() + seconds


async def one(upstream: Upstream, seconds: float = 5) -> gemini.Image | errors.BananaError:
    (outcome,) = await upstream.images(MODEL, REQUEST, 1, deadline(seconds), {})
    return outcome


async def test_an_overload_is_repeated_until_it_is_over(stand_in: StandIn) -> None:
    """503 twice, then an image: three calls, one image."""
    stand_in.plan.extend(["503", "503"])
    async with upstream_of(stand_in) as upstream:
        assert isinstance(await one(upstream), gemini.Image)

    assert len(stand_in.calls) == 3


async def test_the_pause_doubles_and_never_passes_the_deadline(stand_in: StandIn) -> None:
    """With a pause of 0.2 s two repeats take between 0.3 and 0.6 s; a pause beyond the deadline is not begun."""
    stand_in.plan.extend(["503"] * 6)
    async with upstream_of(stand_in, backoff_seconds=0.2) as upstream:
        started = time.monotonic()
        await one(upstream)
        taken = time.monotonic() - started
        hurried = await one(upstream, seconds=0.05)

    assert 0.3 <= taken < 0.8
    assert isinstance(hurried, errors.UpstreamOverloaded)
    assert len(stand_in.calls) == 4


async def test_a_short_quota_delay_is_waited_for(stand_in: StandIn) -> None:
    """429 with a RetryInfo that fits the deadline is repeated after it."""
    stand_in.plan.append("429-short")
    async with upstream_of(stand_in) as upstream:
        started = time.monotonic()
        assert isinstance(await one(upstream), gemini.Image)

    assert time.monotonic() - started >= 0.2
    assert len(stand_in.calls) == 2


async def test_a_delay_beyond_the_deadline_is_told_and_later_calls_are_not_sent(stand_in: StandIn) -> None:
    """A long rest is the caller's to wait for; while the only key rests, nobody asks Google."""
    stand_in.plan.append(faults.quota("45.83s"))
    async with upstream_of(stand_in) as upstream:
        first, second = await one(upstream), await one(upstream)

    assert isinstance(first, errors.UpstreamQuota)
    assert first.headers["Retry-After"] == "46"
    assert isinstance(second, errors.UpstreamQuota)
    assert second.headers["Retry-After"] == "46"
    assert len(stand_in.calls) == 1


async def test_one_bad_key_among_three_costs_no_request(stand_in: StandIn) -> None:
    """A refused key is set aside: nine requests, nine images, one wasted call."""
    stand_in.bad_keys = {"key-b"}
    async with upstream_of(stand_in, keys=["key-a", "key-b", "key-c"]) as upstream:
        outcomes = [await one(upstream) for _ in range(9)]

    assert all(isinstance(outcome, gemini.Image) for outcome in outcomes)
    assert [call.key for call in stand_in.calls].count("key-b") == 1


async def test_a_key_at_its_quota_hands_over_to_the_next(stand_in: StandIn) -> None:
    """429 on one key: the request goes on with the other at once."""
    stand_in.plan.append("429-long")
    async with upstream_of(stand_in, keys=["key-a", "key-b"]) as upstream:
        assert isinstance(await one(upstream), gemini.Image)
        assert isinstance(await one(upstream), gemini.Image)

    assert [call.key for call in stand_in.calls] == ["key-a", "key-b", "key-b"]


async def test_a_mended_key_serves_again(stand_in: StandIn) -> None:
    """The only key, refused once, is asked again: a refusal costs nothing."""
    stand_in.plan.append("401")
    async with upstream_of(stand_in) as upstream:
        assert isinstance(await one(upstream), errors.RejectedKey)
        assert not upstream.keys.usable()
        assert isinstance(await one(upstream), gemini.Image)
        assert upstream.keys.usable()


async def test_googles_words_never_hold_a_key(stand_in: StandIn) -> None:
    """Google quotes keys in its messages; callers see a digest."""
    stand_in.plan.append(faults.fails(400, "INVALID_ARGUMENT", "Consumer 'api_key:key-a' is odd."))
    async with upstream_of(stand_in) as upstream:
        failure = await one(upstream)

    assert isinstance(failure, errors.InvalidRequest)
    assert "key-a" not in failure.message


async def test_a_refused_connection_is_tried_again_and_told(stand_in: StandIn) -> None:
    """Nobody listens: nothing was sent, so it is repeated; in the end it is a 502 that says so."""
    await stand_in.stop()
    async with upstream_of(stand_in) as upstream:
        failure = await one(upstream)

    assert isinstance(failure, errors.NotConnected)
    assert "nothing was sent" in failure.message


@pytest.mark.parametrize(
    ("error", "calls"), [(httpx.ConnectError, 3), (httpx.ConnectTimeout, 3), (httpx.ReadTimeout, 1)]
)
@respx.mock(using="httpx")
async def test_only_what_was_not_sent_is_repeated(
    respx_mock: respx.MockRouter, stand_in: StandIn, error: type[httpx.HTTPError], calls: int
) -> None:
    """A connection that failed is repeated, a silence after the request never."""
    route = respx_mock.post(url__regex=".*generateContent").mock(side_effect=error)
    async with upstream_of(stand_in) as upstream:
        failure = await one(upstream)

    assert isinstance(failure, errors.UpstreamError)
    assert route.call_count == calls


async def test_no_room_is_told_at_once(stand_in: StandIn) -> None:
    """Beyond the slots and the line a call is refused at once; those in line are served."""
    stand_in.latency_seconds = 0.3
    async with upstream_of(stand_in, max_connections=2, max_waiting=2) as upstream:
        outcomes = await upstream.images(MODEL, REQUEST, 6, deadline(), {})

    assert [type(outcome).__name__ for outcome in outcomes] == ["Image"] * 4 + ["Overloaded"] * 2
    assert len(stand_in.calls) == 4


async def test_a_cancelled_call_is_closed_and_its_slot_is_free(stand_in: StandIn) -> None:
    """Cancelled while Google thinks, inside the answer, or in line: the connection closes, the slots come back."""
    stand_in.plan.extend(["hang", "hang-inside"])
    async with upstream_of(stand_in, max_connections=2) as upstream:
        work = asyncio.create_task(upstream.images(MODEL, REQUEST, 3, deadline(), {}))
        while len(stand_in.calls) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        work.cancel()
        started = time.monotonic()
        while not all(call.aborted for call in stand_in.calls):
            await asyncio.sleep(0.01)
            assert time.monotonic() - started < 0.5
        outcomes = await upstream.images(MODEL, REQUEST, 2, deadline(), {})

    assert all(isinstance(outcome, gemini.Image) for outcome in outcomes)
    assert upstream.slots.waiting == 0


async def test_connections_are_used_again(stand_in: StandIn) -> None:
    """Ten calls one after the other make one connection."""
    opened = 0
    handler = stand_in._runner.server  # type: ignore[union-attr]
    assert handler is not None
    async with upstream_of(stand_in) as upstream:
        for _ in range(10):
            await one(upstream)
            opened = max(opened, len(handler.connections))

    assert opened == 1
