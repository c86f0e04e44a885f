"""No picture that was paid for is lost: whatever happens to the tab, the connection or the browser's storage."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, Route, expect

from tests.page.visit import Visit
from tests.services import Service, needs, stand_in_process

pytestmark = [pytest.mark.slow, needs("chromium")]
LATENCY_SECONDS = 3
TASKS = re.compile(r"/v1/images/tasks\?")


@pytest.fixture(scope="module")
def slow_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose Google takes some seconds for a picture."""
    with stand_in_process(LATENCY_SECONDS) as google:
        made = Service(
            tmp_path_factory.mktemp("page"), workers=2, rate_limit_per_minute=1000, gemini_api_key="k",
            gemini_base_url=google,
        )  # fmt: skip
        assert made.run("start.sh").returncode == 0
        yield made
        made.run("stop.sh")


@pytest.fixture
def slow(browser: Browser, slow_service: Service) -> Iterator[Visit]:
    visit = Visit(browser, slow_service)
    yield visit
    visit.close("ERR_INTERNET_DISCONNECTED", "ERR_FAILED", "412", "net::")


def has_begun(visit: Visit, count: int) -> None:
    """Wait until so many tasks are known to the page."""
    visit.until(
        """async (count) => {
            const request = indexedDB.open("banana-service");
            const database = await new Promise((resolve) => { request.onsuccess = () => resolve(request.result); });
            const all = database.transaction("items").objectStore("items").getAll();
            const items = await new Promise((resolve) => { all.onsuccess = () => resolve(all.result); });
            database.close();
            return items.filter((item) => item.task).length >= count;
        }""",
        count,
    )


def killed(page: Page) -> None:
    """Kill a tab, as when it runs out of memory."""
    with pytest.raises(Error):
        page.goto("chrome://crash")


@pytest.mark.parametrize("way", ["kill", "close", "reload"])
def test_a_tab_that_goes_loses_nothing(slow: Visit, way: str) -> None:
    """In the middle of four pictures: the same tab or another finds them again, and each was one call."""
    before = slow.calls()
    slow.send("Four bananas", 4)
    has_begun(slow, 4)
    if way == "reload":
        slow.reload()
    else:
        killed(slow.page) if way == "kill" else slow.page.close()
        slow.page = slow.tab()
    slow.has(4)

    slow.has_called(before + 4)


def test_a_tab_that_goes_before_the_service_answered_loses_nothing(slow: Visit) -> None:
    """Written down before it is sent: the other tab sends it again, under the same key."""
    before = slow.calls()
    slow.page.route("**/generate", lambda route: route.fetch())  # it arrives; the response does not
    with slow.page.expect_request("**/generate"):
        slow.send("Sent once")
    slow.page.wait_for_timeout(500)
    slow.page.close()
    slow.page = slow.tab()
    slow.has(1)

    slow.has_called(before + 1)


def test_two_tabs_are_one_history(slow: Visit) -> None:
    """What runs in one is seen in the other, paid once, counted once; what is deleted here is gone there."""
    before = slow.calls()
    other = slow.tab()
    slow.send("Two tabs", 2)
    expect(other.locator(".tile.waiting")).to_have_count(2)
    slow.has(2)
    expect(other.locator(".tile.done img")).to_have_count(2)
    expect(slow.page.locator("#spent")).to_have_text("Session $0.27")
    expect(other.locator("#spent")).to_be_hidden()
    slow.tile("Two tabs").first.hover()
    slow.choose("Delete", "Two tabs")
    expect(other.locator(".tile.done img")).to_have_count(1)

    slow.has_called(before + 2)


def test_a_lost_connection_is_waited_for(slow: Visit) -> None:
    """While it is gone the tile says so; then the picture is there, and was one call."""
    before = slow.calls()
    slow.send("Through a tunnel")
    has_begun(slow, 1)
    slow.context.set_offline(True)
    expect(slow.page.locator(".tile.waiting")).to_contain_text("The service cannot be reached. Trying again…")
    slow.context.set_offline(False)
    slow.has(1)

    slow.has_called(before + 1)


