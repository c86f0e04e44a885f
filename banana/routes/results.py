"""Kept pictures by their links, for whoever has one: whole, in ranges, or the news that they have not changed.

Source: RFC 9110 for ranges and conditions.
"""

import os
import re
import stat
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from banana import errors
from banana.admission.tokens import address_of
from banana.http.middleware import exchange_of
from banana.results.files import EXTENSIONS, Presigned
from banana.results.links import expired
from banana.routes.deps import Services, services_of

TYPES = {extension: mime_type for mime_type, extension in EXTENSIONS.items()}
_NAME = re.compile(r"[0-9a-f]{32}-[0-9]{1,2}\.(" + "|".join(TYPES) + ")")

_RANGE = re.compile(r"\s*([0-9]{1,18})-([0-9]{0,18})\s*|\s*-[0-9]{1,18}\s*")


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The image.", "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}},
    302: {"description": "The image is at this address, for at most an hour."},
    206: {"description": "The requested range."},
    304: {"description": "Not changed."},
    403: {"description": "The signature of the link is wrong."},
    404: {"description": "There is no such image."},
    410: {"description": "The image is no longer kept."},
    416: {"description": "The range is outside the image."},
    422: {"description": "A parameter is wrong."},
    429: {"description": "Too many requests."},
}
router = APIRouter(tags=["tasks"])  # no token is needed: the link is the permission


@router.head("/results/{name}", include_in_schema=False)
@router.get(
    "/results/{name}",
    operation_id="result",
    summary="Open a link to an image",
    response_class=Response,
    responses=_RESPONSES,
)
async def stored_image(
    name: str,
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    exp: Annotated[str, Query(description="Part of the link.")] = "",
    sig: Annotated[str, Query(description="Part of the link.")] = "",
) -> Response:
    """Returns a stored image. Open the link that the service gave: it has `exp` and `sig`."""
    if not _NAME.fullmatch(name):
        raise errors.NotFound("There is no such image.")
    exchange_of(request.scope).caller = address_of(request)
    await services.rate_limit.admit_replay(request)
    left_seconds = services.links.check(name, exp, sig)
    try:
        location = await services.files.location(name, request.method)
    except FileNotFoundError:
        raise expired() from None
    except OSError as error:
        raise errors.LedgerUnavailable from error
    if isinstance(location, Presigned):
        return _redirect(location, left_seconds)
    try:
        status = await anyio.to_thread.run_sync(os.stat, location)
    except OSError:
        raise expired() from None
    if not stat.S_ISREG(status.st_mode):
        raise expired()
    return _response(request, name, location, status, left_seconds)


def _redirect(location: Presigned, left_seconds: int) -> Response:
    """Return the way to where the picture is; it is kept no longer than that way is good for."""
    max_age = min(left_seconds, location.seconds)
    headers = {"Cache-Control": f"private, max-age={max_age}", "Cross-Origin-Resource-Policy": "cross-origin"}
    return RedirectResponse(location.url, 302, headers)


def _response(request: Request, name: str, path: Path, status: os.stat_result, left_seconds: int) -> Response:
    stem, _, extension = name.partition(".")
    # What a name stands for never changes.
    headers = {
        "Cache-Control": f"private, max-age={left_seconds}, immutable",
        "ETag": f'"{stem}"',
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    if _is_known(request.headers.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if not _is_range(request.headers.get("range", "")):  # to be ignored; the library would refuse it
        request.scope["headers"] = [pair for pair in request.scope["headers"] if pair[0] != b"range"]
    return FileResponse(path, headers=headers, media_type=TYPES[extension], stat_result=status)


def _is_range(value: str) -> bool:
    unit, _, ranges = value.partition("=")
    found = [_RANGE.fullmatch(item) for item in ranges.split(",")]
    ordered = all(item and (not item[2] or int(item[1]) <= int(item[2])) for item in found)
    return unit.strip().lower() == "bytes" and ordered


def _is_known(if_none_match: str, etag: str) -> bool:
    given = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in given or "*" in given
