"""A studio: what is made is seen whole, newest first, and is where the next thing begins; over a real browser."""

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.page.visit import Visit
from tests.pictures import encoded, png
from tests.services import Service, needs

pytestmark = [pytest.mark.slow, needs("chromium")]
SHAPES = {"16:9": 16 / 9, "3:4": 3 / 4, "1:1": 1.0}


def test_pictures_are_whole_and_newest_first(visit: Visit) -> None:
    """Each tile has its picture's shape; the composer stays at the bottom of the window."""
    for ratio in SHAPES:
        visit.make(f"In {ratio}", ratio=ratio)
    boxes = [visit.tile(f"In {ratio}").bounding_box() for ratio in SHAPES]
    prompts = visit.page.locator(".tile .open").evaluate_all("nodes => nodes.map((node) => node.ariaLabel)")
    composer = visit.page.locator("#composer").bounding_box()

    assert prompts == ["Open: In 1:1", "Open: In 3:4", "Open: In 16:9"]
    for box, shape in zip(boxes, SHAPES.values(), strict=True):
        assert box is not None
        assert box["width"] / box["height"] == pytest.approx(shape, rel=0.02)
    assert composer is not None
    assert 720 - 40 < composer["y"] + composer["height"] <= 720


def test_a_pasted_picture_at_night_then_wider_then_the_second_again(visit: Visit) -> None:
    """Each edit starts from the picture before it; the chain is shown; the settings of any of them are used again."""
    visit.paste(png("skyblue", (320, 200)))
    expect(visit.page.locator("#inputs img")).to_have_count(1)
    visit.make("Make it night")
    visit.tile("Make it night").hover()
    visit.tile("Make it night").get_by_role("button", name="Edit").click()
    expect(visit.page.locator("#inputs-text")).to_have_text("Editing this image")
    expect(visit.page.locator("#prompt")).to_be_focused()
    visit.make("Wider", ratio="21:9")
    visit.open("Wider")
    expect(visit.page.locator("#chain li")).to_have_count(2)
    expect(visit.page.locator("#chain [aria-current]")).to_have_attribute("aria-label", "Wider")
    visit.page.locator("#compare").click()
    expect(visit.page.locator("#before")).to_be_visible()
    visit.page.locator("#slider").fill("80")
    visit.page.locator("#chain li button").first.click()
    expect(visit.page.locator("#viewer-prompt")).to_have_text("Make it night")
    visit.page.locator("#viewer").get_by_role("button", name="Use settings").click()
    expect(visit.page.locator("#viewer")).to_be_hidden()
    expect(visit.page.locator("#prompt")).to_have_value("Make it night")
    expect(visit.page.locator("#inputs img")).to_have_count(1)
    visit.page.locator("#send").click()
    visit.has(3)


def test_what_can_be_done_with_a_picture(visit: Visit) -> None:
    """Make a variation, use as a reference, favourite, and copy it to the clipboard; a link that another browser opens."""
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.make("A boat")
    visit.choose("Variation", "A boat")
    expect(visit.page.locator("#prompt")).to_have_value(re.compile("Another version of this image"))
    visit.page.locator("#inputs button").click()
    visit.choose("Use as reference", "A boat")
    expect(visit.page.locator("#inputs-text")).to_have_text("1 reference image")
    visit.choose("Favourite", "A boat")
    expect(visit.tile("A boat").get_by_role("button", name="Remove from favourites")).to_be_visible()
    visit.choose("Copy image", "A boat")
    expect(visit.page.locator("#toasts")).to_contain_text("Image copied.")
    kinds = visit.page.evaluate("navigator.clipboard.read().then((items) => items[0].types)")
    visit.choose("Copy link", "A boat")
    expect(visit.page.locator("#toasts")).to_contain_text("Link copied.")
    link = visit.page.evaluate("navigator.clipboard.readText()")
    seen = visit.context.request.get(link)

    assert kinds == ["image/png"]
    assert seen.headers["content-type"] == "image/jpeg"


