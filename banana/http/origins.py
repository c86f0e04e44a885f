"""Which web pages may use the service: its own, and those of `CORS_ORIGINS`; pure, and a middleware around it.

Without access tokens whoever reaches the service may spend money, and every web page that is open in a browser reaches
it. What browsers say of a request cannot be forged by a page: `Sec-Fetch-Site`, `Origin` and `Host`
(https://www.w3.org/TR/fetch-metadata/). With access tokens a page would need one, and only preflights are looked at.
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from banana import errors

ANY_ORIGIN = "*"
# A name in the DNS has 253 at most; what is longer is none, and is not remembered whole.
MAX_HOST_CHARACTERS = 300
# Links to kept pictures: whoever has one may show it, on any page.
_LINKS = "/results/"
# What probes ask, by whatever name they know the service.
_PROBES = ("/health",)
_HEADERS = frozenset(
    (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"access-control-request-method")
)
_DEFAULT_PORTS = (":80", ":443")


@dataclass(frozen=True, slots=True)
class OriginRules:
    """Which requests of browsers are served.

    Attributes:
        needs_token: whether nobody is served without a token.
        on_loopback: whether the service listens on a loopback address only.
        public_url: where people reach the service, behind a reverse proxy; None when that is where it listens.
        allowed: origins of other sites that may use it, or `*`.

    """

    needs_token: bool
    on_loopback: bool
    public_url: str | None
    allowed: frozenset[str]

    def check(self, method: str, path: str, headers: Headers) -> None:
        """Return when the request may be served. Raises ForeignOrigin."""
        if method == "OPTIONS" and "access-control-request-method" in headers:
            self._check_site(headers)
        if self.needs_token or path.startswith(_LINKS):
            return
        if path not in _PROBES:
            for host in headers.getlist("host"):
                self._check_host(host, headers)
            if not _is_visit(method, headers):
                self._check_site(headers)

    def _check_host(self, host: str, headers: Headers) -> None:
        """Refuse a name that a foreign page may have pointed at this machine (DNS rebinding)."""
        name = _name_of(host[:MAX_HOST_CHARACTERS])
        if _is_loopback(name) or (self.public_url and name == _name_of(_netloc_of(self.public_url))):
            return
        if self.on_loopback:
            raise errors.ForeignOrigin(
                f"This service listens on a loopback address and does not accept the host {_shown(host)}. Behind a"
                " reverse proxy, set PUBLIC_URL to the address that people use, or set ACCESS_TOKENS."
            )
        if _is_of_browser(headers) and "." in name and not _is_address(name):
            raise errors.ForeignOrigin(
                f"This service does not accept browsers' requests for the host {_shown(host)}. Set PUBLIC_URL"
                " to the address that people use, or set ACCESS_TOKENS."
            )

    def _check_site(self, headers: Headers) -> None:
        """Refuse what a page of another site sends."""
        origin = headers.get("origin")
        if ANY_ORIGIN in self.allowed or (origin and origin.lower() in self.allowed):
            return
        site = headers.get("sec-fetch-site")
        if site is not None:
            is_foreign = site not in ("same-origin", "none")
        else:
            is_foreign = origin is not None and not self._is_own(origin, headers.get("host", ""))
        if is_foreign:
            raise errors.ForeignOrigin(
                f"A page of another site ({_shown(origin or 'unknown')}) may not use this service. To allow it, add its"
                " origin to CORS_ORIGINS; if it is this service's own page behind a reverse proxy, set PUBLIC_URL."
            )

    def _is_own(self, origin: str, host: str) -> bool:
        netloc = _netloc_of(origin)
        own = [_without_default_port(host.lower())] + ([_netloc_of(self.public_url)] if self.public_url else [])
        return bool(netloc) and netloc in own


class OriginCheck:
    """Refuses what `rules` do not let pass; `error_response` writes an error in the API format of the route."""

    def __init__(
        self, app: ASGIApp, rules: OriginRules, error_response: Callable[[Request, errors.BananaError], Response]
    ) -> None:
        self._app = app
        self._rules = rules
        self._error_response = error_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            self._rules.check(scope["method"], scope["path"], Headers(raw=_said_by_browsers(scope["headers"])))
        except errors.ForeignOrigin as error:
            return await self._error_response(Request(scope), error)(scope, receive, send)
        await self._app(scope, receive, send)


def _said_by_browsers(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that matter here, of which programs send one: what is looked through is short."""
    return [header for header in headers if header[0] in _HEADERS]


@lru_cache(256)
def _name_of(host: str) -> str:
    """Return the name in a `Host` header, without its port, brackets and the dot of the root."""
    name, _, port = host.strip().lower().rpartition(":")
    if not name or not port.isdigit():
        name = host.strip().lower()
    return name.removeprefix("[").removesuffix("]").removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(256)
def _is_loopback(name: str) -> bool:
    """Return whether the name always means the machine that asks (RFC 6761, section 6.3)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _is_visit(method: str, headers: Headers) -> bool:
    """Return whether a person follows a link or opens an address: the page shows itself, and nothing is spent."""
    is_document = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return method in ("GET", "HEAD") and is_document


def _is_of_browser(headers: Headers) -> bool:
    """Return whether a browser sends it; Node's fetch has a Sec-Fetch-Mode, and neither of these."""
    return "origin" in headers or "sec-fetch-site" in headers


def _netloc_of(url: str) -> str:
    """Return the host of an address or origin, with its port unless that is the default; empty where there is none."""
    try:
        return _without_default_port(urlsplit(url.lower()).netloc)
    except ValueError:
        return ""


def _without_default_port(netloc: str) -> str:
    for port in _DEFAULT_PORTS:
        netloc = netloc.removesuffix(port)
    return netloc


def _shown(text: str) -> str:
    return text[:100]
