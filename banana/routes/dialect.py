"""What an API format is to this service. A dialect is one value and pure functions; nothing of it knows how images are made.

A new one is one file beside this one and one line in the wiring.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from banana import errors
from banana.exchange import Exchange

Claim = Callable[[Request], bool]


@dataclass(frozen=True, slots=True)
class Dialect:
    """An API format.

    Attributes:
        name: as the log has it.
        claims: whether a request is meant in this format, by its path and its credentials, wherever it goes wrong.
        error_response: an error in the shape of this format.
        token_parameter: of the query, where clients of this format may put their token.

    """

    name: str
    claims: Claim
    error_response: Callable[[Exchange, errors.BananaError], Response]
    token_parameter: str | None = None


def under(*prefixes: str) -> Claim:
    """Return a claim on all paths that begin with one of `prefixes`."""
    return lambda request: request.scope["path"].startswith(prefixes)


def dialect_of(request: Request, dialects: Sequence[Dialect]) -> Dialect:
    """Return the one of `dialects` that claims the request; the first answers what no other claims."""
    return next((dialect for dialect in dialects[1:] if dialect.claims(request)), dialects[0])


async def with_error_response(work: Awaitable[Response], dialect: Dialect, exchange: Exchange) -> Response:
    """Return what `work` returns, or its error in the shape of `dialect`."""
    try:
        return await work
    except errors.BananaError as error:
        exchange.error_code = error.code
        return dialect.error_response(exchange, error)
