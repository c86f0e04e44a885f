"""Images that a request names by an address elsewhere: downloaded only from hosts that the operator allows.

A caller chooses the address and this service is inside somebody's network, so each one is checked, that of a redirect too: the
host is allowed, all its IP addresses are public, and the connection goes to one that was checked (OWASP, Server Side Request
Forgery Prevention). What comes is bounded in bytes and seconds. No credential, cookie or proxy of this service is used.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial

import httpx
import pybase64

from banana.payload.pictures import EncodedPicture, PictureError, read_input_picture, type_of
from banana.results.remote import Refused

MAX_REDIRECTS = 3
DOWNLOAD_SECONDS = 20
CONNECT_SECONDS = 5
# At once, in a worker.
MAX_DOWNLOADS = 10
# Names are resolved in threads of their own: a name server that hangs holds up no other name than these.
RESOLVER_THREADS = 2
BLOCK_BYTES = 192 << 10
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "BananaService"}
# What is given out of IPv6 (https://www.iana.org/assignments/ipv6-address-space), and how translators write IPv4 (RFC 6052).
_UNICAST, _NAT64 = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Downloads:
    """The `RemoteImages` of the hosts that are allowed.

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
        self._resolver = ThreadPoolExecutor(RESOLVER_THREADS, "resolver")

    async def image(self, address: str, deadline: float, reserve: Callable[[int], None]) -> EncodedPicture:
        """Return the image at `address`; see `RemoteImages`. Raises Refused."""
        until = min(deadline, asyncio.get_running_loop().time() + DOWNLOAD_SECONDS)
        try:
            async with asyncio.timeout_at(until), self._slots:
                return await self._downloaded(address, reserve)
        except (TimeoutError, httpx.TimeoutException):
            raise Refused("was not downloaded in time") from None
        except (
            httpx.InvalidURL,
            UnicodeError,
        ):  # raised by httpx itself too, which looks at redirects it does not follow
            raise Refused("is redirected to what is no URL") from None
        except httpx.ConnectError:
            raise Refused("cannot be downloaded: its host cannot be connected to") from None
        except httpx.HTTPError:
            raise Refused(
                "cannot be downloaded: its host broke the connection, or does not speak HTTP as it should"
            ) from None

    async def close(self) -> None:
        """Close the client."""
        self._resolver.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            await self._client.aclose()

    async def _downloaded(self, address: str, reserve: Callable[[int], None]) -> EncodedPicture:
        for _ in range(MAX_REDIRECTS + 1):
            request = await self._request(address)
            response = await self._http.send(request, stream=True)
            try:
                if response.has_redirect_location:
                    address = str(httpx.URL(address).join(response.headers["location"]))
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
            is_one = url.scheme in ("http", "https") and url.host and url.raw_host
        except (httpx.InvalidURL, ValueError):  # a name that cannot be one is a UnicodeError
            is_one = False
        if not is_one:
            raise Refused("is not an http or https URL")
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
        found = [literal] if literal else await self._resolved(name)
        if not all(_is_public(one) for one in found):
            raise Refused(
                f"is not downloaded: {name[:100]} has a private IP address, and IMAGE_URL_HOSTS does not name that"
            )
        return found[0]

    async def _resolved(self, name: str) -> list[Address]:
        """Return the IP addresses of a host. Raises Refused."""
        resolve = partial(socket.getaddrinfo, name, None, type=socket.SOCK_STREAM)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._resolver, resolve)
        except (OSError, UnicodeError):
            found = []
        addresses = [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]
        if not addresses:
            raise Refused(f"cannot be downloaded: there is no host {name[:100]}")
        return addresses

    async def _image_in(self, response: httpx.Response, reserve: Callable[[int], None]) -> EncodedPicture:
        """Return the image that a response holds. Raises Refused."""
        pieces: list[bytes] = []
        start, size_bytes, block = b"", 0, bytearray()
        async for chunk in response.aiter_raw():
            size_bytes += len(chunk)
            if size_bytes > self._max_bytes:
                raise Refused(f"has more than {self._max_bytes} bytes")
            start = (start + chunk)[:32] if len(start) < 32 else start
            block += chunk
            if len(block) >= BLOCK_BYTES:  # a piece for each chunk could be millions
                whole = len(block) // 3 * 3
                pieces.append(pybase64.b64encode(memoryview(block)[:whole]))
                block = block[whole:]
                reserve(len(pieces[-1]))
        pieces.append(pybase64.b64encode(block))
        reserve(len(pieces[-1]))
        try:
            return read_input_picture(EncodedPicture(type_of(start), pieces, start))
        except PictureError as error:
            raise Refused(str(error)) from None


def _ip_address(name: str) -> Address | None:
    with suppress(ValueError):
        return ipaddress.ip_address(name.strip("[]"))
    return None


def _is_public(address: Address) -> bool:
    """Return whether an address is public, and so is the IPv4 address embedded in it, if any."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    if address.ipv4_mapped:
        return _is_public(address.ipv4_mapped)
    if address in _NAT64:
        return _is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    stands_for = (address.sixtofour, *(address.teredo or ()))
    return address in _UNICAST and address.is_global and all(_is_public(one) for one in stands_for if one)
