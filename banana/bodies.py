"""The body of a request, read as it arrives, within the deadline: JSON or a form, checked against a model.

Whatever is wrong is told at once and by the name of the field.
"""

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError, WithJsonSchema
from starlette.requests import Request

from banana import errors
from banana.forms import Form, InvalidForm, fields_of
from banana.pictures import EncodedPicture, PictureError, read_input_picture
from banana.skeleton import InvalidJson, LongString, Skeleton, plain

MAX_PICTURES = 14

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")


async def read(
    request: Request, model: type[Model], deadline: float, *, pictures: str, integers: tuple[str, ...]
) -> Model:
    """Return the body as `model`. Raises InvalidRequest, TooLarge and DeadlineExceeded.

    `pictures` is the field that holds pictures, in JSON as base64 and in a form as files; `integers` are the fields of a
    form that are numbers.
    """
    try:
        document = await within(deadline, _document(request, pictures, integers))
        return model.model_validate(document)
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

    return await within(deadline, chunks())


async def within(deadline: float, work: Awaitable[T]) -> T:
    """Return what `work` returns. Raises DeadlineExceeded when the caller's body takes longer than the deadline."""
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise errors.DeadlineExceeded("The deadline passed before the request had arrived whole.") from None


async def _document(request: Request, pictures: str, integers: tuple[str, ...]) -> Any:
    content_type = request.headers.get("content-type", "")
    if content_type.lower().startswith("multipart/form-data"):
        form = Form(content_type)
        async for chunk in request.stream():
            form.feed(chunk)
        return fields_of(form.close(), files=pictures, integers=integers)
    skeleton = Skeleton()
    async for chunk in request.stream():
        skeleton.feed(chunk)
    document = skeleton.close()
    if not isinstance(document, dict):
        return document
    return {name: value if name == pictures else plain(value) for name, value in document.items()}


def _problem(item: Any, model: type[BaseModel]) -> tuple[str, str]:
    field = ".".join(map(str, item["loc"])) or "body"
    if item["type"] == "extra_forbidden":
        return field, f"is not a field of this request; it has {', '.join(model.model_fields)}"
    if item["type"] == "missing":
        return field, "is missing"
    if item["type"] == "model_type":
        return field, "is not a JSON object"
    return field, str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")


def _read_pictures(value: object) -> tuple[EncodedPicture, ...]:
    if value is None:
        return ()
    several = isinstance(value, list) and len(value) > 1
    given = value if isinstance(value, list) else [value]
    if len(given) > MAX_PICTURES:
        raise ValueError(f"holds {len(given)} pictures; at most {MAX_PICTURES} are taken")
    return tuple(_read_one(item, f"picture {number} " if several else "") for number, item in enumerate(given, 1))


def _read_one(item: object, which: str) -> EncodedPicture:
    if not isinstance(item, str | LongString | EncodedPicture):
        raise ValueError(f"{which}is not a string of base64 or a data URI")
    try:
        return read_input_picture(item)
    except (PictureError, InvalidJson) as error:
        raise ValueError(f"{which}{error}") from None


_PICTURE = {"type": "string", "description": "base64 (either alphabet) or a data URI of PNG, JPEG, WebP, HEIC, HEIF"}
_PICTURES = {"type": "array", "items": _PICTURE, "maxItems": MAX_PICTURES}
Pictures = Annotated[
    tuple[Any, ...],
    BeforeValidator(_read_pictures),
    WithJsonSchema({"anyOf": [_PICTURE, _PICTURES, {"type": "null"}]}),
]


def request_body(model: type[BaseModel], pictures: str, *, json: bool = True, form: bool = True) -> dict[str, Any]:
    """Return what OpenAPI says of a body: the model as JSON, and as a form whose pictures are files named `image`."""
    schema = model.model_json_schema()
    fields = {name: field for name, field in schema["properties"].items() if name != pictures}
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MAX_PICTURES}
    as_form = {"type": "object", "properties": fields | {"image": files}, "required": ["prompt"]}
    content = ({"application/json": {"schema": schema}} if json else {}) | (
        {"multipart/form-data": {"schema": as_form}} if form else {}
    )
    return {"required": True, "content": content}


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is blank")
    return value


Prompt = Annotated[str, AfterValidator(_not_blank)]


def is_model_name(name: str) -> bool:
    """Tell whether `name` can be a model's: letters, digits, and - . _ among them, so that it is one part of a path."""
    return name.isascii() and name.translate(_NAME_MARKS).isalnum()


def _model_name(value: object) -> object:
    if not isinstance(value, str):
        return value
    name = value.removeprefix("models/")
    if not is_model_name(name):
        raise ValueError("is not the name of a model")
    return name


_NAME_MARKS = str.maketrans("", "", "-._")
ModelName = Annotated[str, BeforeValidator(_model_name)]
