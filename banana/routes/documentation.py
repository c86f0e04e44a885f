"""What FastAPI's OpenAPI document says of bodies that are read in its place, and of responses in each API format.

Source: https://fastapi.tiangolo.com/advanced/path-operation-advanced-configuration/#custom-openapi-path-operation-schema
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from banana.routes.fields import MAX_PICTURES

ERROR_STATUSES = (400, 401, 402, 403, 404, 409, 410, 413, 422, 429, 500, 502, 503, 504)

EXAMPLE_PROMPT = "A banana on the moon"
# One pixel, for an example of a picture that is sent.
EXAMPLE_PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


# Of fields of forms, where /docs would send a word of its own, or the smallest number or choice.
_FORM_EXAMPLES = {
    "model": "gemini-3-pro-image",
    "image_size": "1K",
    "output_format": "jpeg",
    "output_compression": 90,
    "partial_images": 0,
    "user": "anna",
    "safety_identifier": "anna",
    "style": "natural",
}


# What a task is answered with, before it has ended.
TASK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["id", "task_id", "object", "status", "created_at", "expires_at", "poll_url"],
    "properties": {
        **{name: {"type": "string"} for name in ("id", "task_id", "object", "poll_url")},
        **{name: {"type": "integer", "description": "Unix time in seconds."} for name in ("created_at", "expires_at")},
        "status": {"enum": ["processing", "completed", "failed", "cancelled"]},
        "http_status": {
            "type": "integer",
            "description": "After the end: the status that the route would have answered.",
        },
        "cost_usd": {"type": "number", "description": "After the end: the cost in USD, if known."},
        "model": {"type": "string", "description": "After the end: the model, as Google names it."},
        "usage": {"type": "object", "description": "After the end: its tokens, in OpenAI's format."},
        "completed_at": {"type": "integer", "description": "After the end: Unix time in seconds."},
        "request_id": {
            "type": "string",
            "description": "After the end: the X-Request-ID of the request that created it.",
        },
        "result": {"description": "If completed: the body that the route would have answered."},
        "error": {"type": "object", "description": "If failed: the error."},
        "failed": {"type": "array", "description": "The images that failed, if others succeeded.", "items": {}},
    },
}
TASK_LIST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["object", "data", "has_more"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": TASK_SCHEMA}},
}
COST_HEADERS = {
    "X-Cost-USD": {"description": "The cost of all calls to Google, if known.", "schema": {"type": "string"}},
    "X-Budget-Remaining-USD": {
        "description": "What is left of the caller's budget, if it has one.",
        "schema": {"type": "string"},
    },
}


ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"description": "A task was created.", "content": {"application/json": {"schema": TASK_SCHEMA}}}
}


def responses(
    content: Mapping[str, Any], error: Mapping[str, Any], *, or_task: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a route: `content` of a success, or a task, and the schema of every error's body."""
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": "Error.", "content": {"application/json": {"schema": error}}}
        for status in ERROR_STATUSES
    }
    success = {"description": "Success.", "headers": COST_HEADERS, "content": content}
    return {200: success, **(ACCEPTED if or_task else {}), **errors}


def request_body(
    model: type[BaseModel], example: Mapping[str, Any], *, pictures: str = "", form: bool = False
) -> dict[str, Any]:
    """Return a body: the model as JSON, and where `form` is true as a form whose pictures are files named `image`.

    `example` is what /docs sends when nothing is changed; `pictures` is the field that holds them.
    """
    content: dict[str, Any] = {"application/json": {"schema": schema_of(model), "example": example}}
    if form:
        content["multipart/form-data"] = {"schema": _form_of(model, example, pictures)}
    return {"required": True, "content": content}


def _form_of(model: type[BaseModel], example: Mapping[str, Any], pictures: str) -> dict[str, Any]:
    """Return a form's schema, with its examples at each field: /docs sends every field of a form."""
    fields = schema_of(model)["properties"]
    shown = {name: _form_field(name, field) for name, field in fields.items() if name not in (pictures, "images")}
    for name in example.keys() & shown.keys():
        shown[name]["example"] = example[name]
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MAX_PICTURES}
    shown["image"] = files | {"example": [EXAMPLE_PICTURE]}
    return {"type": "object", "properties": shown, "required": ["prompt"]}


def _form_field(name: str, field: Mapping[str, Any]) -> dict[str, Any]:
    """Return a field as a form has it: without null, and with an example where neither a default nor a choice is one."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"]
    rest = {name: value for name, value in field.items() if name != "anyOf" and (name, value) != ("default", None)}
    shown = rest | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})
    return shown | ({"example": _FORM_EXAMPLES[name]} if name in _FORM_EXAMPLES else {})


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema with what it refers to in its place: in an OpenAPI document its definitions stand elsewhere."""
    schema = model.model_json_schema()
    found: dict[str, Any] = _without_references(schema, schema.pop("$defs", {}))
    return found


def _without_references(schema: Any, definitions: Mapping[str, Any]) -> Any:
    match schema:
        case {"$ref": str(reference)}:
            return _without_references(definitions[reference.rpartition("/")[2]], definitions)
        case dict():
            return {name: _without_references(value, definitions) for name, value in schema.items()}
        case list():
            return [_without_references(item, definitions) for item in schema]
    return schema
