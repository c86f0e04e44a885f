"""Networks that tests make up: what httpx' requests and responses are to the client's own."""

import httpx

from banana.google.connection import Sink
from banana.google.transport import Request

BASE_URL = "http://google.test/v1beta"


class HttpxTransport:
    """A network whose one method takes and returns what httpx has."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise NotImplementedError

    async def send(self, request: Request) -> "HttpxResponse":
        request.before_send()
        url, content = f"{BASE_URL}/{request.path}", b"".join(request.body)
        headers = list(request.headers)
        return HttpxResponse(
            await self.handle_async_request(httpx.Request(request.method, url, headers=headers, content=content))
        )

    async def close(self) -> None:
        pass


class HttpxResponse:
    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code

    def header(self, name: bytes) -> bytes:
        return str(self._response.headers.get(name.decode(), "")).encode()

    async def read(self, sink: Sink, *, as_it_comes: bool = False, deadline: float | None = None) -> None:
        async for chunk in self._response.aiter_bytes():
            sink(chunk)

    def close(self) -> None:
        pass
