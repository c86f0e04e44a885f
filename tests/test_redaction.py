"""What people look at holds no secret and forges no line."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from banana.app import create_app
from banana.logs import console_renderer, for_people
from banana.redaction import Redaction, printable
from standin.server import StandIn
from tests.conftest import KEY, client_of, settings_for
from tests.services import ROOT

TOKEN = "s3cret-token/of+alice"
EVIL = "a\nb\x1b[2J\u202ec\x85\u2028\x9b\x07"


def encoded(text: str, times: int) -> str:
    for _ in range(times):
        text = "".join(f"%{byte:02x}" for byte in text.encode())
    return text


@pytest.mark.parametrize("times", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "path",
    ["/v1beta/models/g?key={}:generateContent", "/v1beta/models/{}:generateContent", "/v1/images/tasks/{}", "/x&token={}/y",
     "/x;key={}", "/results/{}.png", "/a/access_token={}"],
)  # fmt: skip
def test_no_path_shows_a_token(path: str, times: int) -> None:
    """However often it is encoded, also where it stands for a model or an id."""
    shown = Redaction([TOKEN]).path(path.replace("{}", encoded(TOKEN, times)))

    assert TOKEN not in shown
    assert encoded(TOKEN, 1) not in shown
    assert "hidden" in shown


@pytest.mark.parametrize(
    "path",
    ["/generate", "/v1beta/models/my-key:generateContent", "/v1beta/models/g%2Fh:generateContent", "/results/ab.png"],
)
def test_other_paths_are_as_they_came(path: str) -> None:
    """Also where a word of it looks like one of a credential's."""
    assert Redaction([TOKEN]).path(path) == path


@pytest.mark.parametrize("hidden", ["AIza" + "x" * 35, "AQ." + "y" * 40])
def test_keys_of_google_are_known_by_their_look(hidden: str) -> None:
    """They may be a caller's own."""
    assert hidden not in Redaction().path(f"/v1beta/models/{hidden}:generateContent")


@pytest.mark.anyio
async def test_the_log_holds_no_token(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever shows it, wherever: authorized or not, on routes that are there and others."""
    app = create_app(settings_for(stand_in, access_tokens=f"alice:{TOKEN}", rate_limit_per_minute=1000))
    once = quote(TOKEN, safe="")
    async with client_of(app) as client:
        for token in (TOKEN, "another"):
            headers = {"Authorization": f"Bearer {token}", "X-Request-ID": TOKEN}
            for path in (f"/v1beta/models/g%3Fkey={once}:generateContent", f"/v1beta/models/{once}:generateContent",
                         f"/v1/images/tasks/{once}", f"/nowhere/{quote(once)}", "/generate"):  # fmt: skip
                await client.post(path, headers=headers, json={"prompt": "x", "model": KEY})
    seen = Path("logs/app.log").read_text(encoding="utf-8") + capsys.readouterr().err

    assert '"path":' in seen
    for secret in (TOKEN, once, KEY):
        assert secret not in seen


def test_what_is_not_printable_is_escaped() -> None:
    """Newlines, escapes, marks of direction; letters of any language stay."""
    assert printable(EVIL) == "a\\nb\\x1b[2J\\u202ec\\x85\\u2028\\x9b\\x07"
    assert printable("香蕉 für 2 €") == "香蕉 für 2 €"


@pytest.mark.parametrize(
    "name", ["path", "method", "user", "prompt", "model", "caller", "request_id", "code", "message", "event"]
)
def test_no_field_of_an_event_forges_a_line(name: str) -> None:
    """Whatever a caller or Google writes into it."""
    for event in ({"event": "request"}, {"event": "upstream_attempt"}, {"event": "odd", "level": "error"}):
        read = for_people(None, "", {"timestamp": "2026-01-01T00:00:00Z", **event, name: EVIL})
        line = console_renderer(colors=False)(None, "", read)
        assert line.isprintable()


def test_lines_of_others_are_shown_too(tmp_path: Path) -> None:
    """What is no event of ours, or no JSON, neither breaks the reader nor forges a line."""
    lines = [{"event": "request", "duration_ms": "long", "images_returned": [1], "cost_usd": None}, {"event": EVIL}, {}]
    given = "\n".join([*map(json.dumps, lines), "plain " + EVIL.replace("\n", ""), "[1]", ""])
    command = [sys.executable, "-m", "scripts.read_log", "-"]
    ran = subprocess.run(
        command, input=given, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.replace("\n", "").isprintable()


@pytest.mark.anyio
async def test_a_line_of_the_log_is_one_for_every_reader(client: httpx.AsyncClient) -> None:
    """U+0085 and U+2028 end lines for some."""
    await client.post(f"/nowhere/{quote(EVIL)}")
    text = Path("logs/app.log").read_text(encoding="utf-8")

    assert [json.loads(line) for line in text.splitlines()] == [json.loads(line) for line in text.split("\n") if line]
