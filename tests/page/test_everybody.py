"""The page for everybody: the first visit, keys and screen readers, small windows, both languages, plain http."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, expect

from tests.page.conftest import ARGUMENTS
from tests.page.visit import Visit
from tests.pictures import png
from tests.services import Service, free_port, needs

pytestmark = [pytest.mark.slow, needs("chromium")]
TOKEN = "page-token"


def test_the_first_visit_has_examples_to_click(visit: Visit) -> None:
    """Each fills the composer with words and a shape; the demo draws pictures that differ."""
    expect(visit.page.locator("#demo-hint")).to_contain_text("Nothing is billed")
    prompts = visit.page.locator("[data-example]").all_inner_texts()
    sizes = set()
    for number, prompt in enumerate(prompts):
        visit.page.locator("[data-example]").nth(number).click() if number == 0 else None
        visit.page.locator("#prompt").fill(prompt)
        visit.page.keyboard.press("Enter")
        visit.has(number + 1)
        visit.open(prompt)
        sizes.add(visit.page.locator("#facts").inner_text().partition("File")[2][:20])
        visit.page.keyboard.press("Escape")

    assert len(prompts) == len(sizes) == 3
    expect(visit.page.locator("#welcome")).to_be_hidden()


@pytest.mark.parametrize("way", ["choice", "drop", "paste"])
def test_a_picture_goes_along(visit: Visit, way: str) -> None:
    """A picture that is chosen, dropped or pasted is shown, sent, and can be taken away; what is none is refused."""
    page = visit.page
    if way == "choice":
        page.locator("#files").set_input_files(
            {"name": "red.png", "mimeType": "image/png", "buffer": png(size=(40, 30))}
        )
    else:
        visit.paste(png(size=(40, 30)), way=way)
    expect(page.locator("#inputs img")).to_have_count(1)
    page.locator("#files").set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"x"})
    expect(page.locator("#message")).to_contain_text("notes.txt is not a PNG")
    page.get_by_role("button", name="Remove red.png").click()
    expect(page.locator("#inputs img")).to_have_count(0)
    visit.paste(png(size=(40, 30)))
    expect(page.locator("#inputs img")).to_have_count(1)
    visit.make("Like this")
    expect(page.locator("#inputs img")).to_have_count(0)


def test_an_empty_prompt_is_asked_for(visit: Visit) -> None:
    """Nothing is sent without words."""
    visit.page.locator("#send").click()
    expect(visit.page.locator("#message")).to_have_text("Describe the image you want.")
    expect(visit.page.locator("#prompt")).to_be_focused()


def test_words_that_are_being_composed_are_not_sent(visit: Visit) -> None:
    """Enter that ends an input method's choice is no sending; Shift+Enter is a new line; ↑ brings the last words back."""
    page = visit.page
    page.locator("#prompt").fill("xiang")
    page.locator("#prompt").dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True})
    page.locator("#prompt").dispatch_event("keydown", {"key": "Enter", "keyCode": 229, "bubbles": True})
    page.keyboard.press("Shift+Enter")
    expect(page.locator("#prompt")).to_have_value("xiang\n")
    expect(page.locator(".tile")).to_have_count(0)
    page.keyboard.press("Enter")
    visit.has(1)
    page.locator("#prompt").press("ArrowUp")
    expect(page.locator("#prompt")).to_have_value("xiang")


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Service]:
    """A service that asks for tokens."""
    made = Service(tmp_path, workers=1, access_tokens=f"ann:{TOKEN}", budgets="ann=5/day")
    assert made.run("start.sh", "--demo").returncode == 0
    yield made
    made.run("stop.sh")


