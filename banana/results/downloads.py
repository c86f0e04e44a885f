"""Images that a request names by an address elsewhere: downloaded only from hosts that the operator allows.

A caller chooses the address and this service is inside somebody's network, so each one is checked, that of a redirect too: the
host is allowed, all its IP addresses are public, and the connection goes to one that was checked (OWASP, Server Side Request
Forgery Prevention). What comes is bounded in bytes and seconds. No credential, cookie or proxy of this service is used.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

import httpx
import pybase64

from banana.payload.pictures import EncodedPicture, PictureError, read_input_picture, type_of

MAX_REDIRECTS = 3
DOWNLOAD_SECONDS = 20
CONNECT_SECONDS = 5
# At once, in a worker.
MAX_DOWNLOADS = 10
MAX_URL_CHARACTERS = 4096
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "BananaService"}
# IPv4 in IPv6, as translators write it (RFC 6052), and as it once was written (RFC 4291, 2.5.5.1).
_WITH_IPV4 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(ValueError):
    """An image is not downloaded; the message says why."""


class Downloads:
    """Downloads images.

    Args:
        hosts: which are allowed, by name, pattern (`*.example.com`), or IP address; only an address that is named as such may
            be a private one.
        max_bytes: of one image.

    """

    def __init__(self, hosts: Sequence[str], max_bytes: int) -> None:
        self._hosts = hosts
        self._max_bytes = max_bytes
        self._slots = asyncio.Semaphore(MAX_DOWNLOADS)
        self._client: httpx.AsyncClient | None = None

    async def image(self, address: str, deadline: float, reserve: Callable[[int], None]) -> EncodedPicture:
        """Return the image at `address`.

        Args:
            address: an http or https URL.
            deadline: in seconds of the event loop's clock.
            reserve: is told of each piece of base64 how many bytes it has, and may raise.

        Raises Refused, which says why.
        """
        until = min(deadline, asyncio.get_running_loop().time() + DOWNLOAD_SECONDS)
        try:
            async with asyncio.timeout_at(until), self._slots:
                return await self._downloaded(address, reserve)
        except TimeoutError:
            raise Refused(f"was not downloaded within {DOWNLOAD_SECONDS} s") from None
        except httpx.HTTPError as error:
            raise Refused(f"cannot be downloaded ({type(error).__name__})") from None

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.aclose()

    async def _downloaded(self, address: str, reserve: Callable[[int], None]) -> EncodedPicture:
        for _ in range(MAX_REDIRECTS + 1):
            request = await self._request(address)
            response = await self._http.send(request, stream=True)
            try:
                if response.has_redirect_location:
                    address = _redirected(address, response.headers["location"])
                    continue
                if response.status_code != httpx.codes.OK:
                    raise Refused(f"cannot be downloaded: its host answers {response.status_code}")
                return await self._image_in(response, reserve)
            finally:
                await response.aclose()
        raise Refused(f"has more than {MAX_REDIRECTS} redirects")

    @property
    def _http(self) -> httpx.AsyncClient:
        """The client, made when it is first needed: without connections for later, which would be another host's."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(DOWNLOAD_SECONDS, connect=CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=MAX_DOWNLOADS, max_keepalive_connections=0),
            )
        return self._client

    async def _request(self, address: str) -> httpx.Request:
        """Return the request to the IP address that was checked, with the name of the host. Raises Refused."""
        try:
            url = httpx.URL(address)
        except (httpx.InvalidURL, UnicodeError):
            raise Refused("is not a valid URL") from None
        if url.scheme not in ("http", "https") or not url.host or len(address) > MAX_URL_CHARACTERS:
            raise Refused("must be an http or https URL")
        checked = await self._checked(url)
        if url.userinfo:
            raise Refused("must have no user name")
        # Cookies are not kept: none would be sent to another host of the same IP address.
        self._http.cookies.clear()
        return self._http.build_request(
            "GET",
            url.copy_with(host=str(checked), fragment=None),
            headers=_HEADERS | {"Host": url.netloc.decode("ascii")},
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )

    async def _checked(self, url: httpx.URL) -> Address:
        """Return an IP address of the host that may be connected to. Raises Refused."""
        name = url.raw_host.decode("ascii").lower().rstrip(".")
        literal = _ip_address(name)
        if literal is not None and str(literal) in self._hosts:
            return literal
        if not any(fnmatchcase(name, pattern) for pattern in self._hosts):
            raise Refused(f"is not downloaded: IMAGE_URL_HOSTS does not allow {name[:100]}")
        found = [literal] if literal else await _resolved(name, url.port or {"http": 80, "https": 443}[url.scheme])
        if not all(_is_public(one) for one in found):
            raise Refused(
                f"is not downloaded: {name[:100]} has a private IP address, and IMAGE_URL_HOSTS does not name that"
            )
        return found[0]

    async def _image_in(self, response: httpx.Response, reserve: Callable[[int], None]) -> EncodedPicture:
        """Return the image that a response holds. Raises Refused."""
        pieces: list[bytes] = []
        start, size_bytes, rest = b"", 0, b""
        async for chunk in response.aiter_raw():
            size_bytes += len(chunk)
            if size_bytes > self._max_bytes:
                raise Refused(f"has more than {self._max_bytes} bytes")
            start = (start + chunk)[:32] if len(start) < 32 else start
            rest += chunk
            whole = len(rest) // 3 * 3
            pieces.append(pybase64.b64encode(rest[:whole]))
            rest = rest[whole:]
            reserve(len(pieces[-1]))
        pieces.append(pybase64.b64encode(rest))
        try:
            return read_input_picture(EncodedPicture(type_of(start), pieces, start))
        except PictureError as error:
            raise Refused(str(error)) from None


def _redirected(address: str, location: str) -> str:
    """Return the URL that a redirect leads to. Raises Refused."""
    try:
        return str(httpx.URL(address).join(location))
    except (httpx.InvalidURL, ValueError):
        raise Refused("is redirected to what is no URL") from None


def _ip_address(name: str) -> Address | None:
    with suppress(ValueError):
        return ipaddress.ip_address(name.strip("[]"))
    return None


async def _resolved(name: str, port: int) -> list[Address]:
    """Return the IP addresses of a host. Raises Refused."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found = []
    addresses = [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]
    if not addresses:
        raise Refused(f"cannot be downloaded: there is no host {name[:100]}")
    return addresses


def _is_public(address: Address) -> bool:
    return all(one.is_global and not one.is_multicast for one in _with_embedded(address))


def _with_embedded(address: Address) -> Iterator[Address]:
    """Yield an address, and the IPv4 ones that it stands for."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            yield address.ipv4_mapped
        if address.sixtofour:
            yield address.sixtofour
        if address.teredo:
            yield from address.teredo
        if any(address in network for network in _WITH_IPV4):
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
