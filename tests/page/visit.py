"""A visit of the page in a real browser."""

import base64
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from tests.patience import until
from tests.services import Service

# A machine that is busy with something else takes its time.
PATIENCE_MILLISECONDS = 30_000
expect.set_options(timeout=PATIENCE_MILLISECONDS)


class Visit:
    """One visit of the page; at its end nothing was wrong in the console and no other host was asked."""

    def __init__(self, browser: Browser, service: Service, **options: Any) -> None:
        self.context = browser.new_context(**({"locale": "en-US"} | options))
        self.service = service
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page = self.tab()

    def tab(self, **wait: Any) -> Page:
        """Open the page in another tab."""
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE_MILLISECONDS)
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.hosts.add(re.sub(r"^(\w+://[^/]*)?.*", r"\1", request.url)))
        page.goto(self.service.address)
        self.ready(page)
        return page

    def ready(self, page: Page) -> None:
        """Wait until the page has its history."""
        expect(page.locator("#gallery")).to_have_attribute("aria-busy", "false")

    def until(self, script: str, argument: Any = None) -> None:
        """Wait until a script, which may wait itself, gives what is true."""
        deadline = time.monotonic() + PATIENCE_MILLISECONDS / 1000
        while not self.page.evaluate(script, argument):
            assert time.monotonic() < deadline, script
            self.page.wait_for_timeout(100)

    def reload(self) -> None:
        self.page.reload()
        self.ready(self.page)

    def send(self, prompt: str, count: int = 1, **settings: str) -> None:
        """Ask for pictures as a person does; `settings` are ratio, size and model."""
        page = self.page
        page.locator("#prompt").fill(prompt)
        for name, value in ({"count": str(count)} | settings).items():
            page.locator(f"#{name}").select_option(value)
        page.locator("#send").click()
        expect(page.locator("#prompt")).to_have_value("")

    def make(self, prompt: str, count: int = 1, **settings: str) -> None:
        """Ask for pictures, and wait for them."""
        before = self.page.locator(".tile.done").count()
        self.send(prompt, count, **settings)
        self.has(before + count)

    def has(self, count: int) -> None:
        expect(self.page.locator(".tile.done img")).to_have_count(count)

    def tile(self, prompt: str) -> Locator:
        return self.page.locator(".tile.done", has=self.page.get_by_role("button", name=f"Open: {prompt}", exact=True))

    def open(self, prompt: str) -> None:
        """Look at a picture closely."""
        self.tile(prompt).first.locator(".open").click()
        expect(self.page.locator("#image")).to_have_js_property("complete", True)
        expect(self.page.locator("#viewer-prompt")).to_have_text(prompt)

    def choose(self, entry: str, prompt: str) -> None:
        """Choose an entry of a tile's menu."""
        tile = self.tile(prompt).first
        tile.hover()
        tile.get_by_role("button", name="More").click()
        self.page.get_by_role("menuitem", name=entry).click()

    def paste(self, picture: bytes, name: str = "red.png", way: str = "paste") -> None:
        """Paste or drop a picture."""
        self.page.evaluate(
            """([way, name, base64]) => {
                const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], name, {type: "image/png"}));
                const event = way === "drop"
                    ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
                    : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true});
                document.body.dispatchEvent(event);
            }""",
            [way, name, base64.b64encode(picture).decode()],
        )

    def download(self, act: Any) -> Path:
        with self.page.expect_download() as downloading:
            act()
        return Path(downloading.value.path())

    def calls(self) -> int:
        """How many calls to Google the service made."""
        return sum(line["event"] == "upstream_attempt" and bool(line["model"]) for line in self.service.log())

    def has_called(self, count: int) -> None:
        """In all the service made so many calls, and no more: each has its line when it has ended."""
        until(lambda: self.calls() >= count and not self._is_calling())
        assert self.calls() == count

    def _is_calling(self) -> bool:
        with urllib.request.urlopen(f"{self.service.address}/metrics", timeout=20) as response:
            return b"\nbanana_upstream_in_flight 0.0\n" not in response.read()

    def close(self, *allowed: str) -> None:
        self.context.close()
        wrong = [text for text in self.complaints if not any(word in text for word in allowed)]
        assert not wrong, wrong
        # Chromium asks for blobs and data under their own schemes, which are no hosts.
        assert {host for host in self.hosts if host} <= {self.service.address}
