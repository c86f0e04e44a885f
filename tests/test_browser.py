"""The page, in a real browser: Debian's Chromium, driven by playwright, in front of the demo."""

import base64
import re
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.pictures import png
from tests.services import Service, free_port, needs

pytestmark = [pytest.mark.slow, needs("chromium")]
TOKEN = "page-token"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()


class Visit:
    """One visit of the page; at its end nothing was wrong in the console and no other host was asked."""

    def __init__(self, browser: Browser, service: Service, **options: Any) -> None:
        self.context = browser.new_context(**({"locale": "en-US"} | options))
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(re.sub(r"^(\w+://[^/]*)?.*", r"\1", request.url)))
        self.service = service
        self.page.goto(service.address)
        expect(self.page.locator("#model option")).not_to_have_count(1) if not service.token else None

    def send(self, prompt: str, count: int = 1) -> None:
        self.page.get_by_label("What should the picture show?").fill(prompt)
        self.page.get_by_label("How many").select_option(str(count))
        self.page.keyboard.press("Enter") if count == 1 else self.page.get_by_role(
            "button", name="Make pictures"
        ).click()

    def pictures(self, count: int) -> None:
        expect(self.page.locator(".tile img")).to_have_count(count)

    def close(self, *allowed: str) -> None:
        self.context.close()
        wrong = [text for text in self.complaints if not any(word in text for word in allowed)]
        assert not wrong
        assert {host for host in self.hosts if host} <= {self.service.address}
        # Chromium asks for blobs and data under their own schemes, which are no hosts.


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("page"), workers=1, rate_limit_per_minute=1000)
    assert made.run("start.sh", "--demo").returncode == 0
    yield made
    made.run("stop.sh")


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[Visit]:
    made = Visit(browser, service)
    yield made
    made.close()


def test_a_prompt_becomes_a_picture_that_is_kept_and_taken_home(visit: Visit) -> None:
    """From opening the page to a downloaded picture; it is there again after a reload, and gone when forgotten."""
    expect(visit.page.locator("#demo")).to_be_visible()
    visit.send("A ripe banana")
    visit.pictures(1)
    with visit.page.expect_download() as downloading:
        visit.page.get_by_role("link", name="Download").click()
    saved = downloading.value

    assert re.fullmatch(r"A-ripe-banana-\d{4}-\d\d-\d\d\.jpg", saved.suggested_filename)
    with Image.open(saved.path()) as picture:
        assert picture.size == (1024, 1024)
    delete_all = visit.page.get_by_role("button", name="Delete all")
    expect(delete_all).to_be_visible()
    visit.page.reload()
    visit.pictures(1)
    visit.page.on("dialog", lambda dialog: dialog.accept())
    delete_all.click()
    visit.pictures(0)
    visit.page.reload()
    expect(visit.page.locator("#empty")).to_be_visible()
    visit.pictures(0)


def test_a_picture_has_its_price_before_and_after(visit: Visit) -> None:
    """By model, size and number; what this tab has spent, also after a reload; in the viewer, what this one cost."""
    price = visit.page.locator("#price")
    expect(price).to_have_text("About $0.134, and a little for thinking and the prompt.")
    visit.page.get_by_label("How many").select_option("2")
    visit.page.get_by_label("Size").select_option("4K")
    expect(price).to_have_text("About $0.48 ($0.24 each), and a little for thinking and the prompt.")
    visit.page.get_by_label("Model").select_option("gemini-nano-banana-2.1")
    expect(price).to_have_text("About $0.151 ($0.076 each), and a little for thinking and the prompt.")
    visit.page.get_by_label("Size").select_option("")
    visit.send("Two bananas", 2)
    visit.pictures(2)
    expect(price).to_contain_text("Spent in this tab: $0.071.")
    expect(visit.page.locator(".tile").first).to_contain_text("$0.035")
    visit.page.locator(".frame button").first.click()
    expect(visit.page.locator("#viewer-facts")).to_contain_text("$0.035")
    visit.page.keyboard.press("Escape")
    visit.page.reload()
    expect(price).to_contain_text("Spent in this tab: $0.071.")
    visit.page.locator("#language").click()
    expect(price).to_contain_text("本标签页已花费：US$0.071。")


