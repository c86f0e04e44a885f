"""The money rules: when a call is repeated, and when never. The clock is handed in, and takes no time."""

import asyncio
import contextlib

import pytest

from banana import errors
from banana.google.retries import RetryPolicy

pytestmark = pytest.mark.anyio


class Pauses(list[float]):
    """A clock that only writes down how long a pause would be."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


async def pauses_of(*failures: errors.BananaError, retries: int = 5, seconds: float = 1000) -> list[float]:
    """The pauses that were made until a failure was raised, or all were repeated."""
    pauses = Pauses()
    retry = RetryPolicy(retries, 1, pauses).begin(asyncio.get_running_loop().time() + seconds)
    with contextlib.suppress(errors.BananaError):
        for failure in failures:
            await retry.pause_after(failure)
    return pauses


NEVER = [
    errors.UpstreamError("reset after the request was sent"),
    errors.InvalidResponse("cut short"),
    errors.NoImage("a 200 without an image", reason="STOP"),
    errors.Blocked("policy"),
    errors.InvalidRequest("400"),
    errors.ModelNotFound("404"),
    errors.RejectedKey("401"),
    errors.DeadlineExceeded("read time-out"),
    errors.Internal(),
    errors.UpstreamQuota("per day", retry_after_seconds=1, per_day=True),
    errors.UpstreamQuota("no delay named"),
    errors.Overloaded("our own"),
]


@pytest.mark.parametrize("failure", NEVER, ids=lambda failure: failure.message)
async def test_what_google_may_have_billed_or_cannot_change_is_never_repeated(failure: errors.BananaError) -> None:
    """None of these is followed by another call."""
    assert await pauses_of(failure) == []


async def test_the_pause_doubles_with_jitter() -> None:
    """Each pause is between half of and the whole backoff, which doubles."""
    pauses = await pauses_of(*[errors.NotConnected("refused")] * 4)

    assert len(pauses) == 4
    for pause, most in zip(pauses, (1, 2, 4, 8), strict=True):
        assert most / 2 <= pause <= most


async def test_at_most_so_many_retries() -> None:
    """The third failure is raised when two retries are allowed."""
    assert len(await pauses_of(*[errors.UpstreamOverloaded("503")] * 3, retries=2)) == 2


async def test_googles_own_delay_is_waited_for_when_it_fits_the_deadline() -> None:
    """429 with RetryInfo, and 503 with one, wait as long as Google asks; beyond the deadline nothing is begun."""
    quota = errors.UpstreamQuota("per minute", retry_after_seconds=7.0)
    (after_quota,) = await pauses_of(quota)
    (after_overload,) = await pauses_of(errors.UpstreamOverloaded("503", delay_seconds=9))

    assert 7 < after_quota < 7.3
    assert after_overload == 9
    assert await pauses_of(quota, seconds=6) == []


async def test_googles_own_faults_are_repeated_once() -> None:
    """500, 502 and 504 get one more try, whatever came between."""
    fault, overload = errors.UpstreamFault("500"), errors.UpstreamOverloaded("503")

    assert len(await pauses_of(fault, overload, fault)) == 2
