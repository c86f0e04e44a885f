"""The page: a few static files, held in memory, under a policy that lets nothing else in.

It is a client of `/generate`, of its tasks and of `/v1/models` like any other.
"""

import gzip
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

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


router = APIRouter(include_in_schema=False)
for _path in FOLDER.iterdir():
    if _path.suffix in TYPES:
        # HEAD as well, as Starlette's own files have it.
        _name = "/" if _path.name == "index.html" else f"/page/{_path.name}"
        router.add_api_route(_name, _file_handler(_path), methods=["GET", "HEAD"])
