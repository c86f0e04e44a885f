"""Whose address counts: a trusted proxy's word, if it is an address, else the proxy's own."""

from typing import Any

import pytest

from banana.http.addresses import ForwardedAddress, caller_of_address

pytestmark = pytest.mark.anyio


async def client_of_request(peer: str, forwarded: str, trusted: str) -> str:
    """The address in the scope behind the middleware."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"])

    headers = [(b"x-forwarded-for", forwarded.encode("latin-1"))] if forwarded else []
    scope: Any = {"type": "http", "client": (peer, 1234), "headers": headers, "scheme": "http"}
    await ForwardedAddress(app, trusted)(scope, None, None)  # type: ignore[arg-type]
    return str(seen[0][0])


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "spoofed, 203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
        ("127.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "nobody 1", "127.0.0.1"),
        ("127.0.0.1", "nobody", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.7, unknown", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "\xff", "127.0.0.1"),
        ("198.51.100.1", "203.0.113.7", "198.51.100.1"),
    ],
)
async def test_only_an_address_that_a_trusted_proxy_forwards_counts(peer: str, forwarded: str, expected: str) -> None:
    """Any other text is no caller: the proxy itself is, and nobody becomes many by inventing names."""
    assert await client_of_request(peer, forwarded, "127.0.0.1") == expected


async def test_everybody_may_be_trusted() -> None:
    """With * the first address counts, as every proxy before may have written it."""
    assert await client_of_request("198.51.100.1", "203.0.113.7, 10.0.0.1", "*") == "203.0.113.7"


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::1", "::1"),
        ("testclient", "testclient"),
    ],
)
def test_a_network_of_ipv6_is_one_caller(address: str, caller: str) -> None:
    """A customer has 2^64 addresses: they count as one."""
    assert caller_of_address(address) == caller
