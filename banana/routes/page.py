"""The page: a few static files, held in memory, under a policy that lets nothing else in.

It is a client of `/generate` and `/v1/models` like any other; the server keeps nothing of it.
"""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

FOLDER = Path(__file__).with_name("static")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, answered with 304: an update of the service is there at once.
    "Cache-Control": "no-cache",
}


def routes() -> list[BaseRoute]:
    """Return the page at `/`, and its parts under `/page/`."""
    files = [path for path in FOLDER.iterdir() if path.suffix in TYPES]
    return [Route("/" if path.name == "index.html" else f"/page/{path.name}", _file_handler(path)) for path in files]


def _file_handler(path: Path) -> Callable[[Request], Awaitable[Response]]:
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = HEADERS | {"ETag": etag}

    async def serve(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=TYPES[path.suffix], headers=headers)

    return serve