def test_a_response_that_is_lost_is_asked_for_again(slow: Visit) -> None:
    """The request arrived, its response did not: the same key is sent again, and nothing is paid twice."""
    before, sent = slow.calls(), []

    def lose_the_first(route: Route) -> None:
        sent.append(route.request.headers["idempotency-key"])
        if len(sent) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    slow.page.route("**/generate", lose_the_first)
    slow.make("Twice sent")

    assert len(sent) == 2
    assert len(set(sent)) == 1
    slow.has_called(before + 1)


def test_cancelling_says_what_is_known_and_escape_cancels_nothing(slow: Visit) -> None:
    """Esc, anywhere: it goes on. Cancel: the call to Google ends, and the tile says that it may be billed."""
    slow.send("[fault:hang]")
    has_begun(slow, 1)
    for _ in range(3):
        slow.page.keyboard.press("Escape")
    expect(slow.page.locator(".tile.waiting")).to_have_count(1)
    slow.page.locator(".tile.waiting").get_by_role("button", name="Cancel").click()
    expect(slow.page.locator(".tile.cancelled")).to_contain_text("The request was stopped; Google may still bill it.")
    slow.until(
        """async () => (await (await fetch("/v1/images/tasks?limit=1")).json()).data[0].status === "cancelled" """
    )
    slow.reload()
    expect(slow.page.locator(".tile.cancelled")).to_have_count(1)


def test_a_cancel_in_a_tab_that_is_closed_is_carried_out_by_the_next(slow: Visit) -> None:
    """The service has not heard of it yet."""
    slow.page.route(re.compile("/v1/images/tasks/"), lambda route: route.abort())
    slow.send("[fault:hang]")
    has_begun(slow, 1)
    slow.page.locator(".tile.waiting").get_by_role("button", name="Cancel").click()
    expect(slow.page.locator(".tile.cancelled")).to_have_count(1)
    slow.page.close()
    slow.page = slow.tab()
    slow.until(
        """async () => (await (await fetch("/v1/images/tasks?limit=1")).json()).data[0].status === "cancelled" """
    )


def test_a_cancel_that_comes_too_late_costs_no_picture(slow: Visit) -> None:
    """The page does not know yet that it is done: the picture comes all the same."""
    slow.page.route(TASKS, lambda route: route.abort())
    slow.send("Just done")
    has_begun(slow, 1)
    slow.until(
        """async () => (await (await fetch("/v1/images/tasks")).json()).data[0].status === "completed" """,
    )
    slow.page.locator(".tile.waiting").get_by_role("button", name="Cancel").click()
    slow.page.unroute(TASKS)
    slow.has(1)


def test_what_this_browser_has_no_room_for_is_shown_and_found_again(slow: Visit) -> None:
    """The storage is full when the picture comes: it is seen, can be taken home, and after a reload it is kept."""
    slow.send("Too much")
    has_begun(slow, 1)
    slow.page.evaluate(
        """() => {
            const put = IDBObjectStore.prototype.put;
            IDBObjectStore.prototype.put = function (value, ...key) {
                if (!(value instanceof Blob)) return put.call(this, value, ...key);
                try { this.transaction.abort(); } catch {}  // as a browser does that is out of room
            };
        }"""
    )
    slow.has(1)
    expect(slow.page.locator("#toasts")).to_contain_text("This browser's storage is full")
    saved = slow.download(lambda: slow.choose("Download", "Too much"))
    slow.reload()
    slow.has(1)
    slow.page.unroute_all()
    slow.reload()
    slow.has(1)

    assert saved.stat().st_size > 10_000


def test_several_runs_go_on_at_the_same_time(slow: Visit) -> None:
    """Each with its own progress and cancel: what is asked for second need not wait for the first."""
    slow.send("[fault:hang]", 2)
    slow.send("The second run")
    slow.has(1)
    waiting = slow.page.locator(".tile.waiting")
    expect(waiting).to_have_count(2)
    expect(waiting.first).to_contain_text(re.compile(r"\d+ s, usually about \d+ s"))
    waiting.first.get_by_role("button", name="Cancel").click()
    expect(waiting).to_have_count(1)
    waiting.first.get_by_role("button", name="Cancel").click()
    expect(waiting).to_have_count(0)


