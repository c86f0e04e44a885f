"""Who calls: the name of an access token, or an address; no I/O.

A token is compared with every one that is known, in constant time, so that nothing is learnt from how long it takes.
"""

import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Protocol

from slowapi.util import get_remote_address
from starlette.datastructures import Headers
from starlette.requests import Request

from banana import errors
from banana.http.addresses import caller_of_address
from banana.redaction import digest_of

# Where the SDKs of OpenAI and Google, and others, put their key.
TOKEN_HEADERS = ("x-goog-api-key", "x-api-key")


class Auth(Protocol):
    """Finds out who calls.

    Attributes:
        needs_token: whether callers have names, which are those of their tokens.

    """

    needs_token: bool

    def caller_of(self, request: Request, query_name: str | None = None) -> str:
        """Return the caller's name; `query_name` is where the query may hold a token too. Raises Unauthorized."""
        ...


class NoAuth:
    """No tokens are set: anyone may call, and a caller is an address."""

    needs_token = False

    def caller_of(self, request: Request, query_name: str | None = None) -> str:
        """Return the address, of the peer, or the one that a trusted proxy forwards."""
        return address_of(request)


def is_possible_caller(name: str, tokens: Sequence[str]) -> bool:
    """Return whether a caller can have this name: that of one of `tokens`, without tokens an address."""
    if tokens:
        return name in TokenAuth(tokens).names
    try:
        ipaddress.ip_network(name)
    except ValueError:
        return False
    return True


class TokenAuth:
    """Only holders of a token may call; `tokens` are written `token` or `name:token`."""

    needs_token = True

    def __init__(self, tokens: Sequence[str]) -> None:
        pairs = [token.rpartition(":") for token in tokens]
        self._names = {token: name or f"token-{digest_of(token)}" for name, _, token in pairs}

    @property
    def names(self) -> set[str]:
        """The names of all callers."""
        return set(self._names.values())

    def caller_of(self, request: Request, query_name: str | None = None) -> str:
        """Return the holder's name. Raises Unauthorized when there is no token, or a wrong one."""
        given = _tokens_in(request.headers)
        if query_name:
            given += filter(None, (token.strip() for token in request.query_params.getlist(query_name)))
        if not given:
            raise errors.Unauthorized(
                "An access token is required. Send it as Authorization: Bearer, x-goog-api-key or x-api-key."
            )
        name = None
        for token, holder in self._names.items():
            if any([is_same(token, candidate) for candidate in given]):  # noqa: C419 # all of them, for constant time
                name = holder
        if name is None:
            raise errors.Unauthorized("The access token is not valid.")
        return name


def address_of(request: Request) -> str:
    """Return the address that a request counts for."""
    return caller_of_address(get_remote_address(request))


def is_same(token: str, candidate: str) -> bool:
    """Return whether two credentials are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(token.encode(), candidate.encode())


def bearer_of(headers: Mapping[str, str]) -> str:
    """Return the credential in `Authorization: Bearer`; empty when there is none."""
    return _bearer_in(headers.get("authorization", ""))


def _bearer_in(authorization: str) -> str:
    scheme, *rest = authorization.split(None, 1) or [""]
    return rest[0].strip() if rest and scheme.lower() == "bearer" else ""


def _tokens_in(headers: Headers) -> list[str]:
    """Return every credential that is given; a blank one is none, and any of them may be the right one."""
    given = [_bearer_in(value) for value in headers.getlist("authorization")]
    given += [value.strip() for name in TOKEN_HEADERS for value in headers.getlist(name)]
    return [token for token in given if token]
