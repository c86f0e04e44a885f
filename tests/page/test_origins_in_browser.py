"""What pages of other sites, and other programs' pages, may do; and /docs: in a real browser, Debian's Chromium."""

import re
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, expect

from tests.page.visit import Visit
from tests.patience import until
from tests.services import Service, free_port, needs

pytestmark = [pytest.mark.slow, needs("chromium")]


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


def refused(service: Service) -> int:
    return sum(line["event"] == "request" and line["status"] == 403 for line in service.log())


def test_a_page_of_another_site_spends_nothing(browser: Browser, service: Service, elsewhere: str) -> None:
    """Fetches of every kind, a beacon and forms from another origin: 403 each, and Google is never called."""
    context = browser.new_context()
    page = context.new_page()
    before, refused_before = paid(service), refused(service)
    page.goto(elsewhere)
    results = page.evaluate("attack()")
    page.evaluate("document.getElementById('form').submit()")
    page.wait_for_url("**/generate")
    body = page.content()
    # All seven, one of them a preflight: what is paid for has its line before that of its request.
    until(lambda: refused(service) >= refused_before + 7)
    context.close()

    assert paid(service) == before
    assert "foreign_origin" in body
    assert results["json"] == results["read"] == "refused"


def test_a_foreign_name_for_this_machine_spends_nothing(browser: Browser, service: Service) -> None:
    """DNS rebinding: a page whose own name was pointed at this machine is told which setting would allow it."""
    mapped = browser.browser_type.launch(
        executable_path=shutil.which("chromium"),
        args=["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP evil.example 127.0.0.1"],
    )
    page = mapped.new_page()
    before, refused_before = paid(service), refused(service)
    page.goto(f"http://evil.example:{service.port}/")
    shown = page.content()
    status = page.evaluate(
        """async () => (await fetch("/generate", {method: "POST", body: '{"prompt":"x"}'})).status"""
    )
    until(lambda: refused(service) >= refused_before + 2)
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

    expect(operation.locator(".live-responses-table tr.response .response-col_status").first).to_contain_text("200")
    page.close()
    assert hosts <= {service.address, ""}