def test_the_truth_about_a_picture(visit: Visit) -> None:
    """Model, pixels, bytes, time, cost, tokens, date, request; what was asked stands beside what differs."""
    visit.make("The truth", model="gemini-3.1-flash-image", size="512", ratio="16:9")
    visit.open("The truth")
    facts = visit.page.locator("#facts")
    for fact in (
        "gemini-3.1-flash-image",
        "688 × 384",
        "JPEG, ",
        "0.",
        "747 image · 225 thinking · 8 input",
        "kept until",
    ):
        expect(facts).to_contain_text(fact)
    expect(facts).to_contain_text(re.compile(r"Cost\s*\$0\.0\d+"))
    expect(facts).not_to_contain_text("asked")
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    facts.get_by_role("button", name=re.compile("Copy [0-9a-f]{32}")).click()
    copied = visit.page.evaluate("navigator.clipboard.readText()")

    assert visit.service.logged(lambda line: line.get("request_id") == copied)


def test_the_price_before_and_the_sum_after(visit: Visit) -> None:
    """By model, size and number; only the shapes and sizes that the model makes are offered."""
    price, page = visit.page.locator("#price"), visit.page
    expect(price).to_have_text("about $0.134")
    page.locator("#count").select_option("2")
    page.locator("#size").select_option("4K")
    expect(price).to_have_text("about $0.48")
    page.locator("#model").select_option("gemini-3.1-flash-lite-image")
    expect(page.locator("#size option")).to_have_text(["1K (auto)", "1K"])
    expect(page.locator("#ratio option")).to_have_count(11)
    page.locator("#model").select_option("gemini-nano-banana-2.1")
    expect(page.locator("#ratio option")).to_have_count(15)
    page.locator("#model").select_option("")
    page.locator("#count").select_option("1")
    visit.make("What it cost")
    expect(page.locator("#spent")).to_have_text("Session $0.14")
    visit.reload()
    expect(page.locator("#spent")).to_have_text("Session $0.14")


def test_prices_that_are_not_known_are_told(visit: Visit) -> None:
    """Google does not list its models at the moment; images can be made all the same."""
    visit.page.route(
        "**/v1/models", lambda route: route.fulfill(status=502, json={"error": {"code": "upstream_error"}})
    )
    visit.page.reload()

    expect(visit.page.locator("#price")).to_have_text("Prices are not known at the moment")
    expect(visit.page.locator("#send")).to_be_enabled()
    visit.complaints[:] = [text for text in visit.complaints if "502" not in text]  # Chromium's own