def test_four_pictures_arrive_one_by_one(visit: Visit) -> None:
    """Four tiles at once, each with its clock, then four pictures; a picture's view has what would make it again."""
    visit.send("Four bananas", 4)
    expect(visit.page.locator(".tile .clock").first).to_contain_text("s, usually about")
    visit.pictures(4)
    visit.page.locator(".frame button").first.click()

    expect(visit.page.locator("#viewer pre")).to_have_count(3)
    expect(visit.page.locator("#viewer pre").first).to_contain_text("curl http://127.0.0.1")
    visit.page.keyboard.press("Escape")


@pytest.mark.parametrize("way", ["choice", "drop", "paste"])
def test_a_picture_goes_along(visit: Visit, way: str) -> None:
    """A picture that is chosen, dropped or pasted is shown, sent, and can be taken away; what is none is refused."""
    if way == "choice":
        visit.page.locator("#files").set_input_files(
            {"name": "red.png", "mimeType": "image/png", "buffer": png(size=(40, 30))}
        )
    else:
        visit.page.evaluate(
            """([way, base64]) => {
                const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], "red.png", {type: "image/png"}));
                const event = way === "drop"
                    ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
                    : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true});
                document.getElementById("drop").dispatchEvent(event);
            }""",
            [way, base64.b64encode(png(size=(40, 30))).decode()],
        )
    expect(visit.page.locator("#inputs img")).to_have_count(1)
    visit.page.locator("#files").set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"x"})
    expect(visit.page.locator("#message")).to_contain_text("notes.txt is not a PNG")
    with visit.page.expect_request("**/generate") as asked:
        visit.send("Like this")
    visit.pictures(1)

    assert "multipart/form-data" in asked.value.headers["content-type"]
    visit.page.get_by_role("button", name="Remove red.png").click()
    expect(visit.page.locator("#inputs img")).to_have_count(0)


def test_a_result_can_be_an_input(visit: Visit) -> None:
    """What was made is where the next one starts."""
    visit.send("First")
    visit.pictures(1)
    visit.page.get_by_role("button", name="Use as input").click()
    expect(visit.page.locator("#inputs img")).to_have_count(1)


def test_escape_cancels_and_the_call_to_google_ends(visit: Visit) -> None:
    """Esc: the tile says so, and the log says 499."""
    visit.send("[fault:hang]")
    expect(visit.page.locator(".tile")).to_have_count(1)
    visit.page.wait_for_timeout(300)
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator(".tile.failed")).to_contain_text("Cancelled")
    visit.page.wait_for_timeout(300)

    asked = [line for line in visit.service.log() if line["event"] == "request" and line["path"] == "/generate"]
    assert asked[-1]["status"] == 499


def test_a_refusal_is_told_in_its_tile_and_can_be_tried_again(visit: Visit) -> None:
    """A blocked prompt says what happened, what to do and the request id, and offers another try for itself."""
    visit.send("[fault:image-safety]")
    tile = visit.page.locator(".tile.failed")
    expect(tile).to_contain_text("Google's policy blocked this. Change the prompt")
    expect(tile).to_contain_text(re.compile(r"request [0-9a-f]{32}"))
    with visit.page.expect_request("**/generate"):
        tile.get_by_role("button", name="Try again").click()


def test_an_empty_prompt_is_asked_for(visit: Visit) -> None:
    """Nothing is sent without words."""
    visit.page.get_by_role("button", name="Make pictures").click()
    expect(visit.page.locator("#message")).to_have_text("Describe what the picture should show.")


