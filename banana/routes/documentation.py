"""Bodies and responses as the OpenAPI document describes them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from banana.routes.fields import MAX_PICTURES

ERROR_STATUSES = (400, 401, 404, 413, 422, 429, 500, 502, 503, 504)


def responses(content: Mapping[str, Any], error: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a route: `content` of a success, and the schema of every error's body."""
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": "An error.", "content": {"application/json": {"schema": error}}}
        for status in ERROR_STATUSES
    }
    return {200: {"description": "The result.", "content": content}, **errors}


def request_body(model: type[BaseModel], pictures: str, *, form: bool) -> dict[str, Any]:
    """Return a body: the model as JSON, and where `form` is true as a form whose pictures are files named `image`."""
    schema = model.model_json_schema()
    content = {"application/json": {"schema": schema}}
    if form:
        fields = {name: field for name, field in schema["properties"].items() if name != pictures}
        files = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MAX_PICTURES}
        as_form = {"type": "object", "properties": fields | {"image": files}, "required": ["prompt"]}
        content["multipart/form-data"] = {"schema": as_form}
    return {"required": True, "content": content}
