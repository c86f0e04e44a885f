"""Whose address a request comes from: the peer's, or the one that a trusted proxy forwards; nothing else counts."""

import ipaddress
import re
from functools import lru_cache

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

# What a provider gives to one customer, who may use any address of it (RFC 6177).
IPV6_PREFIX = 64
# A name or an address, and perhaps a port.
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9a-fA-F:.]+\](:[0-9]{1,5})?")
_IPV4_MAPPED = "::ffff:"


class ForwardedAddress:
    """Sets `client` in the scope to the address that a proxy of `trusted` forwards in X-Forwarded-For.

    uvicorn's own middleware believes any text; what is no address does not count here, and the proxy itself does.
    """

    def __init__(self, app: ASGIApp, trusted: str) -> None:
        self._app = app
        self._forwarded = ProxyHeadersMiddleware(self._checked, trusted)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if scope.get("client") and scope["client"][0].startswith(_IPV4_MAPPED):  # a listener for both kinds of address
            scope["client"] = (scope["client"][0].removeprefix(_IPV4_MAPPED), scope["client"][1])
        scope["peer"] = scope.get("client")
        await self._forwarded(scope, receive, send)  # type: ignore[arg-type]

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.pop("peer")
        client = scope.get("client")
        if client and client is not peer and _address(client[0]) is None:
            scope["client"] = peer
        await self._app(scope, receive, send)


def base_url_of(request: Request, public_url: str | None) -> str:
    """Return what goes before a path in a link to this service: `public_url`, else what the request was sent to."""
    if public_url:
        return public_url.rstrip("/")
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        name, port = request.scope.get("server") or ("127.0.0.1", None)
        host = f"{name}:{port}" if port else name
    return f"{request.url.scheme}://{host}"


@lru_cache(4096)
def caller_of_address(text: str) -> str:
    """Return what counts as one caller: an IPv4 address, or the network of an IPv6 address."""
    address = _address(text)
    if not isinstance(address, ipaddress.IPv6Address):
        return text if address is None else str(address)
    address = ipaddress.IPv6Address(int(address))  # without its zone, which anybody may write
    if address.is_loopback:
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