def test_a_rate_limit_counts_down(browser: Browser, tmp_path: Path) -> None:
    """Over the rate limit: the page says how long, counts, and holds the button back."""
    limited = Service(tmp_path, workers=1, rate_limit_per_minute=3)
    assert limited.run("start.sh", "--demo").returncode == 0
    visit = Visit(browser, limited)
    try:
        for number in range(3):
            visit.send("x")
            expect(visit.page.locator(".tile")).to_have_count(number + 1)
            if number < 2:
                visit.pictures(number + 1)
        expect(visit.page.locator("#message")).to_contain_text(re.compile(r"You can go on in \d+ s"))
        expect(visit.page.get_by_role("button", name="Make pictures")).to_be_disabled()
    finally:
        visit.close("429")
        limited.run("stop.sh")


def test_a_token_is_asked_for_only_where_one_is_needed(browser: Browser, tmp_path: Path) -> None:
    """A service with tokens: the field appears, a token opens, and it is kept for the session alone."""
    closed = Service(tmp_path, workers=1, access_tokens=TOKEN)
    assert closed.run("start.sh", "--demo").returncode == 0
    closed.token = TOKEN
    visit = Visit(browser, closed)
    try:
        visit.page.get_by_label("Access token").fill("wrong")
        visit.send("x")
        expect(visit.page.locator("#message")).to_contain_text("An access token is needed")
        visit.page.get_by_label("Access token").fill(TOKEN)
        visit.send("y")
        visit.pictures(1)
        kept = visit.page.evaluate("[sessionStorage.getItem('token'), JSON.stringify(localStorage), document.cookie]")
    finally:
        visit.close("401")
        closed.run("stop.sh")

    assert kept[0] == TOKEN
    assert TOKEN not in kept[1]
    assert kept[2] == ""


def test_the_language_is_the_browsers_and_can_be_switched(browser: Browser, service: Service) -> None:
    """Chinese for a Chinese browser, English at a click, and so it stays."""
    visit = Visit(browser, service, locale="zh-CN")
    expect(visit.page.get_by_role("button", name="生成图片")).to_be_visible()
    visit.page.get_by_role("button", name="English").click()
    visit.page.reload()
    expect(visit.page.get_by_role("button", name="Make pictures")).to_be_visible()
    visit.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_everybody_can_use_it(browser: Browser, service: Service, width: int, scheme: str) -> None:
    """At a phone's width and a desk's, light and dark: no violation that axe-core knows, nothing wider than the screen."""
    visit = Visit(browser, service, viewport={"width": width, "height": 800}, color_scheme=scheme)
    visit.send("An accessible banana")
    visit.pictures(1)
    found = Axe().run(visit.page)
    wide = visit.page.evaluate("document.documentElement.scrollWidth")
    visit.page.locator(".frame button").first.click()
    found_in_view = Axe().run(visit.page)
    visit.close()

    assert found.violations_count == 0, found.generate_report()
    assert found_in_view.violations_count == 0, found_in_view.generate_report()
    assert wide <= width


def test_the_documentation_works_offline(browser: Browser, service: Service) -> None:
    """/docs lists the routes with nothing from another host."""
    visit = Visit(browser, service)
    visit.page.goto(f"{service.address}/docs")
    expect(visit.page.get_by_text("/generate").first).to_be_visible()
    visit.close()


FOREIGN_PAGE = """<!doctype html><title>another site</title><script>
const target = "TARGET/generate";
const body = JSON.stringify({prompt: "spend"});
async function attack() {
  const results = {};
  const attempt = async (name, make) => { try { results[name] = String(await make()); } catch (error) { results[name] = "refused"; } };
  await attempt("text", async () => (await fetch(target, {method: "POST", mode: "no-cors", body})).type);
  await attempt("json", async () => (await fetch(target, {method: "POST", headers: {"Content-Type": "application/json"}, body})).status);
  await attempt("read", async () => (await fetch(target, {method: "POST", body})).status);
  await attempt("beacon", async () => navigator.sendBeacon(target, body));
  const form = new FormData(); form.set("prompt", "spend");
  await attempt("form", async () => (await fetch(target, {method: "POST", mode: "no-cors", body: form})).type);
  await attempt("metrics", async () => (await fetch("TARGET/metrics")).status);
  return results;
}
</script><form id="form" method="post" enctype="text/plain" action="TARGET/generate"><input name='{"prompt":"spend","x":"' value='"}'></form>"""


