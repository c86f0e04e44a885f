"""Every way a request can fail, as one tree; each leaf knows its status, its code and what the caller should know.

::

    BananaError
    ├── InvalidRequest          422 invalid_request        names each field and what is wrong with it
    │   ├── SignatureRefused    422 invalid_request        …Google refused the signature of a part of its model's
    │   ├── Blocked             422 blocked                Google's policy refused
    │   └── IdempotencyMismatch 422 idempotency_mismatch   the same Idempotency-Key with another request
    ├── BudgetExceeded          402 budget_exceeded        over the caller's budget
    ├── Unauthorized            401 unauthorized           access tokens are set, and none or a wrong one came
    ├── ForeignOrigin           403 foreign_origin         a browser's request from another site, or for another host
    ├── BadSignature            403 bad_signature          a link to a kept picture that this service did not make
    ├── NotFound                404 not_found              no such route or task
    │   └── ModelNotFound       404 model_not_found        Google does not know the model
    ├── MethodNotAllowed        405 method_not_allowed
    ├── InProgress              409 in_progress            a request with the same Idempotency-Key is still being served
    ├── Expired                 410 expired                a kept result is gone
    ├── PreconditionFailed      412 precondition_failed    what was to be acted upon is no longer so
    ├── TooLarge                413 too_large              the body
    ├── HeadTooLarge            431 too_large              the request line and headers
    ├── RateLimited             429 rate_limited           our limit
    ├── UpstreamQuota           429 upstream_quota         Google's
    │   └── KeySpent            429 upstream_quota         …or what a key may spend, by KEY_SPEND_PER_10_MINUTES
    ├── UpstreamError           502 upstream_error         an error of Google's or of the way there
    │   ├── NotConnected        502 upstream_error         …that happened before the request was sent
    │   ├── ConnectionLost      502 upstream_error         …that happened after it
    │   ├── UpstreamFault       502 upstream_error         …that Google itself reports as its own
    │   ├── RejectedKey         502 upstream_rejected_key  Google refused our key
    │   ├── InvalidResponse     502 upstream_invalid       a response that is too large or no response of Gemini's
    │   │   └── CutResponse     502 upstream_invalid       …or cut short
    │   ├── NoImage             502 no_image               a response without an image
    │   └── OutcomeUnknown      502 outcome_unknown        sent under an Idempotency-Key, and the response never came
    ├── Overloaded              503 overloaded             no room here
    │   ├── LedgerUnavailable   503 overloaded             it cannot be recorded that a call is made
    │   └── UpstreamOverloaded  503 overloaded             no room at Google's
    ├── DeadlineExceeded        504 timeout
    └── Internal                500 internal               a defect of ours

Nothing here knows HTTP frameworks or API formats: the dialect decides in which shape an error is answered.
Messages go to callers: they never hold a key, a picture or a traceback.
"""

import enum
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal

# Sent to callers when there is no room and nobody knows for how long.
RETRY_AFTER_SECONDS = 5
# Google has named delays of a year; quotas are refilled within a day.
MAX_RETRY_AFTER_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class UpstreamResponse:
    """Google's response, or a part of one, as it came: HTTP status, content type, and the body in pieces.

    `cost_usd` is what the call cost, where that is known.
    """

    status: int
    content_type: str
    pieces: Sequence[bytes | bytearray]
    cost_usd: Decimal | None = None


# The errors of the request that is served in this context.
_made: "ContextVar[list[weakref.ref[BaseException]]]" = ContextVar("_made")


@contextmanager
def released() -> Iterator[None]:
    """Clear, at the end, the tracebacks of the errors that were made in this context and are still referred to.

    They hold the request's body, and the error itself: a circle that waits for the garbage collector. Of a hundred requests
    of 20 MB whose calls were reset, four at a time, a worker had 730 MB at the end, with this 80 MB.
    """
    made: list[weakref.ref[BaseException]] = []
    outer = _made.get(None)
    token = _made.set(made)
    try:
        yield
    finally:
        _made.reset(token)
        alive = [reference for reference in made if reference() is not None]
        for reference in alive:
            _release(reference())
        if outer is not None:  # of the request that waits for it, and may raise it again
            outer += alive


