"""How a request asks that its result be kept: an Idempotency-Key, and `Prefer: respond-async` for a task.

Sources: draft-ietf-httpapi-idempotency-key-header, and RFC 7240 for `Prefer`.
"""

import re
from typing import NamedTuple

from starlette.datastructures import Headers

from banana import errors

KEY_HEADER = "Idempotency-Key"
_KEY = re.compile(r"[!-~]{1,255}")
_WAIT = re.compile(r"wait\s*=\s*\"?([0-9]{1,9})\"?")
# Longer than a caller may wait for anything.
MAX_WAIT_SECONDS = 60


class Preference(NamedTuple):
    """What `Prefer` says: whether to answer with a task, and how long to wait for it to end before that, in seconds."""

    respond_async: bool = False
    wait_seconds: int = 0


def key_of(headers: Headers) -> str | None:
    """Return the Idempotency-Key; None where there is none. Raises InvalidRequest."""
    given = set(headers.getlist(KEY_HEADER))
    if not given:
        return None
    key = given.pop().strip()
    if len(key) > 1 and key.startswith('"') and key.endswith('"'):  # a string of RFC 8941
        key = key[1:-1]
    if given:
        raise errors.InvalidRequest.of_fields([(KEY_HEADER, "is sent twice with different values")])
    if not _KEY.fullmatch(key):
        raise errors.InvalidRequest.of_fields([(KEY_HEADER, "must be 1 to 255 visible ASCII characters")])
    return key


def preference_of(headers: Headers) -> Preference:
    """Return what `Prefer` says; what it says beside that is ignored, as it may be."""
    words = [word.strip().lower() for value in headers.getlist("prefer") for word in value.split(",")]
    waits = [match for word in words if (match := _WAIT.fullmatch(word))]
    respond_async = any(word.partition(";")[0].strip() == "respond-async" for word in words)
    return Preference(respond_async, min(int(waits[0][1]), MAX_WAIT_SECONDS) if waits else 0)


def key_refused() -> errors.InvalidRequest:
    """Return the error for a key where none is taken."""
    problem = "is not supported by this route; it is supported by /generate, /v1/images/*, /v1/chat/completions, /v1/responses and :generateContent"
    return errors.InvalidRequest.of_fields([(KEY_HEADER, problem)])
