"""Bodies and responses as the OpenAPI document describes them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from banana.routes.fields import MAX_PICTURES

ERROR_STATUSES = (400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504)

EXAMPLE_PROMPT = "A banana on the moon"
# One pixel, for an example of a picture that is sent.
EXAMPLE_PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def responses(content: Mapping[str, Any], error: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a route: `content` of a success, and the schema of every error's body."""
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": "An error.", "content": {"application/json": {"schema": error}}}
        for status in ERROR_STATUSES
    }
    return {200: {"description": "The result.", "content": content}, **errors}


def request_body(model: type[BaseModel], pictures: str, example: Mapping[str, Any], *, form: bool) -> dict[str, Any]:
    """Return a body: the model as JSON, and where `form` is true as a form whose pictures are files named `image`.

    `example` is what /docs sends when nothing is changed.
    """
    schema = model.model_json_schema()
    content: dict[str, Any] = {"application/json": {"schema": schema, "example": example}}
    if form:
        fields = {name: field for name, field in schema["properties"].items() if name != pictures}
        files = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MAX_PICTURES}
        as_form = {"type": "object", "properties": fields | {"image": files}, "required": ["prompt"]}
        content["multipart/form-data"] = {"schema": as_form}
    return {"required": True, "content": content}
