"""One request while it is served: who sent it, by when it must end, what became of it.

One `Exchange` is made for each request and handed down to everything that works for it. The status, the counts and the
metrics are read from its attributes; the log line is written from them, and decides nothing.
"""

import enum
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

# The status, in the log only, of a request whose caller left before the response was complete.
CALLER_LEFT = 499


class Progress(enum.Enum):
    """How far the response is."""

    NOT_STARTED = enum.auto()
    STARTED = enum.auto()
    COMPLETE = enum.auto()


async def _nothing() -> None:
    """Do nothing before a call is sent."""


@dataclass(slots=True)
class Exchange:
    """One request and its response.

    Attributes:
        deadline: when the request must have ended, in seconds of the event loop's clock; it covers waiting, retries
            and every call.
        request_id: by which the request is found in the log; the caller's own, where it sent one.
        trace_id: of the W3C `traceparent` header.
        started_at: when the request came, in seconds of `time.perf_counter`.
        method, path: of the request line.
        bytes_in, bytes_out: length of the bodies, as far as they came and went.
        held_bytes: of bodies and of Google's responses, that are in memory for this request.
        response_status: the HTTP status that was sent, None before the response starts.
        response_headers: headers that the response carries whatever it is.
        progress: how far the response is.
        caller_left: whether the caller left before the response was complete.
        dialect: the API format, where the route has one.
        caller: the name of the access token, or the address.
        caller_label: for metrics: the name of the access token; addresses are not told apart there.
        user: the end user that the caller names.
        model: the model's name as it is sent to Google.
        prompt: only where prompts are to be logged.
        images_requested, images_returned: how many images were requested, and how many the response holds.
        attempts, upstream_seconds, tokens: of all calls to Google: how many, how long together, and Google's count.
        error_code: of the error that was sent.
        before_sending: awaited before the first byte of each call goes to Google; what it raises ends the call.
        idempotency_key: of the request, if any.
        admit_claim: counts the request against its rate limit, given whether it begins something; set with the key.
        kept_id: of what is kept of it, by which it is found in the ledger.
        replayed: whether the response is that of an earlier request with the same Idempotency-Key.

    """

    deadline: float
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    trace_id: str | None = None
    started_at: float = field(default_factory=time.perf_counter)
    method: str = ""
    path: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    held_bytes: int = 0
    response_status: int | None = None
    response_headers: dict[str, str] = field(default_factory=dict)
    progress: Progress = Progress.NOT_STARTED
    caller_left: bool = False
    dialect: str | None = None
    caller: str | None = None
    caller_label: str = "anonymous"
    user: str | None = None
    model: str | None = None
    prompt: str | None = None
    images_requested: int | None = None
    images_returned: int = 0
    attempts: int = 0
    upstream_seconds: float = 0
    tokens: int = 0
    error_code: str | None = None
    before_sending: Callable[[], Awaitable[None]] = _nothing
    idempotency_key: str | None = None
    admit_claim: Callable[[bool], Awaitable[None]] | None = None
    kept_id: str | None = None
    replayed: bool = False

    @property
    def status(self) -> int:
        """The status that the log has: the one that was sent, or 499 when the caller left before the end."""
        if self.caller_left or self.response_status is None:
            return CALLER_LEFT
        return self.response_status

    def count_attempt(self, seconds: float) -> None:
        """Add one call to Google that took `seconds`."""
        self.attempts += 1
        self.upstream_seconds += seconds

    def copy_counts(self, work: "Exchange", *, as_replay: bool) -> None:
        """Take over what `work` counted for this request; what another request paid for is not this one's."""
        self.model, self.user, self.prompt = work.model, work.user, work.prompt
        self.images_requested, self.images_returned = work.images_requested, work.images_returned
        if not as_replay:
            self.attempts, self.upstream_seconds, self.tokens = work.attempts, work.upstream_seconds, work.tokens

    def log_fields(self, seconds: float) -> dict[str, Any]:
        """Return the fields of the request's log line; `seconds` is how long it took. What is not known is left out."""
        fields: dict[str, Any] = {
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "duration_ms": round(seconds * 1000, 1),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "dialect": self.dialect,
            "caller": self.caller,
            "user": self.user,
            "model": self.model,
            "prompt": self.prompt,
            "images_asked": self.images_requested,
            "images_returned": None if self.images_requested is None else self.images_returned,
            "attempts": self.attempts or None,
            "upstream_ms": round(self.upstream_seconds * 1000, 1) if self.attempts else None,
            "tokens": self.tokens or None,
            "kept_id": self.kept_id,
            "replayed": self.replayed or None,
            "code": self.error_code,
        }
        return {name: value for name, value in fields.items() if value is not None}