def test_without_kept_results_pictures_come_all_the_same(browser: Browser, tmp_path: Path) -> None:
    """KEEP_RESULTS_SECONDS=0: there are no tasks; the page asks and waits."""
    service = Service(tmp_path, workers=1, keep_results_seconds=0)
    assert service.run("start.sh", "--demo").returncode == 0
    visit = Visit(browser, service)
    visit.make("Nothing kept", 2)
    visit.open("Nothing kept")
    expect(visit.page.locator("#facts")).to_contain_text("$0.137116")
    expect(visit.page.get_by_role("button", name="Copy link")).to_have_count(0)
    visit.close("422")
    service.run("stop.sh")


def test_a_rate_limit_is_waited_for(browser: Browser, tmp_path: Path) -> None:
    """What is over the limit says when it will be sent, and has cost nothing when it is cancelled before."""
    service = Service(tmp_path, workers=1, rate_limit_per_minute=3)
    assert service.run("start.sh", "--demo").returncode == 0
    visit = Visit(browser, service)
    visit.send("Over the limit", 5)
    expect(visit.page.locator(".tile.waiting").last).to_contain_text(
        re.compile(r"Rate limit reached. Sending in \d+ s")
    )
    visit.page.locator(".tile.waiting").last.get_by_role("button", name="Cancel").click()
    expect(visit.page.locator(".tile.cancelled")).to_contain_text("It had not been sent; nothing is billed.")
    visit.close("429")
    service.run("stop.sh")


def test_those_that_failed_are_retried_together(slow: Visit) -> None:
    """One refusal of three is one card with its reason and what to do; the details are behind a button."""
    before = slow.calls()
    slow.send("[fault:image-safety]", 3)
    card = slow.page.locator(".tile.failed")
    expect(card).to_have_count(1)
    expect(card).to_contain_text("3 images: Blocked by Google's content policy.")
    expect(card).to_contain_text("Change the prompt or the reference images and try again.")
    card.get_by_role("button", name="Details").click()
    details = slow.page.locator("dialog.small")
    expect(details).to_contain_text("blocked")
    expect(details.get_by_role("button", name=re.compile("^Copy [0-9a-f]{32}"))).to_be_visible()
    details.get_by_role("button", name="Close").click()
    expect(slow.page.locator("#failures")).to_be_hidden()
    with slow.page.expect_request("**/generate"):
        card.get_by_role("button", name="Try all 3 again").click()
    expect(slow.page.locator(".tile.waiting")).to_have_count(0)
    expect(card).to_have_count(1)
    slow.has_called(before + 6)

    slow.send("[fault:image-safety] again")
    expect(card).to_have_count(2)
    with slow.page.expect_request("**/generate"):
        slow.page.locator("#retry-all").click()
    expect(slow.page.locator(".tile.waiting")).to_have_count(0)
    expect(card).to_have_count(2)
    slow.has_called(before + 11)

    slow.page.locator("#remove-all").click()
    expect(slow.page.locator("#welcome")).to_be_visible()


def test_a_history_that_is_cleared_elsewhere_leaves_the_tab_alive(slow: Visit) -> None:
    """Whoever clears the site's data while pictures are made is told to reload; the tab neither hangs nor asks in a circle."""
    slow.send("Four bananas", 4)
    has_begun(slow, 4)
    slow.page.evaluate(
        """() => new Promise((resolve) => {
            indexedDB.deleteDatabase("banana-service").onsuccess = resolve;
        })"""
    )
    expect(slow.page.locator("#toasts")).to_contain_text("Reload")
    asked: list[str] = []

    def gone(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=404, json={"error": {"code": "not_found", "message": "Gone."}})

    slow.page.route(re.compile("/v1/images/tasks"), gone)
    slow.page.wait_for_timeout(LATENCY_SECONDS * 1000 + 2000)

    assert slow.page.evaluate("1 + 1") == 2
    assert len(asked) < 40
    slow.complaints[:] = [text for text in slow.complaints if "404" not in text]
    assert len(slow.complaints) <= 1, slow.complaints
    slow.complaints.clear()
