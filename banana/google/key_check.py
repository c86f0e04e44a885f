"""Whether Google takes the API keys, asked once at the start: a list of models, which is free, with each key."""

import asyncio
from collections.abc import Sequence

from banana import errors
from banana.google.keys import Key, KeyRing
from banana.google.transport import HttpTransport, Request
from banana.google.wire import error_of
from banana.payload.pieces import Chunk

CHECK_SECONDS = 10
_MAX_BODY_BYTES = 1 << 20


async def problems_with(base_url: str, proxy: str | None, keys: Sequence[str]) -> list[str]:
    """Return what is wrong with each key, or with the way to Google, in words for the operator; nothing where all is well."""
    transport, ring = HttpTransport(base_url, proxy), KeyRing(keys)
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            found = await asyncio.gather(*(_problem_with(transport, key, ring) for key in ring.keys))
    except TimeoutError:
        return [f"Google did not answer within {CHECK_SECONDS} s. Requests will fail as long as that is so."]
    finally:
        await transport.close()
    return list(dict.fromkeys(problem for problem in found if problem))


async def _problem_with(transport: HttpTransport, key: Key, ring: KeyRing) -> str | None:
    body = bytearray()

    def take(chunk: Chunk) -> None:
        body.extend(chunk[: _MAX_BODY_BYTES - len(body)])

    try:
        response = await transport.send(
            Request("GET", "models?pageSize=1", (("x-goog-api-key", key.secret), ("Accept-Encoding", "identity")))
        )
        await response.read(take)
    except errors.BananaError as failure:
        return failure.message
    if response.status == 200:
        return None
    error = error_of(response.status, ring.redact(body.decode("utf-8", "replace")).encode())
    if not isinstance(error, errors.RejectedKey):  # whatever it is, it says nothing about the key
        return None
    which = f" number {ring.keys.index(key) + 1}" if len(ring.keys) > 1 else ""
    return f"GEMINI_API_KEY{which}: {error.message}"
