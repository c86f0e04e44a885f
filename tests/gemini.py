"""The Gemini API of unit tests: a router of respx behind httpx's own mock transport. Where the wire counts: the stand-in."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import httpx
import respx

from standin.server import answer
from tests.pictures import encoded, png

BASE_URL = "http://google.test/v1beta"
Answer = httpx.Response | Exception | bytes
SideEffect = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Awaitable[httpx.Response]]


def answered(image: bytes | None = None) -> httpx.Response:
    """Google's answer with an image."""
    return httpx.Response(200, json=answer("m", encoded(png() if image is None else image)))


class Gemini(respx.Router):
    """Answers every POST with `answers` in turn, then with images; or as `side_effect` does. Bytes are an image."""

    def __init__(self, *answers: Answer, side_effect: SideEffect | None = None) -> None:
        super().__init__(assert_all_called=False)
        planned = deque(answers)

        async def in_turn(_: httpx.Request) -> httpx.Response:
            await asyncio.sleep(0)  # as over a network: calls that begin together are all sent
            return _given(planned.popleft() if planned else png())

        self.post().mock(side_effect=side_effect or in_turn)

    @property
    def transport(self) -> httpx.MockTransport:
        """The network of a client that sends to this."""
        return httpx.MockTransport(self.async_handler)

    @property
    def requests(self) -> list[httpx.Request]:
        """Everything that was sent, in order."""
        return [call.request for call in self.calls]


def _given(planned: Answer) -> httpx.Response:
    if isinstance(planned, Exception):
        raise planned
    return answered(planned) if isinstance(planned, bytes) else planned
