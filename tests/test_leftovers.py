"""What a request leaves behind: nothing that holds its body, whatever became of it."""

import base64
import gc
import os
from collections.abc import Iterator

import httpx
import pytest

from banana.app import create_app
from banana.exchange import Exchange
from banana.google.upstream import Body
from banana.payload.pictures import EncodedPicture
from banana.server.cycle import Cycle
from standin.server import StandIn
from tests.conftest import served, settings_for

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + os.urandom(3000)).decode()


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """What only the garbage collector would free, which does not run meanwhile."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}], ids=["plain", "keyed"])
@pytest.mark.parametrize("fault", [None, "400", "503", "reset", "image-safety", "not-json", "429-day"])
async def test_a_request_leaves_no_circle_that_holds_its_body(
    stand_in: StandIn, garbage: list[object], fault: str | None, headers: dict[str, str]
) -> None:
    """An error holds the frames it was raised in, and they the error: 20 MB each, until the collector comes by."""
    if fault:
        stand_in.plan.append(fault)
    app = create_app(settings_for(stand_in, retries=0))
    body = {"prompt": "x", "image_base64": PICTURE}
    async with served(app) as address, httpx.AsyncClient() as client:
        response = await client.post(f"{address}/generate", json=body, headers=headers)
        again = await client.get(f"{address}/health")
        await client.aclose()  # the connection holds the last request
        gc.collect()
        left = [type(one).__name__ for one in garbage if isinstance(one, Cycle | Exchange | EncodedPicture | Body)]

    assert (response.status_code == 200) == (fault is None)
    assert again.status_code == 200
    assert left == []