@pytest.fixture
def elsewhere(service: Service, tmp_path: Path) -> Iterator[str]:
    """A page of another site: the same machine, another port, and another name."""
    (tmp_path / "index.html").write_text(FOREIGN_PAGE.replace("TARGET", service.address))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://another-site.localhost:{server.server_port}"
        server.shutdown()


def paid(service: Service) -> int:
    return sum(line["event"] == "upstream_attempt" for line in service.log())


def test_a_page_of_another_site_spends_nothing(browser: Browser, service: Service, elsewhere: str) -> None:
    """Fetches of every kind, a beacon and forms from another origin: 403 each, and Google is never called."""
    context = browser.new_context()
    page = context.new_page()
    before = paid(service)
    page.goto(elsewhere)
    results = page.evaluate("attack()")
    page.evaluate("document.getElementById('form').submit()")
    page.wait_for_url("**/generate")
    body = page.content()
    context.close()
    refused = [line for line in service.log() if line["event"] == "request" and line["status"] == 403]

    assert paid(service) == before
    assert "foreign_origin" in body
    assert len(refused) >= 5
    assert results["json"] == results["read"] == "refused"


def test_a_foreign_name_for_this_machine_spends_nothing(browser: Browser, service: Service) -> None:
    """DNS rebinding: a page whose own name was pointed at this machine is told which setting would allow it."""
    mapped = browser.browser_type.launch(
        executable_path=shutil.which("chromium"),
        args=["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP evil.example 127.0.0.1"],
    )
    page = mapped.new_page()
    before = paid(service)
    page.goto(f"http://evil.example:{service.port}/")
    shown = page.content()
    status = page.evaluate(
        """async () => (await fetch("/generate", {method: "POST", body: '{"prompt":"x"}'})).status"""
    )
    mapped.close()

    assert "PUBLIC_URL" in shown
    assert (status, paid(service)) == (403, before)


def test_a_named_origin_may_use_it(browser: Browser, tmp_path: Path) -> None:
    """CORS_ORIGINS: a program in another site's page makes a picture and chats, and reads both and their headers."""
    port = free_port()
    service = Service(tmp_path / "service", workers=1, cors_origins=f"http://app.localhost:{port}")
    assert service.run("start.sh", "--demo").returncode == 0
    (tmp_path / "index.html").write_text("<title>app</title>")
    with ThreadingHTTPServer(("127.0.0.1", port), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://app.localhost:{port}/index.html")
        result = page.evaluate(
            """async (target) => {
              const response = await fetch(target, {method: "POST", headers: {"Content-Type": "application/json",
                "X-Request-ID": "from-a-page"}, body: JSON.stringify({prompt: "x"})});
              const chat = await fetch(target.replace("/generate", "/v1/chat/completions"), {method: "POST",
                headers: {"Content-Type": "application/json", "Authorization": "Bearer any"},
                body: JSON.stringify({stream: true, messages: [{role: "user", content: "x"}]})});
              const chunks = (await chat.text()).split("\\n\\n").filter((chunk) => chunk.includes("data:image/jpeg"));
              return [response.status, response.headers.get("X-Request-ID"), (await response.json()).images.length,
                response.headers.get("X-Cost-USD") > 0.1, chunks.length];
            }""",
            f"{service.address}/generate",
        )
        page.close()
        server.shutdown()
    service.run("stop.sh")

    assert result == [200, "from-a-page", 1, True, 1]


def test_the_documentation_can_be_tried(browser: Browser, service: Service) -> None:
    """In /docs: Try it out, Execute, and the picture is there; nothing is asked of another host."""
    page = browser.new_page()
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(re.sub(r"^(\w+://[^/]*)?.*", r"\1", request.url)))
    page.goto(f"{service.address}/docs")
    operation = page.locator("#operations-images-generate")
    operation.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()

    expect(operation.locator(".live-responses-table tr.response .response-col_status").first).to_contain_text(
        "200", timeout=20_000
    )
    page.close()
    assert hosts <= {service.address, ""}