@pytest.mark.parametrize("language", ["curl", "Python, OpenAI", "Python, Google"])
def test_the_code_makes_it_again(visit: Visit, tmp_path: Path, language: str) -> None:
    """As it stands, in a folder that has the pictures it starts from: the same shape and size come out."""
    visit.paste(png("skyblue", (320, 200)), 'odd "name".png' if language == "curl" else "odd name.png")
    prompt = 'It\'s "night" in $HOME\n@ 100 %'
    visit.page.locator("#prompt").fill(prompt)
    visit.page.locator("#ratio").select_option("16:9")
    visit.page.locator("#size").select_option("2K")
    visit.page.locator("#send").click()
    visit.has(1)
    visit.page.locator(".tile .open").click()
    visit.page.get_by_role("tab", name=language).click()
    code = visit.page.locator("#code code").inner_text()
    for name in ('odd "name".png', "odd name.png"):
        (tmp_path / name).write_bytes(png("skyblue", (320, 200)))
    command = ["bash", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode == 0, ran.stderr
    with Image.open(tmp_path / "picture.jpg") as picture:
        assert picture.size == (2736, 1536)


def test_the_viewer_by_keys_wheel_and_swipe(visit: Visit) -> None:
    """Previous and next, closer and back, moved by dragging; a long prompt never pushes the picture away."""
    visit.make("First")
    visit.make("A long prompt " + "word " * 600)
    page = visit.page
    page.locator(".tile .open").first.click()
    image, words = page.locator("#image"), page.locator("#viewer-prompt")
    expect(words).to_contain_text("A long prompt")
    box = image.bounding_box()
    assert box is not None
    assert box["height"] > 400
    page.keyboard.press("ArrowRight")
    expect(words).to_have_text("First")
    expect(page.locator("#next")).to_be_disabled()
    expect(page.locator("#place")).to_have_text("2 of 2")
    page.keyboard.press("+")
    expect(page.locator("#stage")).to_have_class(re.compile("zoomed"))
    before = image.evaluate("node => node.style.transform")
    page.mouse.move(400, 300)
    page.mouse.down()
    page.mouse.move(340, 280)
    page.mouse.up()
    assert image.evaluate("node => node.style.transform") != before
    page.keyboard.press("0")
    expect(page.locator("#stage")).not_to_have_class(re.compile("zoomed"))
    page.mouse.move(300, 300)
    page.mouse.wheel(0, -300)
    expect(page.locator("#stage")).to_have_class(re.compile("zoomed"))
    page.keyboard.press("0")
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(420, 305)
    page.mouse.up()
    expect(words).to_contain_text("A long prompt")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()


def test_deleting_can_be_undone_and_several_are_a_zip(visit: Visit) -> None:
    """Chosen one by one and in a range; the ZIP is one that others read; what is deleted for good is gone at the service too."""
    for prompt in ("One", "Two", "Three"):
        visit.make(prompt)
    page = visit.page
    visit.tile("Three").hover()
    visit.tile("Three").get_by_role("button", name="Select").click()
    visit.tile("One").locator(".open").click(modifiers=["Shift"])
    expect(page.locator("#chosen-text")).to_have_text("3 selected")
    saved = visit.download(lambda: page.locator("#chosen-zip").click())
    page.locator("#chosen-delete").click()
    expect(page.locator("#welcome")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    visit.has(3)
    visit.choose("Delete", "Two")
    visit.has(2)
    page.locator("#toasts").get_by_role("button", name="Close").click()
    visit.until("fetch('/v1/images/tasks').then((r) => r.json()).then(({data}) => data.length >= 2)")
    visit.reload()
    visit.has(2)

    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 3
        assert all(Image.open(io.BytesIO(archive.read(name))).format == "JPEG" for name in archive.namelist())


def test_the_history_is_searched_filtered_exported_and_imported(visit: Visit, browser: Browser) -> None:
    """In another browser it is all there: prompts, settings, favourites, and the picture that one started from."""
    visit.make("A red boat")
    visit.make("A blue boat", model="gemini-3.1-flash-lite-image")
    visit.choose("Favourite", "A red boat")
    page = visit.page
    page.locator("#search").fill("BLUE boat")
    visit.has(1)
    page.locator("#search").fill("")
    page.locator("#favourites").click()
    expect(visit.tile("A red boat")).to_be_visible()
    visit.has(1)
    page.locator("#favourites").click()
    page.locator("#filter-model").select_option("gemini-3.1-flash-lite-image")
    expect(visit.tile("A blue boat")).to_be_visible()
    visit.has(1)
    page.locator("#search").fill("nothing like this")
    page.locator("#clear-filter").click()
    visit.has(2)
    visit.paste(png())
    visit.make("From a picture")

    def export() -> None:
        page.locator("#menu").click()
        page.get_by_role("menuitem", name="Export everything").click()

    saved = visit.download(export)
    other = Visit(browser, visit.service)
    bring(other, saved)
    other.has(3)
    bring(other, saved)
    expect(other.page.locator("#toasts")).to_contain_text("0 images imported.")
    expect(other.tile("A red boat").get_by_role("button", name="Remove from favourites")).to_be_visible()
    other.choose("Use settings", "From a picture")
    expect(other.page.locator("#inputs img")).to_have_count(1)
    bring(other, {"name": "x.zip", "mimeType": "application/zip", "buffer": b"no"})
    expect(other.page.locator("#toasts")).to_contain_text("This file is not an export of this page.")
    bring(other, hostile(saved))
    expect(other.page.locator("#toasts")).to_contain_text("1 image imported.")
    other.reload()
    other.has(4)
    other.open("Odd")
    other.page.keyboard.press("Escape")
    other.close()

    with zipfile.ZipFile(saved) as archive:
        index = json.loads(archive.read("pictures.json"))
    assert {item["prompt"] for item in index["items"]} == {"A red boat", "A blue boat", "From a picture"}


def hostile(export: Path) -> dict[str, Any]:
    """An export that somebody else changed: of the wrong kinds are facts that are needed, and others."""
    made = io.BytesIO()
    with zipfile.ZipFile(export) as good, zipfile.ZipFile(made, "w") as bad:
        index = json.loads(good.read("pictures.json"))
        one = index["items"][0]
        bad.writestr(one["file"], good.read(one["file"]))
        odd = {"ratio": 7, "size": [], "cost": "<b>", "usage": {"output_tokens": {}}, "inputs": [None, {"id": 1}]}
        index["items"] = [
            None,
            one | {"id": "a", "prompt": None},
            one | {"id": "b", "asked": "yesterday"},
            one | {"id": "c", "made": 1e300},
            one | {"id": "d", "file": "not there"},
            one
            | odd
            | {"id": "e", "prompt": "Odd", "batch": None, "state": "waiting", "deleted": 1, "type": "text/html"},
        ]
        bad.writestr("pictures.json", json.dumps(index))
    return {"name": "x.zip", "mimeType": "application/zip", "buffer": made.getvalue()}


def bring(visit: Visit, file: Any) -> None:
    """Import a file as a person does."""
    visit.page.locator("#menu").click()
    with visit.page.expect_file_chooser() as choosing:
        visit.page.get_by_role("menuitem", name="Import").click()
    choosing.value.set_files(file)


def test_two_thousand_pictures(visit: Visit) -> None:
    """Only what is seen is in the page; it scrolls to the last, searches at once, and room is made in one step."""
    page = visit.page
    visit.make("The newest")
    page.evaluate(
        """async () => {
            const opened = indexedDB.open("banana-service");
            const database = await new Promise((resolve) => { opened.onsuccess = () => resolve(opened.result); });
            const canvas = Object.assign(document.createElement("canvas"), {width: 160, height: 90});
            canvas.getContext("2d").fillRect(0, 0, 160, 90);
            const thumb = await new Promise((resolve) => canvas.toBlob(resolve));
            const transaction = database.transaction(["items", "blobs", "thumbs"], "readwrite");
            for (let n = 0; n < 2000; n++) {
                const made = Date.now() - 3600e3 * (n + 1), id = `old-${n}`;
                transaction.objectStore("items").put({id, batch: id, asked: made, index: 0, state: "done", made,
                    prompt: `Old ${n}`, ratio: "", size: "", model: "", inputs: [], width: [160, 90, 90][n % 3],
                    height: [90, 160, 90][n % 3], bytes: thumb.size, type: "image/png", seconds: 4, favourite: n === 7});
                transaction.objectStore("blobs").put(thumb, id);
                transaction.objectStore("thumbs").put(thumb, id);
            }
            await new Promise((resolve) => { transaction.oncomplete = resolve; });
            database.close();
        }"""
    )
    visit.reload()
    expect(page.locator(".tile.done img").first).to_be_visible()
    assert page.locator(".tile").count() < 100
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(visit.tile("Old 1999")).to_be_in_viewport()
    assert page.locator(".tile").count() < 100
    page.evaluate("scrollTo(0, 0)")
    page.locator("#search").fill("old 1234")
    visit.has(1)
    page.locator("#search").fill("")
    page.locator("#menu").click()
    page.get_by_role("menuitem", name="Storage").click()
    expect(page.locator("dialog.small")).to_contain_text("2,001 images.")
    page.get_by_role("button", name=re.compile("Delete all except favourites")).click()
    visit.has(1)
    expect(page.locator("#toasts")).to_contain_text("2,000 images deleted.")
    page.get_by_role("button", name="Undo").click()
    expect(visit.tile("The newest")).to_be_visible()


def test_the_history_of_the_first_version_is_taken_over(browser: Browser, service: Service) -> None:
    """What the page kept before is there after an update, with the pictures it started from."""
    visit = Visit(browser, service)
    page = visit.page
    page.goto(f"{service.address}/health")
    page.evaluate(
        """async (base64) => {
            await new Promise((resolve) => { indexedDB.deleteDatabase("banana-service").onsuccess = resolve; });
            const opened = indexedDB.open("banana-service", 1);
            opened.onupgradeneeded = () => opened.result.createObjectStore("pictures", {keyPath: "id", autoIncrement: true});
            const database = await new Promise((resolve) => { opened.onsuccess = () => resolve(opened.result); });
            const blob = new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], {type: "image/png"});
            const transaction = database.transaction("pictures", "readwrite");
            transaction.objectStore("pictures").add({prompt: "From before", pictures: [new File([blob], "a.png", {type: "image/png"})],
                ratio: "", size: "", model: "", blob, cost: 0.1, seconds: 3, made: Date.now()});
            await new Promise((resolve) => { transaction.oncomplete = resolve; });
            database.close();
        }""",
        encoded(png(size=(64, 48))),
    )
    page.goto(service.address)
    visit.has(1)
    visit.choose("Use settings", "From before")
    expect(page.locator("#inputs img")).to_have_count(1)
    visit.close("404")
