"""A Google for tests of what is paid: it counts."""

import asyncio
import collections
import random
import threading

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from standin import faults
from standin.server import answer
from standin.serving import Listener
from tests.pictures import encoded, png

LATENCIES_SECONDS = (0.05, 0.2, 0.6)


class Google:
    """Counts, by prompt, the calls that arrived, and answers after a while; in a thread of its own.

    Attributes:
        calls: that arrived.
        left: whose caller left before they were answered.
        latency_seconds: of every answer; 0 for one of `LATENCIES_SECONDS`.

    """

    def __init__(self, seed: int = 0) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        self.left: collections.Counter[str] = collections.Counter()
        self.latency_seconds = 0.0
        self.base_url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._random = random.Random(seed)
        self._thread.start()
        self._ready.wait(20)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._loop.run_forever()
        self._loop.run_until_complete(self._listener.stop())

    async def _start(self) -> None:
        self._listener = Listener(Starlette(routes=[Route("/v1beta/models/{model}", self._answer, methods=["POST"])]))
        await self._listener.start()
        self.base_url = f"http://127.0.0.1:{self._listener.port}/v1beta"
        self._ready.set()

    async def _answer(self, request: Request) -> Response:
        parts = [part for content in (await request.json())["contents"] for part in content["parts"]]
        prompt = next(part["text"] for part in reversed(parts) if "text" in part)
        self.calls[prompt] += 1
        try:
            await asyncio.sleep(self.latency_seconds or self._random.choice(LATENCIES_SECONDS))
        except asyncio.CancelledError:
            self.left[prompt] += 1
            raise
        return faults.answered(answer("m", encoded(png()), "image/png"))
