"""`python -m scripts.request_pictures`: what test_request.sh does; a client of the service, by its README alone."""

import base64
import json
import sys
import urllib.error
import urllib.request
from decimal import Decimal
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from banana.redaction import printable
from scripts.probe import address_of, open_url, read_settings

LINK_SECONDS = 30
LINE_CHARACTERS = 120
FOLDER = Path("test_pictures")
CLEAR = "\033[K" if sys.stdout.isatty() else ""
EXTENSIONS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp"}


def main() -> None:
    """Ask for health and two pictures; exit 1 with one line when anything is off."""
    settings = read_settings(demo=True)
    address = address_of(settings)
    print(f"Testing {address}")
    token = settings.access_tokens[0].rpartition(":")[2] if settings.access_tokens else ""
    health, headers = _json(f"{address}/health", None, token, 5)
    is_demo = "X-Demo" in headers
    if not isinstance(health, dict) or health.get("status") != "healthy":
        sys.exit(
            f"error: GET /health answered {_first_line(str(health))}, not healthy. Is it another program? See PORT in .env"
        )
    print("  GET  /health    status         healthy")
    timeout_seconds = settings.request_timeout_seconds + 10
    words = {"prompt": "A ripe banana floating in space"}
    costs: list[Decimal] = []
    if settings.keep_results_seconds:
        link = _image(address, words | {"response_format": "url"}, token, timeout_seconds, costs)
        # Before it is saved: whatever happens to the file, what was paid for is there.
        print(f"{CLEAR}  POST /generate  link           {link}")
        first = _linked(address, link)
    else:
        first = _decoded(_image(address, words, token, timeout_seconds, costs))
    print(f"{CLEAR}  POST /generate  text → image   {_save(first, 'from_words')}")
    edit = {"prompt": "The same banana at sunset", "image_base64": base64.b64encode(first).decode()}
    second = _decoded(_image(address, edit, token, timeout_seconds, costs))
    print(f"{CLEAR}  POST /generate  image → image  {_save(second, 'from_picture')}")
    billed = " (the demo: nothing is billed)" if is_demo else ""
    print(f"  2 images, {sum(costs):.3f} USD{billed}" if len(costs) == 2 else "  2 images; what they cost is not known")


def _image(address: str, body: dict[str, Any], token: str, timeout_seconds: float, costs: list[Decimal]) -> str:
    """Return the one image of an answer, as base64 or as a link; add what it cost to `costs`, where that is known."""
    if sys.stdout.isatty():  # gone again when the answer is there
        print(f"  asking for: {body['prompt']} …", end="\r", flush=True)
    answer, headers = _json(f"{address}/generate", body, token, timeout_seconds)
    costs += [Decimal(headers["X-Cost-USD"])] if "X-Cost-USD" in headers else []
    if not isinstance(answer, dict) or len(answer.get("images", [])) != 1:
        sys.exit(f"error: POST /generate should answer with one image, and answered {str(answer)[:200]}")
    image: str = answer["images"][0]
    return image


def _decoded(image: str) -> bytes:
    return base64.b64decode(image, validate=True)


def _linked(address: str, link: str) -> bytes:
    """Return the picture behind a link, from this machine: PUBLIC_URL may not be known to it."""
    if link.startswith("data:"):  # it could not be kept
        return _decoded(link.partition(",")[2])
    parts = urlsplit(link)
    try:
        with open_url(f"{address}{parts.path}?{parts.query}", LINK_SECONDS) as response:
            return response.read()
    except OSError as error:
        sys.exit(f"error: the link {link} does not work: {_reason(error)}")


def _json(url: str, body: dict[str, Any] | None, token: str, timeout_seconds: float) -> tuple[Any, Message]:
    """Return the JSON that a route answers with, and the headers; exits with one line when there is none."""
    data = json.dumps(body).encode() if body else None
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, data, headers)
    try:
        with open_url(request, timeout_seconds) as response:
            return json.load(response), response.headers
    except urllib.error.HTTPError as error:
        sys.exit(f"error: {url} answered {error.code}: {_message(error.read())}")
    except OSError as error:
        sys.exit(
            f"error: {url} does not answer: {_reason(error)}. Start the service with ./start.sh, or ./start.sh --demo"
        )
    except ValueError as error:
        sys.exit(f"error: {url} did not answer with JSON ({error}). Is it another program? See PORT in .env")
    except HTTPException as error:
        sys.exit(f"error: {url} does not speak HTTP ({type(error).__name__}). Is it another program? See PORT in .env")


def _reason(error: OSError) -> str:
    """Return what is wrong, without the wrapping of the library."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return (isinstance(reason, OSError) and reason.strerror) or str(reason)


def _message(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return _first_line(body.decode(errors="replace"))


def _first_line(text: str) -> str:
    """Return the first line of a text that says something, shortened: it may be a whole page of another program's."""
    line = next(filter(None, map(str.strip, text.splitlines())), "nothing")
    return printable(line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]}…")


def _save(picture: bytes, name: str) -> str:
    extension = next((ext for start, ext in EXTENSIONS.items() if picture.startswith(start)), None)
    if extension is None:
        sys.exit(f"error: the result is not an image; it begins with the bytes {picture[:8].hex(' ')}")
    path = FOLDER / f"{name}.{extension}"
    try:
        FOLDER.mkdir(exist_ok=True)
        path.write_bytes(picture)
    except OSError as error:
        return f"received ({len(picture) // 1024} KiB), but not saved in {path}: {error.strerror}"
    return f"{path.resolve()} ({len(picture) // 1024} KiB)"


if __name__ == "__main__":
    main()