def _release(error: BaseException | None) -> None:
    """Take the frames off an error and those that led to it."""
    if error is None:
        return
    causes = error.__cause__, error.__context__
    error.__traceback__ = error.__cause__ = error.__context__ = None
    for cause in causes:
        _release(cause)


class BananaError(Exception):
    """An error with an HTTP response.

    `extra` holds more keys for the error object (`fields`, `reason`, `retry_after`); `retry_after_seconds`,
    where it is known, is also sent in the `Retry-After` header, in whole seconds, rounded up, at least 1.

    Attributes:
        status, code: as they are answered.
        in_doubt: whether a call was sent and what became of it was not learnt: it may have been billed.
        was_answered: whether it is Google's response to a call that may have been billed.
        is_unbilled: whether it is certain all the same that it was not.
        request_id: of the request that it answered first, where that is an earlier one.
        cost_usd: what the call cost that ended so; None where nothing, or where that is not known.

    """

    status = 500
    code = "internal"
    in_doubt = False
    # Whether Google itself says, or its count shows, that it does not bill the call.
    is_unbilled = False
    was_answered = False
    request_id: str | None = None
    cost_usd: Decimal | None = None

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, **extra: object) -> None:
        super().__init__(message)
        if (made := _made.get(None)) is not None:
            made.append(weakref.ref(self, made.remove))
        self.message = message
        self.extra = extra
        self.headers: dict[str, str] = {}
        self.retry_after_seconds = retry_after_seconds
        # As Google sent it, for callers who use Google's own API format.
        self.upstream_response: UpstreamResponse | None = None
        if retry_after_seconds is not None:
            whole_seconds = max(1, math.ceil(min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS)))
            self.extra["retry_after"] = whole_seconds
            self.headers["Retry-After"] = str(whole_seconds)

    @property
    def may_be_billed(self) -> bool:
        """Whether a call that ended so may have been billed."""
        return self.in_doubt or (self.was_answered and not self.is_unbilled)


class Internal(BananaError):
    """A defect of ours; the log has the traceback, the caller has the request id."""

    in_doubt = True

    def __init__(self) -> None:
        super().__init__(
            "Internal error of this service. Report it with the request_id; the log has the details. Nothing was retried."
        )


class InvalidRequest(BananaError):
    """The request cannot be carried out as it is."""

    status = 422
    code = "invalid_request"

    @classmethod
    def of_fields(cls, problems: list[tuple[str, str]]) -> "InvalidRequest":
        """Name every field that is wrong; `problems` are pairs of field and complaint."""
        message = "; ".join(f"{field}: {problem}" for field, problem in problems)
        fields = [{"field": field, "message": problem} for field, problem in problems]
        return cls(message, fields=fields)


class SignatureRefused(InvalidRequest):
    """Google refused the signature of a part of its model's, or that there is none; nothing was billed."""


class Blocked(InvalidRequest):
    """Google's policy refused the prompt or the picture."""

    code = "blocked"
    was_answered = True


class IdempotencyMismatch(InvalidRequest):
    """The Idempotency-Key was used for another request."""

    code = "idempotency_mismatch"


class Unauthorized(BananaError):
    """Access tokens are set, and none or a wrong one came."""

    status = 401
    code = "unauthorized"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers["WWW-Authenticate"] = "Bearer"


class BudgetExceeded(BananaError):
    """The request may cost more than is left of its caller's budget."""

    status = 402
    code = "budget_exceeded"


class ForeignOrigin(BananaError):
    """A browser's request from another site, or for another host than this service's."""

    status = 403
    code = "foreign_origin"


class BadSignature(BananaError):
    """A link to a kept picture that this service did not make."""

    status = 403
    code = "bad_signature"


