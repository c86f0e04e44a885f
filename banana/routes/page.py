"""The page: a few static files, held in memory, under a policy that lets nothing else in.

It is a client of `/generate`, of its tasks and of `/v1/models` like any other.
"""

import gzip
import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
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


@cache
def _file_handler(path: Path) -> Callable[[Request], Awaitable[Response]]:
    content = path.read_bytes()
    # By whether the client takes gzip: each is a representation of its own, with its own entity tag.
    bodies = {False: content, True: gzip.compress(content, mtime=0)}
    headers = {
        is_compressed: HEADERS
        | {"ETag": f'"{hashlib.sha256(body).hexdigest()[:16]}"', "Vary": "Accept-Encoding"}
        | ({"Content-Encoding": "gzip"} if is_compressed else {})
        for is_compressed, body in bodies.items()
    }

    async def serve(request: Request) -> Response:
        is_compressed = "gzip" in request.headers.get("accept-encoding", "")
        if request.headers.get("if-none-match") == headers[is_compressed]["ETag"]:
            return Response(status_code=304, headers=headers[is_compressed])
        return Response(bodies[is_compressed], media_type=TYPES[path.suffix], headers=headers[is_compressed])

    return serve
