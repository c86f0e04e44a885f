"""OpenAI's responses, `/v1/responses`, with the tool `image_generation`: whole, as typed events, or in the background.

A response is stored unless `store` is false: found again by its id, deleted, and continued with `previous_response_id`. One
that is asked for with `store: true`, or in the background, is a task in other clothes. Source: OpenAI's API reference, Responses.
"""

import re
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from starlette.datastructures import Headers
from starlette.responses import Response

from banana import errors
from banana.exchange import Exchange
from banana.google.contents import Part, Turn, conversation, tier_of
from banana.google.wire import Image, Words
from banana.http.responses import PiecesResponse, one_line
from banana.images import Failure, Order, Outcome, Outcomes
from banana.ledger.ledger import Entry, State
from banana.payload.pieces import Bytes, Pieces
from banana.results.documents import error_in
from banana.results.history import PICTURE_PREFIX, RESPONSE_PREFIX
from banana.results.links import expired
from banana.routes import documentation, openai
from banana.routes.deps import MAKES_IMAGES_ONCE, MAKES_NOTHING, Context, CurrentContext, Services, body_as
from banana.routes.dialect import Dialect, under
from banana.routes.fields import REFUSED, ModelName, ServiceTier, ShortText, Text, read_picture, read_text, refusal
from banana.routes.image_endpoint import ImageEndpoint, ResponseWriter
from banana.routes.openai_chat import read_content, turn_parts
from banana.routes.openai_images import ImageOptions, order_with
from banana.routes.shape import ImageShape

