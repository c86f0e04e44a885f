"""Chromium, a demo of the service, and a visit of its page."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.page.visit import Visit
from tests.services import Service

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        yield browser
        browser.close()


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
