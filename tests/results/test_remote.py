"""Where no host is allowed, no image of another host is downloaded."""

import pytest

from banana.results.remote import NoRemoteImages, Refused

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("address", "host"), [("https://user:pw@images.example:8/a.png", "images.example"), ("http://[::1", "this host")]
)
async def test_the_setting_and_the_host_are_named(address: str, host: str) -> None:
    """What the caller, and the operator, need to know; never a password."""
    remote = NoRemoteImages()

    with pytest.raises(Refused) as caught:
        await remote.image(address, 0, lambda _: None)
    await remote.close()

    assert str(caught.value) == f"is not downloaded: IMAGE_URL_HOSTS does not allow {host}"