def test_a_token_is_asked_for_once(browser: Browser, closed: Service) -> None:
    """Nicely, at the first visit; what is asked for without one waits for it; a wrong one is said to be wrong; it can be changed."""
    visit = Visit(browser, closed)
    page = visit.page
    dialog = page.locator("dialog.small")
    expect(dialog).to_contain_text("This service requires an access token.")
    dialog.get_by_role("button", name="Not now").click()
    visit.send("Asked without a token", 2)
    expect(page.locator("dialog.small")).to_have_count(1)
    dialog.get_by_label("Access token").fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("This token is not valid.")
    dialog.get_by_label("Access token").fill(TOKEN)
    dialog.get_by_role("button", name="Use token").click()
    visit.has(2)
    expect(page.locator("#price")).to_contain_text("about $0.")
    page.locator("#spent").click()
    expect(dialog).to_contain_text(re.compile(r"Budget left: \$4\.\d\d of \$5\.00"))
    dialog.get_by_role("button", name="Close").click()
    page.locator("#menu").click()
    page.get_by_role("menuitem", name="Access token").click()
    expect(dialog.get_by_label("Access token")).to_have_value(TOKEN)
    kept = page.evaluate("[sessionStorage.getItem('token'), JSON.stringify(localStorage), document.cookie]")
    visit.close("401")

    assert kept[0] == TOKEN
    assert TOKEN not in kept[1]
    assert kept[2] == ""


CHINESE = re.compile("[\u4e00-\u9fff]")
NAMES = """() => [...document.querySelectorAll("button, a, label, option, h1, h2, p, dt, span, [aria-label], [title], [placeholder]")]
    .filter((node) => node.checkVisibility())
    .flatMap((node) => [node.ariaLabel, node.title, node.placeholder, ...[...node.childNodes].filter((child) => child.nodeType === 3).map((child) => child.data)])
    .filter((text) => text?.trim())"""


def test_the_language_is_switched_to_the_last_label(browser: Browser, service: Service) -> None:
    """Chinese for a Chinese browser; at a click English, also what was there before; and so it stays."""
    visit = Visit(browser, service, locale="zh-CN")
    page = visit.page
    expect(page.get_by_role("button", name="生成", exact=True)).to_be_visible()
    visit.make("boat")
    visit.send("[fault:image-safety]")
    expect(page.locator(".tile.failed")).to_contain_text("被 Google 内容政策拦截。")
    chinese = page.evaluate(NAMES)
    page.get_by_role("button", name="English").click()
    expect(page.locator(".tile.failed")).to_contain_text("Blocked by Google's content policy.")
    english = page.evaluate(NAMES)
    visit.open("boat")
    in_viewer = page.evaluate(NAMES)
    page.keyboard.press("Escape")
    visit.reload()
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_visible()
    visit.close()

    neutral = {
        "boat",
        "BananaService",
        "[fault:image-safety]",
        "gemini",
        "16:9",
        "×",
        "$",
        "English",
        "⋯",
        "K",
        "512",
        ":",
        "DEMO",
    }
    assert [text for text in chinese if not CHINESE.search(text) and not any(word in text for word in neutral)] == []
    assert [text for text in [*english, *in_viewer] if CHINESE.search(text) and text != "中文"] == []


NOTHING_RUNS = """async () => (await (await fetch("/v1/images/tasks?limit=100")).json()).data
    .every(({status}) => status !== "processing")"""


def violations(visit: Visit) -> str:
    found = Axe().run(visit.page)
    return found.generate_report() if found.violations_count else ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1024, 1440])