class NotFound(BananaError):
    """No such route, or no such task of the caller's."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """Google does not know the model."""

    code = "model_not_found"


class MethodNotAllowed(BananaError):
    """The route exists, the method does not."""

    status = 405
    code = "method_not_allowed"


class InProgress(BananaError):
    """A request with the same Idempotency-Key is still being served."""

    status = 409
    code = "in_progress"


class Expired(BananaError):
    """A kept result is gone."""

    status = 410
    code = "expired"


class PreconditionFailed(BananaError):
    """What a request was to act upon is no longer as its condition says."""

    status = 412
    code = "precondition_failed"


class TooLarge(BananaError):
    """The body is over the limit."""

    status = 413
    code = "too_large"


class HeadTooLarge(BananaError):
    """The request line and headers are over the limit."""

    status = 431
    code = "too_large"


class RateLimited(BananaError):
    """The caller is over its rate limit."""

    status = 429
    code = "rate_limited"


class QuotaKind(enum.Enum):
    """What a 429 of Google's means. Source: the messages that Google answers with; five of the six have nothing else."""

    MODEL = enum.auto()  # the project's quota for this model
    SPEND = enum.auto()  # what the project may spend in ten minutes
    MONEY = enum.auto()  # its monthly cap or its credits: nothing helps but a person
    CONTENTION = enum.auto()  # too many requests at the same time, of any project


class UpstreamQuota(BananaError):
    """Google's quota is used up.

    Attributes:
        kind: what it means.
        per_day: whether waiting does not help today.
        may_wait: whether Google itself said how long it takes.

    """

    status = 429
    code = "upstream_quota"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        per_day: bool = False,
        kind: QuotaKind = QuotaKind.MODEL,
        may_wait: bool = True,
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.per_day = per_day
        self.kind = kind
        self.may_wait = may_wait


class KeySpent(UpstreamQuota):
    """A key has spent what it may in ten minutes; the call was not sent."""


class UpstreamError(BananaError):
    """An error of Google's, or of the way there, that the caller did not cause."""

    status = 502
    code = "upstream_error"


class NotConnected(UpstreamError):
    """The connection failed before the request was sent: a retry costs nothing."""


class ConnectionLost(UpstreamError):
    """The connection failed after the request was sent: Google may have carried it out, and billed it."""

    in_doubt = True


class UpstreamFault(UpstreamError):
    """Google answered 500, 502 or 504."""


class RejectedKey(UpstreamError):
    """Google refused our key."""

    code = "upstream_rejected_key"


class InvalidResponse(UpstreamError):
    """Google's response is too large, or not in Google's format."""

    code = "upstream_invalid"
    was_answered = True


class CutResponse(InvalidResponse):
    """Google's response is cut short."""

    in_doubt = True
    was_answered = False


class NoImage(UpstreamError):
    """Google answered, but without an image."""

    code = "no_image"
    was_answered = True


class OutcomeUnknown(UpstreamError):
    """A call was sent under an Idempotency-Key or for a task, and what became of it was never learnt."""

    code = "outcome_unknown"
    was_answered = True

    def __init__(self) -> None:
        super().__init__(
            "The call was sent to Google, but no response came. It may have been billed, so it is not repeated for this"
            " Idempotency-Key or task. To try again, use a new key; that may be billed again."
        )


class Overloaded(BananaError):
    """No room; the request was not sent."""

    status = 503
    code = "overloaded"


class LedgerUnavailable(Overloaded):
    """The ledger or what is kept cannot be used, so nothing that it must record is begun."""

    def __init__(self) -> None:
        super().__init__(
            "This service cannot read or write its records of Idempotency-Keys, tasks and budgets (is its disk full?)."
            " Nothing was sent to Google. Try again later.",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )


class UpstreamOverloaded(Overloaded):
    """Google has no room: it answered 503; `delay_seconds` is the delay it names, if any."""

    def __init__(self, message: str, *, delay_seconds: float | None = None) -> None:
        super().__init__(message, retry_after_seconds=delay_seconds or RETRY_AFTER_SECONDS)
        self.delay_seconds = delay_seconds


class DeadlineExceeded(BananaError):
    """The total time for the request is over."""

    status = 504
    code = "timeout"


def recorded(status: int, code: str, message: str, extra: dict[str, object]) -> BananaError:
    """Return an error of an earlier request, as it was kept."""
    retry_after = extra.get("retry_after")
    error = BananaError(message, retry_after_seconds=retry_after if isinstance(retry_after, int) else None)
    error.extra = dict(extra)
    error.status = status
    error.code = code
    return error
