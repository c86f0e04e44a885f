"""Kept pictures by their links."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from banana.app import create_app
from standin.server import StandIn
from tests.bad_road import BadRoad
from tests.conftest import client_of, settings_for
from tests.pictures import opened
from tests.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.anyio


async def linked(client: httpx.AsyncClient) -> str:
    response = await client.post("/generate", json={"prompt": "x", "response_format": "url"})
    url: str = response.json()["images"][0]
    return url


async def test_a_link_is_the_picture(client: httpx.AsyncClient) -> None:
    """With its true type, for as long as it is kept, on whatever page."""
    url = await linked(client)
    response = await client.get(url)
    headers = response.headers

    assert response.status_code == 200
    assert opened(response.content).format == "JPEG"
    assert url.partition("?")[0].endswith(".jpg")
    assert headers["content-type"] == "image/jpeg"
    assert headers["content-length"] == str(len(response.content))
    assert headers["accept-ranges"] == "bytes"
    assert headers["etag"].startswith('"')
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    private, max_age, immutable = headers["cache-control"].split(", ")
    assert (private, immutable) == ("private", "immutable")
    assert 86_300 < int(max_age.partition("=")[2]) <= 86_400


@pytest.mark.parametrize(("name", "mime_type"), [("png", "image/png"), ("webp", "image/webp")])
async def test_other_types_have_their_names(client: httpx.AsyncClient, name: str, mime_type: str) -> None:
    """By the picture, whatever Google called it."""
    body = {"prompt": "x", "response_format": "url", "output_format": name}
    url = (await client.post("/v1/images/generations", json=body)).json()["data"][0]["url"]

    assert url.partition("?")[0].endswith(f".{name}")
    assert (await client.get(url)).headers["content-type"] == mime_type


async def test_head_is_the_same_without_the_picture(client: httpx.AsyncClient) -> None:
    """With its length."""
    url = await linked(client)
    whole, head = await client.get(url), await client.head(url)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    ("value", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=10-", 206, slice(10, None)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=99999999-", 416, slice(0, 0)),
        ("bytes=9-1", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
        ("bytes=x", 200, slice(None)),
        (f"bytes={'9' * 4400}-", 200, slice(None)),
        (f"bytes={'1' * 4400}-{'2' * 4400}", 200, slice(None)),
        (f"bytes=-{'9' * 4400}", 200, slice(None)),
        ("bytes", 200, slice(None)),
    ],
)
async def test_ranges(client: httpx.AsyncClient, value: str, status: int, part: slice) -> None:
    """What is asked for, what there is not, and what is to be ignored."""
    url = await linked(client)
    whole = (await client.get(url)).content
    response = await client.get(url, headers={"Range": value})

    assert (response.status_code, response.content) == (status, whole[part])
    if status == 206:
        assert response.headers["content-range"].endswith(f"/{len(whole)}")


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_what_has_not_changed_is_not_sent_again(client: httpx.AsyncClient, form: str) -> None:
    """304, with what a cache needs; another tag is the picture."""
    url = await linked(client)
    etag = (await client.get(url)).headers["etag"]
    response = await client.get(url, headers={"If-None-Match": form.format(etag)})
    other = await client.get(url, headers={"If-None-Match": '"other"'})

    assert (response.status_code, response.content, other.status_code) == (304, b"", 200)
    assert response.headers["etag"] == etag
    assert "cache-control" in response.headers


async def test_an_interrupted_download_goes_on(client: httpx.AsyncClient) -> None:
    """With If-Range: the rest when it is the same, the whole when it is not."""
    url = await linked(client)
    whole = await client.get(url)
    headers = {"Range": "bytes=100-", "If-Range": whole.headers["etag"]}
    rest = await client.get(url, headers=headers)
    other = await client.get(url, headers=headers | {"If-Range": '"other"'})

    assert (rest.status_code, rest.content) == (206, whole.content[100:])
    assert (other.status_code, other.content) == (200, whole.content)


async def test_a_link_that_was_changed_is_forbidden(client: httpx.AsyncClient) -> None:
    """Any part of it; without one too."""
    url = await linked(client)
    base, _, query = url.partition("?")
    digit = "0" if base[-38] != "0" else "1"

    for changed in (
        url[:-1],
        url + "x",
        base,
        url.replace("exp=", "exp=9"),
        base[:-38] + digit + base[-37:] + "?" + query,
    ):
        response = await client.get(changed)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "bad_signature"), changed


@pytest.mark.parametrize("name", ["x.jpg", f"{'a' * 32}-0.gif", f"{'a' * 32}-0.body", "%2e%2e%2fledger.db", ".sweep"])
async def test_what_is_no_name_is_not_there(client: httpx.AsyncClient, name: str) -> None:
    """Nothing else in the folder can be had."""
    await linked(client)

    assert (await client.get(f"/results/{name}?exp=1&sig=x")).status_code == 404


async def test_afterwards_it_is_gone(stand_in: StandIn) -> None:
    """410, also while the file is still there, and when it made room before."""
    async with client_of(create_app(settings_for(stand_in, keep_results_seconds=2))) as client:
        url = await linked(client)
        early = await linked(client)
        Path(".state/results", early.partition("/results/")[2].partition("?")[0]).unlink()
        assert (await client.get(early)).status_code == 410
        until = time.monotonic() + 30
        while (response := await client.get(url)).status_code == 200 and time.monotonic() < until:
            await asyncio.sleep(0.05)

    assert (response.status_code, response.json()["error"]["code"]) == (410, "expired")


async def test_a_link_needs_no_token_and_spends_no_rate_limit(stand_in: StandIn) -> None:
    """It is the permission; it has a rate limit of its own."""
    settings = settings_for(stand_in, access_tokens=("ann:a1",), rate_limit_per_minute=1)
    async with client_of(create_app(settings)) as client:
        client.headers["Authorization"] = "Bearer a1"
        url = await linked(client)
        del client.headers["Authorization"]
        statuses = [(await client.get(url)).status_code for _ in range(11)]

    assert statuses == [200] * 10 + [429]


async def test_a_page_of_another_site_may_show_it(client: httpx.AsyncClient) -> None:
    """An <img> elsewhere: nothing is spent, and who has the link may see it."""
    url = await linked(client)
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}

    assert (await client.get(url, headers=elsewhere)).status_code == 200


async def test_the_log_has_no_signature(client: httpx.AsyncClient) -> None:
    """Whoever reads the log cannot open the pictures."""
    url = await linked(client)
    await client.get(url)

    assert "/results/" in Path("logs/app.log").read_text(encoding="utf-8")
    assert url.rpartition("sig=")[2] not in Path("logs/app.log").read_text(encoding="utf-8")


async def test_from_s3_a_link_leads_there(stand_in: StandIn, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """By GET and HEAD, for no longer than either is good for; what is gone is gone, and an S3 that is away may come back."""
    s3.empty()
    road = BadRoad(s3.port)
    for name, value in s3.variables_through(road.port).items():
        monkeypatch.setenv(name, value)
    settings = settings_for(stand_in, results_url=f"s3://{BUCKET}", keep_results_seconds=1000)
    async with client_of(create_app(settings)) as client, httpx.AsyncClient() as anybody:
        url = await linked(client)
        there = [await client.request(method, url) for method in ("GET", "HEAD")]
        pictures = [await anybody.get(there[0].headers["location"]), await anybody.head(there[1].headers["location"])]
        wrong = await client.get(url.replace("sig=", "sig=x"))
        road.cut()
        away = await client.get(url)
        road.mend()
        s3.empty()
        gone = await client.get(url)
    road.close()

    assert [response.status_code for response in there] == [302, 302]
    private, max_age = there[0].headers["cache-control"].split(", ")
    assert private == "private"
    assert 900 < int(max_age.partition("=")[2]) <= 1000
    assert [picture.headers["content-type"] for picture in pictures] == ["image/jpeg"] * 2
    assert opened(pictures[0].content).format == "JPEG"
    assert [response.status_code for response in (wrong, away, gone)] == [403, 503, 410]