def test_everybody_can_use_it(browser: Browser, service: Service, width: int, scheme: str) -> None:
    """From a small phone to a desk: no violation that axe-core knows, nothing wider than the window, in every state."""
    options: dict[str, Any] = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    visit = Visit(browser, service, reduced_motion="reduce", **options)
    page, found = visit.page, []
    found.append(violations(visit))
    visit.make("An accessible banana", ratio="16:9")
    visit.send("[fault:image-safety]", 2)
    expect(page.locator(".tile.failed")).to_have_count(1)
    visit.send("[fault:hang]")
    expect(page.locator(".tile.waiting")).to_have_count(1)
    visit.paste(png())
    expect(page.locator("#inputs img")).to_have_count(1)
    found.append(violations(visit))
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.locator("#menu").click()
    found.append(violations(visit))
    page.get_by_role("menuitem", name="Storage").click()
    expect(page.locator("dialog.small")).to_be_visible()
    found.append(violations(visit))
    page.keyboard.press("Escape")
    visit.open("An accessible banana")
    found.append(violations(visit))
    in_view = page.evaluate("document.querySelector('#viewer').scrollWidth")
    page.keyboard.press("Escape")
    page.locator(".tile.waiting").get_by_role("button", name="Cancel").click()
    visit.until(NOTHING_RUNS)
    visit.close()

    assert found == [""] * 5
    assert wide <= width
    assert in_view <= width


def test_it_works_by_keys_alone(visit: Visit) -> None:
    """Words, Enter; the gallery by arrows; a tile's own buttons by Tab; its menu; the picture, and back where one was."""
    page = visit.page
    page.keyboard.type("First")
    page.keyboard.press("Enter")
    visit.has(1)
    page.keyboard.type("Second")
    page.keyboard.press("Enter")
    visit.has(2)
    first, second = (visit.tile(name).locator(".open") for name in ("First", "Second"))
    second.focus()
    page.keyboard.press("ArrowRight")
    expect(first).to_be_focused()
    page.keyboard.press("Home")
    expect(second).to_be_focused()
    page.keyboard.press("Tab")
    expect(visit.tile("Second").get_by_role("button", name="Select")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(visit.tile("Second").get_by_role("button", name="Remove from favourites")).to_be_focused()
    more = visit.tile("Second").get_by_role("button", name="More")
    more.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem").first).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    expect(more).to_be_focused()
    second.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-prompt")).to_have_text("First")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    page.locator("#prompt").blur()
    page.keyboard.press("/")
    expect(page.locator("#prompt")).to_be_focused()
    expect(page.locator("#status")).to_have_text("Image ready: Second")


def test_it_works_on_plain_http(browser: Browser, tmp_path: Path) -> None:
    """Another machine's name without TLS: no clipboard for pages, no locks, no unique ids; copying works another way."""
    port = free_port()
    service = Service(tmp_path, workers=1)
    service.set(port=port, workers=1, public_url=f"http://studio.example:{port}")
    service.port = port
    assert service.run("start.sh", "--demo").returncode == 0
    mapped = browser.browser_type.launch(
        executable_path=shutil.which("chromium"),
        args=[*ARGUMENTS, "--host-resolver-rules=MAP studio.example 127.0.0.1"],
    )
    page = mapped.new_page()
    page.goto(f"http://studio.example:{port}/")
    assert page.evaluate("isSecureContext || Boolean(navigator.clipboard)") is False
    page.locator("#prompt").fill("Plain")
    page.locator("#count").select_option("2")
    page.locator("#send").click()
    expect(page.locator(".tile.done img")).to_have_count(2)
    page.locator(".tile .open").first.click()
    page.get_by_role("button", name="Copy code").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.get_by_role("button", name="Copy image").click()
    expect(page.locator(".viewer .toasts")).to_contain_text("Image copied.")
    page.keyboard.press("Escape")
    page.locator("#prompt").evaluate(
        "(node) => node.insertAdjacentHTML('afterend', '<div id=here contenteditable>.</div>')"
    )
    page.locator("#here").click()
    page.keyboard.press("Control+V")
    expect(page.locator("#here img")).to_have_attribute("src", re.compile("^data:image/jpeg"))
    page.locator(".tile .open").first.click()
    page.get_by_role("button", name="Copy code").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("#here").evaluate("(node) => node.remove()")
    page.locator("#prompt").click()
    page.keyboard.press("Control+V")
    expect(page.locator("#prompt")).to_have_value(re.compile("^curl http://studio.example"))
    mapped.close()
    service.run("stop.sh")
