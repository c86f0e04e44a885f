"""The body of a request, read as it arrives, within the deadline: JSON or a form, checked against a pydantic model.

Whatever is wrong is answered at once and by the name of the field.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from banana import errors
from banana.payload.lazyjson import InvalidJson, LazyJsonParser
from banana.payload.multipart import FormParser, InvalidForm, fields_of

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")


async def read(request: Request, model: type[Model], deadline: float, *, files: str) -> Model:
    """Return the body as `model`. Raises InvalidRequest, TooLarge and DeadlineExceeded.

    JSON is validated strictly; long strings in it are `LongString`. A form has only strings, so that pydantic reads
    numbers and truth values from them; its files are given in the field `files`, as `EncodedPicture`. `deadline` is in
    seconds of the event loop's clock.
    """
    content_type = request.headers.get("content-type", "")
    is_form = content_type.lower().startswith("multipart/form-data")
    try:
        document = await _within(deadline, _form(request, content_type, files) if is_form else _json(request))
        return model.model_validate(document, strict=not is_form)
    except InvalidJson as error:
        raise errors.InvalidRequest.of_fields([("body", f"is not JSON: {error}")]) from None
    except InvalidForm as error:
        raise errors.InvalidRequest.of_fields([("body", f"is not a form: {error}")]) from None
    except ValidationError as error:
        problems = [_problem(item, model) for item in error.errors(include_input=False)]
        raise errors.InvalidRequest.of_fields(problems) from None


async def read_bytes(request: Request, deadline: float) -> list[bytes]:
    """Return the body as the chunks it came in. Raises TooLarge and DeadlineExceeded."""

    async def chunks() -> list[bytes]:
        return [chunk async for chunk in request.stream() if chunk]

    return await _within(deadline, chunks())


async def _within(deadline: float, work: Awaitable[T]) -> T:
    """Return what `work` returns. Raises DeadlineExceeded when the caller's body takes longer than the deadline."""
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise errors.DeadlineExceeded("The deadline passed before the request had arrived whole.") from None


async def _json(request: Request) -> Any:
    parser = LazyJsonParser()
    async for chunk in request.stream():
        parser.feed(chunk)
    return parser.close()


async def _form(request: Request, content_type: str, files: str) -> dict[str, Any]:
    parser = FormParser(content_type, files)
    async for chunk in request.stream():
        parser.feed(chunk)
    return fields_of(parser.close(), files)


def _problem(item: Any, model: type[BaseModel]) -> tuple[str, str]:
    field = ".".join(map(str, item["loc"])) or "body"
    if item["type"] == "extra_forbidden":
        known = f"; it has {', '.join(model.model_fields)}" if len(item["loc"]) == 1 else ""
        return field, f"is not a field of this request{known}"
    if item["type"] == "missing":
        return field, "is missing"
    if item["type"] == "model_type":
        return field, "is not a JSON object"
    return field, str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