PATH = "/v1/responses"
TOOL = "image_generation"
# Tools that programs bring along and a model may choose not to call, and what stands of them in a conversation.
FUNCTIONS = ("function", "custom")
_CALLS = ("function_call", "custom_tool_call", "reasoning")
_CALL_OUTPUTS = ("function_call_output", "custom_tool_call_output")
# Names of OpenAI's models that talk: whoever draws for them is the default image model.
_CHAT_MODEL = re.compile(r"(gpt-(?!image)|chatgpt-(?!image)|o[0-9]|codex|computer-use).*")
_STATUSES = {
    State.BEGUN: "queued",
    State.SENT: "in_progress",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
NoConversation = Annotated[None, refusal("is not supported; use previous_response_id"), REFUSED]
NoTemplate = Annotated[
    None, refusal("is a prompt template of OpenAI's and not supported; send the text in input"), REFUSED
]


class ImageTool(ImageOptions):
    """The tool: how the picture is to be."""

    type: Literal["image_generation"]
    action: Literal["auto", "generate", "edit"] | None = Field(default=None, description="Accepted and ignored.")


def _tool_choice(value: object) -> object:
    """Return the choice by name, the tool's where it is that. Raises ValueError, which names a function."""
    name = value.get("type") if isinstance(value, dict) else value
    if name == "allowed_tools" and isinstance(value, dict) and value.get("mode") == "auto":
        return "auto"
    if name in ("function", "custom") and isinstance(value, dict):
        raise ValueError(
            f"names {str(value.get('name'))[:64]!r}, and image models call no functions; leave it out or use auto"
        )
    if name not in (None, "auto", "required", "none", TOOL):
        raise ValueError(f'must be auto, required, none or {{"type": "{TOOL}"}}')
    return name


MetadataText = Annotated[str, StringConstraints(max_length=512), BeforeValidator(read_text)]


def _tools(value: object) -> object:
    """Return the image tool; functions, which a model may always leave alone, are left out. Raises ValueError for others."""
    if not isinstance(value, list):
        return value
    kinds = [str(tool.get("type"))[:50] if isinstance(tool, dict) else "none" for tool in value]
    for kind in kinds:
        if kind not in (TOOL, *FUNCTIONS):
            raise ValueError(f"has the type {kind!r}; supported is {TOOL}, and functions are accepted and never called")
    return [tool for tool, kind in zip(value, kinds, strict=True) if kind == TOOL]


def _input(value: object) -> list[dict[str, Any]]:
    """Return the items of an input. Raises ValueError, which names the item."""
    items = value if isinstance(value, list) else [{"role": "user", "content": value}]
    read = []
    for number, item in enumerate(items, 1):
        try:
            read.append(_item(item))
        except ValueError as error:
            raise ValueError(f"item {number} {error}" if len(items) > 1 else str(error)) from None
    return read


def _item(item: object) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise ValueError("is not an object")
    kind = item.get("type", "message")
    if kind == "message":
        if item.get("role") not in ("user", "assistant", "system", "developer"):
            raise ValueError("must have the role user, assistant, system or developer")
        return {"type": kind, "role": item["role"], "content": read_content(item.get("content"))}
    if kind in ("image_generation_call", "item_reference"):
        if item.get("result"):
            return {"type": "image_generation_call", "result": read_picture(item["result"])}
        return {"type": "image_generation_call", "id": read_text(item.get("id"))[:100]}
    if kind in _CALLS:
        return {"type": "reasoning"}
    if kind in _CALL_OUTPUTS:
        return {"type": "message", "role": "user", "content": read_content(item.get("output"))}
    raise ValueError(f"has the type {str(kind)[:50]!r}; supported are message and image_generation_call")


class TextFormat(BaseModel):
    """Of the words."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text"]


class TextOptions(BaseModel):
    """How the words are to be."""

    model_config = ConfigDict(extra="ignore")

    format: TextFormat | None = None


class ResponsesRequest(ImageShape):
    """OpenAI's request for a response; other fields, such as temperature and reasoning, are taken and change nothing."""

    model_config = ConfigDict(extra="ignore")

    input: Annotated[
        list[dict[str, Any]],
        BeforeValidator(_input),
        Field(json_schema_extra={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}),
    ]
    model: ModelName | None = Field(
        default=None, description="An image model. The name of a chat model selects the default image model."
    )
    instructions: Text | None = None
    tools: Annotated[list[ImageTool], BeforeValidator(_tools)] | None = Field(
        default=None,
        max_length=1,
        description="image_generation. Without it, the model may answer with text only. Functions are accepted and never called.",
    )
    tool_choice: Annotated[str | None, BeforeValidator(_tool_choice)] = None
    stream: bool | None = False
    background: bool | None = Field(default=False, description="The response comes at once; poll it by its id.")
    store: bool | None = Field(
        default=None,
        description="Unless false, the response and its input are stored for a time, to be read by id and continued.",
    )
    previous_response_id: ShortText | None = Field(
        default=None, description="The id of a stored response, whose conversation this one continues."
    )
    metadata: dict[str, MetadataText] | None = Field(
        default=None, max_length=16, description="Returned unchanged in the response."
    )
    user: ShortText | None = Field(default=None, description="Written to the log.")
    safety_identifier: ShortText | None = Field(default=None, description="Same as `user`.")
    service_tier: ServiceTier = None
    text: TextOptions | None = None
    conversation: NoConversation = None
    prompt: NoTemplate = None


def order_of(body: ResponsesRequest) -> Order:
    """Read a body into an order. Raises InvalidRequest when there is nothing to start from, or nothing to call."""
    if body.tool_choice == "required" and body.tools == []:
        problem = "is required, and image models call no functions; leave it out or use auto"
        raise errors.InvalidRequest.of_fields([("tool_choice", problem)])
    said = [item for item in body.input if item.get("role") not in ("system", "developer")]
    turns = conversation(_turn(item) for item in said)
    if not turns:
        raise errors.InvalidRequest.of_fields([("input", "has no text and no image")])
    tool = body.tools[0] if body.tools else ImageTool(type="image_generation")
    names = (tool.model, body.model)
    tool = tool.model_copy(update={"model": next((name for name in names if name and not is_chat_model(name)), None)})
    # What is said of the image beside the tool is what clients add that know the tool alone.
    around = {name: value for name, value in body.shape().items() if tool.shape()[name] is None}
    return order_with(
        tool,
        turns,
        previous=body.previous_response_id or "",
        stores_input=body.store is not False,
        system=body.instructions or "",  # of this response alone, as with OpenAI
        developer="\n\n".join(_system(body)),
        modalities=_modalities(body),
        takes_words="TEXT" in _modalities(body),
        user=body.user or body.safety_identifier,
        service_tier=tier_of(body.service_tier),
        **around,
    )


def is_chat_model(name: str) -> bool:
    """Return whether a name of OpenAI's is that of a model that talks, and has others draw."""
    return _CHAT_MODEL.fullmatch(name) is not None


def _modalities(body: ResponsesRequest) -> Sequence[str]:
    """Return what may come: with the tool a picture, without it words as well, and where it must not be used only words."""
    if body.tool_choice == "none" and body.tools:
        return ("TEXT",)
    return ("IMAGE",) if body.tools else ("TEXT", "IMAGE")


def _system(body: ResponsesRequest) -> list[str]:
    parts = [part for item in body.input if item.get("role") in ("system", "developer") for part in item["content"]]
    if any(part["type"] != "text" for part in parts):
        raise errors.InvalidRequest.of_fields(
            [("input", "has an image in a system message; send images in a user message")]
        )
    return [part["text"] for part in parts]


def _turn(item: dict[str, Any]) -> Turn:
    if item["type"] == "message":
        return Turn(turn_parts(item["content"]), item["role"] == "assistant")
    if "result" in item:
        return Turn([Part(picture=item["result"])], is_model=True)
    return Turn([Part(reference=item["id"], field="input")] if "id" in item else [], is_model=True)


class ResponsesWriter(ResponseWriter):
    """A response, or its events."""

    def __init__(self, body: ResponsesRequest, order: Order, model: str, *, keeps: bool) -> None:
        self.streams = bool(body.stream)
        self.in_background = bool(body.background)
        self.is_kept = self.in_background or bool(body.store)
        self.is_stored = keeps and body.store is None
        self.waits_for_outcome = not self.in_background
        self._makes_image = not order.takes_words
        self._echo = _echo(body, is_stored=self.is_kept or self.is_stored)
        self._model = model
        self._sequence = 0
        self._id = ""
        self._created_at = 0
        self._done: list[Outcome] = []

    def response(self, outcomes: Outcomes, exchange: Exchange) -> Response:
        """Return the response."""
        return PiecesResponse(_completed(outcomes, self._echo), "application/json")

    def accepted(self, entry: Entry) -> Response:
        """Return the response as it is before it has begun."""
        document = _document(entry.id, int(entry.created_at), "queued", self._model, self._echo)
        return PiecesResponse(document, "application/json")

    def first_event(self, exchange: Exchange) -> Pieces:
        """Return the events before the picture: it is asked for."""
        self._id = exchange.kept_id or uuid.uuid4().hex
        self._created_at = int(exchange.kept_since or time.time())
        pieces = [*self._of_response("response.created"), *self._of_response("response.in_progress")]
        return [*pieces, *(self._image_begins() if self._makes_image else [])]

    def event(self, outcome: Outcome, exchange: Exchange) -> Pieces:
        """Return the events of what came; an error's is the last."""
        if not isinstance(outcome.result, Image | Words):
            return ()
        self._done.append(outcome)
        pieces: list[Bytes] = []
        if isinstance(outcome.result, Image):
            pieces += [] if self._makes_image else self._image_begins()
            pieces += self._event("response.image_generation_call.completed", self._image_place())
            pieces += self._event("response.output_item.done", {"output_index": 0}, "item", _image(self._id, outcome))
        return [*pieces, *self._words(outcome.result, int(isinstance(outcome.result, Image)))]

    def error_event(self, error: errors.BananaError, exchange: Exchange) -> Pieces:
        """Return the failed response, which ends the stream."""
        known = openai.error_object(exchange, error)
        return self._of_response(
            "response.failed", "failed", error={"code": known["code"], "message": known["message"]}
        )

    def last_event(self, failures: list[Failure], cost_usd: Decimal | None, exchange: Exchange) -> Pieces:
        """Return the whole response; the failed one when there is nothing in it."""
        if failures or not self._done:
            return self.error_event(failures[0].error if failures else errors.Internal(), exchange)
        outcomes = Outcomes(self._done, self._id, self._created_at)
        name = "response.completed" if _incomplete(self._done[0]) is None else "response.incomplete"
        return self._event(name, {}, "response", _completed(outcomes, self._echo))

    def _image_place(self) -> dict[str, object]:
        return {"output_index": 0, "item_id": PICTURE_PREFIX + self._id}

    def _image_begins(self) -> list[Bytes]:
        item = {
            "type": "image_generation_call",
            "id": PICTURE_PREFIX + self._id,
            "status": "in_progress",
            "result": None,
        }
        return [
            *self._event("response.output_item.added", {"output_index": 0, "item": item}),
            *self._event("response.image_generation_call.in_progress", self._image_place()),
            *self._event("response.image_generation_call.generating", self._image_place()),
        ]

    def _words(self, said: Image | Words, index: int) -> list[Bytes]:
        place = {"output_index": index, "item_id": f"msg_{self._id}", "content_index": 0}
        item = _message(self._id, said)
        (part,) = item["content"]
        kind = part["type"].removeprefix("output_")
        field = "text" if kind == "text" else "refusal"
        name = "response.output_text" if kind == "text" else "response.refusal"
        logprobs: dict[str, object] = {"logprobs": []} if kind == "text" else {}
        delta = [(f"{name}.delta", place | {"delta": said.text} | logprobs)] if said.text else []
        pieces = [
            (
                "response.output_item.added",
                {"output_index": index, "item": item | {"status": "in_progress", "content": []}},
            ),
            ("response.content_part.added", place | {"part": part | {field: ""}}),
            *delta,
            (f"{name}.done", place | {field: said.text} | logprobs),
            ("response.content_part.done", place | {"part": part}),
            ("response.output_item.done", {"output_index": index, "item": item}),
        ]
        return [piece for name, fields in pieces for piece in self._event(name, fields)]

    def _of_response(self, name: str, status: str = "in_progress", error: object = None) -> list[Bytes]:
        document = _document(self._id, self._created_at, status, self._model, self._echo, error=error)
        return self._event(name, {}, "response", document)

    def _event(self, name: str, fields: dict[str, Any], field: str = "", value: Pieces = ()) -> list[Bytes]:
        """Return one event; `value` is a field in pieces."""
        head = one_line({"type": name, "sequence_number": self._sequence} | fields)
        self._sequence += 1
        rest = [b',"%s":' % field.encode(), *value] if field else []
        return [b"event: %s\ndata: " % name.encode(), head[:-1], *rest, b"}\n\n"]


def _echo(body: ResponsesRequest, *, is_stored: bool) -> dict[str, object]:
    """Return what a response says again of its request."""
    return {
        "background": bool(body.background),
        "instructions": body.instructions,
        "metadata": body.metadata or {},
        "previous_response_id": body.previous_response_id,
        "store": is_stored,
        "tool_choice": {"type": TOOL} if body.tool_choice == TOOL else body.tool_choice or "auto",
        "tools": [tool.model_dump(exclude_none=True) for tool in body.tools or ()],
        "user": body.user,
    }


# What of a request is not kept.
_FORGOTTEN: dict[str, object] = {
    "background": True,
    "instructions": None,
    "metadata": {},
    "previous_response_id": None,
    "store": True,
    "tool_choice": "auto",
    "tools": [{"type": TOOL}],
    "user": None,
}


def _document(
    entry_id: str,
    created_at: int,
    status: str,
    model: str,
    echo: dict[str, object],
    *,
    output: Pieces = (b"[]",),
    usage: object = None,
    error: object = None,
    incomplete: object = None,
) -> list[Bytes]:
    """Return a response in pieces."""
    head: dict[str, object] = {
        "id": RESPONSE_PREFIX + entry_id,
        "object": "response",
        "created_at": created_at,
        "status": status,
        "model": model,
        "error": error,
        "incomplete_details": incomplete,
        "parallel_tool_calls": False,
        "temperature": None,
        "top_p": None,
    }
    end = {"usage": usage} if usage else {}
    return [
        one_line(head | echo)[:-1],
        b',"output":',
        *output,
        *([b"," + one_line(end)[1:]] if end else [b"}"]),
    ]


def _completed(outcomes: Outcomes, echo: dict[str, object]) -> list[Bytes]:
    """Return the response of what came, in pieces."""
    entry_id = outcomes.id or uuid.uuid4().hex
    (outcome,) = outcomes.all
    done = outcome.result
    assert isinstance(done, Image | Words)
    # Beside an image a message, if an empty one: programs for agents take a turn without one for unfinished, and pay again.
    items = [_image(entry_id, outcome)] if isinstance(done, Image) else []
    items.append([one_line(_message(entry_id, done))])
    output: list[Bytes] = [b"["]
    for number, item in enumerate(items):
        output += [b","] if number else []
        output += item
    incomplete = _incomplete(outcome)
    return _document(
        entry_id,
        outcomes.since or outcomes.created_at,
        "incomplete" if incomplete else "completed",
        done.model,
        echo,
        output=[*output, b"]"],
        usage=openai.responses_usage_of(openai.usage_in([outcome]), done.cost_usd),
        incomplete=incomplete,
    )


def _incomplete(outcome: Outcome) -> dict[str, str] | None:
    """Return why a response is not what it should be; None where it is."""
    if isinstance(outcome.result, Words) and outcome.result.is_refusal:
        return {"reason": "content_filter"}
    if isinstance(outcome.result, Words) and outcome.result.finish_reason == "MAX_TOKENS":
        return {"reason": "max_output_tokens"}
    return None


def _image(entry_id: str, outcome: Outcome) -> list[Bytes]:
    """Return the item of an image."""
    assert isinstance(outcome.result, Image)
    item: dict[str, object] = {
        "type": "image_generation_call",
        "id": PICTURE_PREFIX + entry_id,
        "status": "completed",
        **openai.facts_of(outcome.result),
    }
    return [one_line(item)[:-1], b',"result":"', *outcome.result.picture.pieces, b'"}']


def _message(entry_id: str, said: Image | Words) -> dict[str, Any]:
    """Return the item of the words."""
    if isinstance(said, Words) and said.is_refusal:
        part: dict[str, object] = {"type": "refusal", "refusal": said.text}
    else:
        part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
    message = {"type": "message", "id": f"msg_{entry_id}", "status": "completed", "role": "assistant"}
    return message | {"content": [part]}


def result(outcomes: Outcomes, *, as_links: bool) -> Pieces:
    """Return the response as a task's result."""
    return _completed(outcomes, _FORGOTTEN)


DIALECT = Dialect("openai-responses", under(PATH), openai.error_response)
_EXAMPLE_RESPONSE = {
    "id": "resp_…",
    "object": "response",
    "created_at": 1795392000,
    "status": "completed",
    "model": "gemini-3-pro-image",
    "output": [
        {"type": "image_generation_call", "id": "ig_…", "status": "completed", "size": "1024x1024", "result": "…"}
    ],
    "usage": {"input_tokens": 8, "output_tokens": 1345, "total_tokens": 1353, "cost": 0.137116},
}
_CONTENT = {
    "application/json": {
        "schema": {"type": "object", "required": ["id", "object", "status", "output"]},
        "example": _EXAMPLE_RESPONSE,
    },
    "text/event-stream": {"schema": {}},
}
_EXAMPLE = {"input": documentation.EXAMPLE_PROMPT, "tools": [{"type": TOOL}]}


def _writer_for(body: ResponsesRequest, order: Order, _: Headers, services: Services) -> ResponsesWriter:
    model = services.models.resolve(order.model_name)
    return ResponsesWriter(body, order, model, keeps=services.requests.keeps)


ENDPOINT: ImageEndpoint[ResponsesRequest] = ImageEndpoint(
    path=PATH,
    body=ResponsesRequest,
    order_of=order_of,
    writer_for=_writer_for,
    result=result,
    explicit_base64=None,
    dialect=DIALECT,
)
_STORED = documentation.responses({"application/json": {"schema": {"type": "object"}}}, openai.ERROR_SCHEMA)
ResponseId = Annotated[str, Path(alias="id", description="The `id` of a stored response.")]
router = APIRouter(tags=["OpenAI"])


@router.post(
    PATH,
    operation_id="createResponse",
    summary="Create a response with an image",
    dependencies=MAKES_IMAGES_ONCE,
    responses=documentation.responses(_CONTENT, openai.ERROR_SCHEMA, or_task=True),
    openapi_extra={"requestBody": documentation.request_body(ResponsesRequest, _EXAMPLE)},
)
async def create_response(
    body: Annotated[ResponsesRequest, Depends(body_as(ResponsesRequest))], context: CurrentContext
) -> Response:
    """OpenAI's API format for responses, with the tool `image_generation`.

    The response is JSON, server-sent events with `stream`, or in the background with `background`. Fields that cannot be supported return an error that names them. Other fields are accepted and ignored.
    """
    return await ENDPOINT.respond(body, context)


@router.get(
    f"{PATH}/{{id}}",
    operation_id="getResponse",
    summary="Read a stored response",
    dependencies=MAKES_NOTHING,
    responses=_STORED,
)
async def get_response(
    response_id: ResponseId, context: CurrentContext, stream: Annotated[str, Query()] = ""
) -> Response:
    """Returns the response, with its status while it runs in the background."""
    if stream == "true":
        problem = "is not supported for an existing response; poll it without stream"
        raise errors.InvalidRequest.of_fields([("stream", problem)])
    return await _response_of(await _entry_of(response_id, context), context)


@router.post(
    f"{PATH}/{{id}}/cancel",
    operation_id="cancelResponse",
    summary="Cancel a background response",
    dependencies=MAKES_NOTHING,
    responses=_STORED,
)
async def cancel_response(response_id: ResponseId, context: CurrentContext) -> Response:
    """Cancels a response that runs in the background, and returns it."""
    found = await _entry_of(response_id, context)
    entry = await context.services.requests.cancel_task(found.id, context.caller)
    return await _response_of(entry, context)


@router.delete(
    f"{PATH}/{{id}}",
    operation_id="deleteResponse",
    summary="Delete a stored response",
    dependencies=MAKES_NOTHING,
    responses=_STORED,
)
async def delete_response(response_id: ResponseId, context: CurrentContext) -> Response:
    """Deletes a response and its images."""
    found = await _entry_of(response_id, context)
    await context.services.requests.delete_task(found.id, context.caller)
    return Response(one_line({"id": response_id, "object": "response", "deleted": True}), media_type="application/json")


async def _entry_of(name: str, context: Context) -> Entry:
    """Return the entry of a response of the caller's. Raises NotFound, also for what is another format's task."""
    requests = context.services.requests
    with suppress(errors.NotFound):
        if name.startswith(RESPONSE_PREFIX):
            return await requests.response(name.removeprefix(RESPONSE_PREFIX), context.caller, PATH)
    raise errors.NotFound(f"Response {name[:100]} was not found. It may have expired, or belong to another caller.")


async def _response_of(entry: Entry, context: Context) -> Response:
    """Return an entry as the response that it is. Raises Expired."""
    exchange, services = context.exchange, context.services
    exchange.kept_id = entry.id
    if entry.state is State.COMPLETED:
        outcomes = await services.requests.outcomes_of(entry, "", as_links=False)
        return PiecesResponse(result(outcomes, as_links=False), "application/json")
    error = None
    if entry.state is State.FAILED:
        known = openai.error_object(exchange, error_in(entry) or expired())
        error = {"code": known["code"], "message": known["message"]}
    model = services.models.resolve(None)
    document = _document(entry.id, int(entry.created_at), _STATUSES[entry.state], model, _FORGOTTEN, error=error)
    return PiecesResponse(document, "application/json")
