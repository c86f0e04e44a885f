"""One request while it is served: who sent it, by when it must end, what became of it.

One `Exchange` is made for each request and handed down to everything that works for it. The status, the counts and the
metrics are read from its attributes; the log line is written from them, and decides nothing.
"""

import enum
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from msgspec import Struct, field

from banana.money import rounded

# In metrics, all callers without a name.
ANONYMOUS = "anonymous"
# The status, in the log only, of a request whose caller left before the response was complete.
CALLER_LEFT = 499


# An image takes Google 10 s or more. Google refuses X-Server-Timeout below it.
LEAST_SECONDS = 10


class Progress(enum.Enum):
    """How far the response is."""

    NOT_STARTED = enum.auto()
    STARTED = enum.auto()
    COMPLETE = enum.auto()


async def nothing_before_sending() -> None:
    """Do nothing before a call is sent."""


def unknown_limit() -> Decimal | None:
    """Return None: nobody knows what a call may cost."""
    return None


def send_by_of(deadline: float, total_seconds: float) -> float:
    """Return when a billed call must have been sent that is to end by `deadline`, of a work that had `total_seconds`.

    Google works on, and bills, when a call that was sent too late is given up.
    """
    return deadline - min(LEAST_SECONDS, total_seconds / 2)


class Exchange(Struct):
    """One request and its response.

    Attributes:
        deadline: when the request must have ended, in seconds of the event loop's clock; it covers waiting, retries
            and every call.
        send_by: after this nothing that is billed is sent any more, in seconds of the same clock.
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
        answered_model: the model that answered, as Google says; empty before it has.
        prompt: only where prompts are to be logged.
        images_requested, images_returned: how many images were requested, and how many the response holds.
        attempts, upstream_seconds, tokens: of all calls to Google: how many, how long together, and Google's count.
        open_calls: calls to Google that have begun and not ended.
        call_limit: returns what one of its calls may cost at the most, in USD; None where that is not known.
        cost_usd: what its calls cost, as far as that is known; None where nothing is.
        no_image_usd: of it, what calls cost that made no image.
        unknown_usd: what further calls may have cost, of which it was not learnt: the most they may.
        charged_usd: both together, of the calls that were made for this very exchange.
        error_code: of the error that was sent.
        before_sending: awaited before the first byte of each call goes to Google; what it raises ends the call.
        idempotency_key: of the request, if any.
        admit_claim: counts the request against its rate limit, given whether it begins something; set with the key.
        kept_id: of what is kept of it, by which it is found in the ledger.
        kept_since: when that was begun, in seconds of the epoch.
        replayed: whether the response is that of an earlier request with the same Idempotency-Key.

    """

    deadline: float
    send_by: float = math.inf
    request_id: str = field(default_factory=lambda: secrets.token_hex(16))
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
    caller_label: str = ANONYMOUS
    user: str | None = None
    model: str | None = None
    answered_model: str = ""
    prompt: str | None = None
    images_requested: int | None = None
    images_returned: int = 0
    attempts: int = 0
    upstream_seconds: float = 0
    tokens: int = 0
    open_calls: int = 0
    call_limit: Callable[[], Decimal | None] = unknown_limit
    cost_usd: Decimal | None = None
    no_image_usd: Decimal = Decimal(0)
    unknown_usd: Decimal = Decimal(0)
    charged_usd: Decimal = Decimal(0)
    error_code: str | None = None
    before_sending: Callable[[], Awaitable[None]] = nothing_before_sending
    idempotency_key: str | None = None
    admit_claim: Callable[[bool], Awaitable[None]] | None = None
    kept_id: str | None = None
    kept_since: float | None = None
    replayed: bool = False

    @property
    def status(self) -> int:
        """The status that the log has: the one that was sent, or 499 when the caller left before the end."""
        if self.caller_left or self.response_status is None:
            return CALLER_LEFT
        return self.response_status

    @property
    def ids(self) -> dict[str, str]:
        """By what every line of the log about this request is found: its id, and that of its trace."""
        return {"request_id": self.request_id} | ({"trace_id": self.trace_id} if self.trace_id else {})

    def add_cost(self, cost_usd: Decimal | None, *, made_image: bool) -> None:
        """Add what a call cost; None where that is not known."""
        if cost_usd is None:
            limit = self.call_limit() or Decimal(0)
            self.unknown_usd += limit
            self.charged_usd += limit
        elif cost_usd:
            self.charged_usd += cost_usd
            self.cost_usd = (self.cost_usd or Decimal(0)) + cost_usd
            self.no_image_usd += 0 if made_image else cost_usd

    def undelivered_usd(self, *, caller_left: bool) -> dict[str, Decimal]:
        """Return what of its cost reached nobody as a picture, by the reason; `caller_left`: nothing did."""
        left_usd = (self.cost_usd or Decimal(0)) - self.no_image_usd if caller_left else Decimal(0)
        return {"no_image": self.no_image_usd, "caller_left": left_usd, "unknown": self.unknown_usd}

    def count_attempt(self, seconds: float) -> None:
        """Add one call to Google that took `seconds`."""
        self.attempts += 1
        self.upstream_seconds += seconds

    def copy_counts(self, work: "Exchange", *, as_replay: bool) -> None:
        """Take over what `work` counted for this request; what another request paid for is not this one's."""
        self.model, self.user, self.prompt = work.model, work.user, work.prompt
        self.answered_model = work.answered_model
        self.images_requested, self.images_returned = work.images_requested, work.images_returned
        if not as_replay:
            self.attempts, self.upstream_seconds, self.tokens = work.attempts, work.upstream_seconds, work.tokens
            self.cost_usd, self.unknown_usd = work.cost_usd, work.unknown_usd

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
            "cost_usd": None if self.cost_usd is None else rounded(self.cost_usd),
            "unknown_cost_usd": rounded(self.unknown_usd) or None,
            "kept_id": self.kept_id,
            "replayed": self.replayed or None,
            "code": self.error_code,
        }
        return {name: value for name, value in fields.items() if value is not None}
