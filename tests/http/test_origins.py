"""Which pages may use the service. The same with a real browser: test_browser."""

from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from banana import errors
from banana.app import create_app
from banana.http.origins import OriginRules
from standin.server import StandIn
from tests.conftest import client_of, error_of, settings_for

pytestmark = pytest.mark.anyio
OWN: dict[str, Any] = {"host": "localhost:8000"}


def is_served(
    method: str = "POST",
    path: str = "/generate",
    *,
    needs_token: bool = False,
    on_loopback: bool = True,
    public_url: str | None = None,
    allowed: tuple[str, ...] = (),
    **headers: Any,
) -> bool:
    rules = OriginRules(needs_token, on_loopback, public_url, frozenset(allowed))
    try:
        rules.check(method, path, Headers({name.replace("_", "-"): value for name, value in headers.items()}))
    except errors.ForeignOrigin:
        return False
    return True


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, True),
        ({"sec_fetch_site": "same-origin", "origin": "http://localhost:8000"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "same-site", "origin": "http://localhost:3000"}, False),
        ({"sec_fetch_site": "cross-site", "origin": "https://evil.example"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "something new"}, False),
        ({"sec_fetch_site": "same-origin", "origin": "https://evil.example"}, True),  # a browser's word, not a page's
        ({"origin": "http://localhost:8000"}, True),
        ({"origin": "HTTP://LOCALHOST:8000"}, True),
        ({"origin": "http://localhost:3000"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://[evil"}, False),
    ],
)
def test_a_page_of_another_site_is_refused(headers: dict[str, Any], expected: bool) -> None:
    """By what the browser says; programs say nothing and are served."""
    assert is_served(**OWN, **headers) == expected
    assert is_served(**OWN, **headers, needs_token=True)  # it would need a token, which no page has
    assert is_served("GET", **OWN, **headers) == expected  # it could use up the rate limit
    visit = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert is_served("GET", "/", **OWN, **(headers | visit))  # somebody follows a link
    assert is_served("POST", **OWN, **(headers | visit)) == expected  # a form
    assert is_served("GET", **OWN, **(headers | visit | {"sec_fetch_dest": "iframe"})) == expected


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.8.0.1", "[::1]:8000", "[::1]", "me.localhost", "localhost."])  # fmt: skip
def test_on_loopback_its_own_names_are_served(host: str) -> None:
    """All that always mean this machine."""
    assert is_served(host=host, origin=f"http://{host}")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "banana", "192.168.1.5", "0.0.0.0", "127.0.0.1.nip.io", "[fe80::1]", ""])  # fmt: skip
@pytest.mark.parametrize("path", ["/generate", "/metrics", "/docs", "/ready", "/", "/v1/models"])
def test_on_loopback_a_foreign_name_is_refused(host: str, path: str) -> None:
    """Whoever sends it: a name may have been pointed here. Probes may know the service by any name."""
    assert not is_served("GET", path, host=host)
    assert is_served("GET", path, host=host, needs_token=True)
    assert is_served("GET", "/health", host=host)


def test_a_request_without_a_host_is_no_browser() -> None:
    """HTTP/1.0 has none."""
    assert is_served()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("pictures.example.org", True), ("Pictures.Example.org:8443", True), ("evil.example", False), ("localhost:8000", True)],
)  # fmt: skip
@pytest.mark.parametrize("on_loopback", [True, False])
def test_the_public_name_is_served(host: str, expected: bool, on_loopback: bool) -> None:
    """Behind a reverse proxy, people and their browsers use the name of PUBLIC_URL."""
    given: dict[str, Any] = {"host": host, "origin": f"https://{host}", "sec_fetch_site": "same-origin"}
    assert is_served(public_url="https://pictures.example.org/", on_loopback=on_loopback, **given) == expected


def test_a_proxy_may_pass_on_another_host_than_the_browser_knows() -> None:
    """An old browser's Origin is that of PUBLIC_URL, and the proxy's Host is where it forwards to."""
    given: dict[str, Any] = {"host": "127.0.0.1:8000", "origin": "https://pictures.example.org"}
    assert is_served(public_url="https://pictures.example.org", **given)
    assert not is_served(**given)


