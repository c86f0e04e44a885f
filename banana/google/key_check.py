"""Whether Google takes the API keys, asked once at the start: a list of models, which is free, with each key."""

import asyncio
from collections.abc import Sequence

import httpx

from banana import errors
from banana.google.keys import Key, KeyRing
from banana.google.upstream import Upstream, open_client, read
from banana.google.wire import error_of
from banana.payload.pieces import Chunk

CHECK_SECONDS = 10
_MAX_BODY_BYTES = 1 << 20


async def problems_with(base_url: str, proxy: str | None, keys: Sequence[str]) -> list[str]:
    """Return what is wrong with each key, or with the way to Google, in words for the operator; nothing where all is well."""
    google, ring = Upstream(open_client(httpx.Limits(), proxy), base_url), KeyRing(keys)
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            found = await asyncio.gather(*(_problem_with(google, key, ring) for key in ring.keys))
    except TimeoutError:
        return [f"Google did not answer within {CHECK_SECONDS} s. Requests will fail as long as that is so."]
    finally:
        await google.aclose()
    return list(dict.fromkeys(problem for problem in found if problem))


async def _problem_with(google: Upstream, key: Key, ring: KeyRing) -> str | None:
    body = bytearray()

    def take(chunk: Chunk) -> None:
        body.extend(chunk[: _MAX_BODY_BYTES - len(body)])

    headers = ((b"x-goog-api-key", key.secret.encode()), (b"Accept-Encoding", b"identity"))
    try:
        response = await google.send("GET", "models?pageSize=1", headers)
        await read(response, take)
    except errors.BananaError as failure:
        return failure.message
    if response.status_code == 200:
        return None
    error = error_of(response.status_code, ring.redact(body.decode("utf-8", "replace")).encode())
    if not isinstance(error, errors.RejectedKey):  # whatever it is, it says nothing about the key
        return None
    which = f" number {ring.keys.index(key) + 1}" if len(ring.keys) > 1 else ""
    return f"GEMINI_API_KEY{which}: {error.message}"