@pytest.mark.parametrize(
    ("host", "browser", "program"),
    [("evil.example", False, True), ("banana-service:8000", True, True), ("192.168.1.5:8000", True, True),
     ("[2001:db8::1]:8000", True, True), ("evil.example.", False, True)],
)  # fmt: skip
def test_elsewhere_only_browsers_are_asked_for_the_name(host: str, browser: bool, program: bool) -> None:
    """Listening on all interfaces: addresses, names of compose services and programs pass."""
    assert is_served(on_loopback=False, host=host, sec_fetch_site="same-origin") == browser
    assert is_served(on_loopback=False, host=host, origin=f"http://{host}") == browser
    assert is_served("GET", on_loopback=False, host=host, sec_fetch_mode="cors")  # as Node's fetch
    assert is_served(on_loopback=False, host=host) == program


@pytest.mark.parametrize("allowed", [("https://app.example",), ("*",)])
def test_named_origins_may(allowed: tuple[str, ...]) -> None:
    """CORS_ORIGINS lets their pages in, whatever the browser says of the site."""
    assert is_served(**OWN, origin="https://app.example", sec_fetch_site="cross-site", allowed=allowed)
    assert is_served(**OWN, origin="https://APP.example", allowed=allowed)
    assert is_served(**OWN, origin="https://other.example", sec_fetch_site="cross-site", allowed=allowed) == (
        "*" in allowed
    )


CHAT = {"messages": [{"role": "user", "content": "x"}], "stream": True}
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.mark.parametrize("tokens", [(), ("t",)])
@pytest.mark.parametrize(
    "path",
    [
        "/generate",
        "/v1/images/generations",
        "/v1/chat/completions",
        "/v1/responses/resp_1/cancel",
        "/v1/images/tasks/1",
        "/v1beta/models/x:generateContent",
        "/v1/publishers/google/models/x:predict",
        "/no/such",
    ],
)
async def test_a_preflight_is_answered(stand_in: StandIn, tokens: tuple[str, ...], path: str) -> None:
    """A named origin may send any method and header, without a token; another is refused in words."""
    app = create_app(settings_for(stand_in, cors_origins="https://app.example/", access_tokens=tokens))
    async with client_of(app) as client:
        named = await client.options(path, headers=PREFLIGHT | {"Origin": "https://app.example"})
        other = await client.options(path, headers=PREFLIGHT | {"Origin": "https://evil.example"})

    assert (named.status_code, named.headers["access-control-allow-origin"]) == (200, "https://app.example")
    assert "authorization" in named.headers["access-control-allow-headers"]
    assert other.status_code == 403
    assert "access-control-allow-origin" not in other.headers


async def test_a_named_origin_reads_what_it_gets(stand_in: StandIn) -> None:
    """Pictures and errors carry the headers that let its program read them, and the names of the service's own."""
    app = create_app(settings_for(stand_in, cors_origins="https://app.example"))
    headers = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    async with client_of(app) as client:
        sent = [
            ("/generate", {"prompt": "x"}),
            ("/generate", {}),
            ("/v1/chat/completions", CHAT),
            ("/v1/responses", {}),
        ]
        responses = [await client.post(path, json=body, headers=headers) for path, body in sent]

    assert [response.status_code for response in responses] == [200, 422, 200, 400]
    for response in responses:
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert "x-should-retry" in response.headers["access-control-expose-headers"]
        assert "X-Request-ID" in response.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "path", ["/generate", "/v1/images/generations", "/v1beta/models/gemini-3-pro-image:generateContent"]
)
async def test_a_foreign_page_pays_nothing(client: httpx.AsyncClient, stand_in: StandIn, path: str) -> None:
    """403 in the shape of each API format, with what to do; Google is not called, and the line says who it was not."""
    body: dict[str, object] = {"prompt": "x"} if "v1beta" not in path else {"contents": []}
    response = await client.post(path, json=body, headers={"Origin": "https://evil.example"})

    assert response.status_code == 403
    assert "CORS_ORIGINS" in response.json()["error"]["message"]
    assert not stand_in.calls


async def test_the_refusal_names_the_setting(client: httpx.AsyncClient) -> None:
    """Whoever put a reverse proxy in front learns what to set."""
    response = await client.get("/metrics", headers={"Host": "pictures.example.org"})

    assert (response.status_code, error_of(response)["code"]) == (403, "foreign_origin")
    assert "PUBLIC_URL" in error_of(response)["message"]
