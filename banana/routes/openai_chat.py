"""OpenAI's chat completions with pictures, `/v1/chat/completions`: what chat applications speak.

Pictures come as `images[]` of the message, as OpenRouter, LiteLLM and the applications have it. What has no meaning for
a model of pictures is refused by name; what every application sends and changes no picture is taken. Sources: OpenAI's
API reference, Chat; OpenRouter's, Image generation.
"""

import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, WithJsonSchema
from starlette.datastructures import Headers
from starlette.responses import Response

from banana import errors
from banana.exchange import Exchange
from banana.google.contents import Part, Turn, conversation, picture_part, tier_of
from banana.google.usage import Usage
from banana.google.wire import Image, Words
from banana.http.responses import PiecesResponse, one_line
from banana.images import Failure, Order, Outcome, Outcomes
from banana.payload.lazyjson import LongString
from banana.payload.pieces import Bytes, Pieces
from banana.routes import documentation, openai
from banana.routes.deps import MAKES_IMAGES_ONCE, CurrentContext, Services, body_as
from banana.routes.dialect import Dialect, under
from banana.routes.fields import (
    MAX_IMAGES,
    MAX_TEXT_BYTES,
    REFUSED,
    Integer,
    ModelName,
    ServiceTier,
    ShortText,
    read_picture,
    read_picture_or_address,
    read_text,
    refusal,
)
from banana.routes.image_endpoint import ImageEndpoint, ResponseWriter, data_uri_of
from banana.routes.shape import ImageShape

_TEXTS = ("text", "input_text", "output_text")
_PICTURES = ("image_url", "input_image")
# A picture in Markdown, as some clients send back what they showed. No two matches can begin in one stretch of what these
# take, so that the time grows with the text alone, whatever it is.
_MARKDOWN_PICTURE = re.compile(r"!\[[^\[\]]*\]\((data:image/[\w.+-]{1,50};base64,[\w+/=-]*)\)", re.ASCII)
MAX_MARKDOWN_BYTES, MAX_MARKDOWN_PICTURES = 32 << 20, 100
_MARKDOWN_START = re.compile(rb"\]\(data:image\\?/")  # as it stands in JSON, where a slash may be escaped
NotHere = Annotated[None, refusal("is not supported by image models; switch it off in your application"), REFUSED]


def _choice_of_tools(value: object) -> object:
    """Return None for what lets a model call no function. Raises ValueError for what makes it call one."""
    if value in (None, "auto", "none"):
        return None
    allowed = value.get("allowed_tools", {}) if isinstance(value, dict) and value.get("type") == "allowed_tools" else {}
    if isinstance(allowed, dict) and allowed.get("mode") == "auto":
        return None
    function = value.get("function", value) if isinstance(value, dict) else {}
    name = function.get("name") if isinstance(function, dict) else None
    said = f"names {str(name)[:64]!r}" if name else f"is {str(value)[:64]!r}"
    raise ValueError(f"{said}, and image models call no functions; leave it out or use auto")


def _functions(value: object) -> None:
    """Take functions, which are never called. Raises ValueError for what are none."""
    if value is not None and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
        raise ValueError("must be a list of objects")


Functions = Annotated[
    None,
    BeforeValidator(_functions),
    WithJsonSchema({"type": "array", "items": {"type": "object"}, "description": "Accepted and never called."}),
]
ToolChoice = Annotated[
    None,
    BeforeValidator(_choice_of_tools),
    WithJsonSchema({"enum": [None, "auto", "none"], "description": "Functions are accepted and never called."}),
]


def read_content(value: object) -> list[dict[str, Any]]:
    """Return the parts of a message's content. Raises ValueError, which names the part."""
    if value is None:
        return []
    items = value if isinstance(value, list) else [{"type": "text", "text": value}]
    return [part for number, item in enumerate(items) for part in _named(number, item, len(items))]


def _named(number: int, item: object, count: int) -> list[dict[str, Any]]:
    try:
        return _content_parts(item)
    except ValueError as error:
        raise ValueError(f"part {number + 1} {error}" if count > 1 else str(error)) from None


def _content_parts(item: object) -> list[dict[str, Any]]:
    kind = item.get("type") if isinstance(item, dict) else None
    if isinstance(item, dict) and kind in _TEXTS:
        return _text_parts(item.get("text"))
    if isinstance(item, dict) and kind == "refusal":  # of the model, in a conversation that goes on
        return _text_parts(item.get("refusal"))
    if isinstance(item, dict) and kind in _PICTURES:
        return [{"type": "image_url", "image_url": read_picture_or_address(item.get("image_url"))}]
    found = f"has the type {kind[:50]!r}" if isinstance(kind, str) else "has no type"
    raise ValueError(f"{found}; supported are text and image_url")


def _text_parts(value: object) -> list[dict[str, Any]]:
    """Return a text, and the pictures that some clients put into it as Markdown: as words they would be billed, and not seen."""
    # A text without a picture is as short as everywhere, one with a picture is as long as that.
    is_long = isinstance(value, LongString) and _may_hold_pictures(value)
    text = value.text() if is_long and isinstance(value, LongString) else read_text(value)
    parts: list[dict[str, Any]] = []
    position = 0
    for match in _MARKDOWN_PICTURE.finditer(text):
        with suppress(ValueError):  # what only looks like a picture is words
            picture = {"type": "image_url", "image_url": read_picture(match[1])}
            parts += [{"type": "text", "text": text[position : match.start()]}, picture]
            position = match.end()
    parts.append({"type": "text", "text": text[position:]})
    # As it is written where a task is kept, and read again.
    if len(msgspec.json.encode([part["text"] for part in parts if part["type"] == "text"])) > MAX_TEXT_BYTES:
        raise ValueError(f"has more than {MAX_TEXT_BYTES} bytes of text")
    return parts


def _may_hold_pictures(text: LongString) -> bool:
    """Return whether a text may hold pictures, few enough and not too large to be looked for. Raises ValueError."""
    if text.size_bytes > MAX_MARKDOWN_BYTES:
        return False
    found = len(_MARKDOWN_START.findall(b"".join(text.pieces)))
    if found > MAX_MARKDOWN_PICTURES:
        raise ValueError(f"has more than {MAX_MARKDOWN_PICTURES} images as Markdown; send them as image_url")
    return found > 0


_CONTENT_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}
Content = Annotated[list[dict[str, Any]], BeforeValidator(read_content), Field(json_schema_extra=_CONTENT_SCHEMA)]


class Message(BaseModel):
    """One message of the conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = []
    images: Content = Field(
        default=[], description="Images from an earlier response of the model, sent back unchanged."
    )


class StreamOptions(BaseModel):
    """What a stream holds beside the pictures."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = None


class UsageOptions(BaseModel):
    """OpenRouter's way to ask for the usage."""

    model_config = ConfigDict(extra="ignore")

    include: bool | None = None


class ResponseFormat(BaseModel):
    """Of the words."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text"]


class ChatRequest(ImageShape):
    """OpenAI's request for a chat completion; other fields than these, such as temperature, are taken and change nothing."""

    model_config = ConfigDict(extra="ignore")

    messages: Annotated[list[Message], FailFast()] = Field(min_length=1)
    model: ModelName | None = None
    n: Integer | None = Field(
        default=1, ge=1, le=MAX_IMAGES, description="Each image is one call to Google and is billed."
    )
    modalities: list[Literal["text", "image"]] | None = Field(
        default=None, max_length=4, description="Default: text and image."
    )
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    usage: UsageOptions | None = None
    user: ShortText | None = Field(default=None, description="Written to the log.")
    safety_identifier: ShortText | None = Field(default=None, description="Same as `user`.")
    response_format: ResponseFormat | None = None
    service_tier: ServiceTier = None
    tools: Functions = None
    functions: Functions = None
    tool_choice: ToolChoice = None
    function_call: ToolChoice = None
    audio: NotHere = None
    logprobs: NotHere = None
    prediction: NotHere = None
    web_search_options: NotHere = None


def order_of(body: ChatRequest) -> Order:
    """Read a body into an order. Raises InvalidRequest when nobody but the system says anything."""
    said = [message for message in body.messages if message.role not in ("system", "developer")]
    turns = conversation(
        Turn(turn_parts([*message.content, *message.images]), message.role == "assistant") for message in said
    )
    if not turns:
        raise errors.InvalidRequest.of_fields([("messages", "have no text and no image from the user")])
    spoken = [message for message in body.messages if message.role in ("system", "developer")]
    system = [item for message in spoken for item in message.content]
    if any(item["type"] != "text" for item in system):
        raise errors.InvalidRequest.of_fields(
            [("messages", "of the system can have text only; send images in a user message")]
        )
    modalities = body.modalities or ["text", "image"]
    return Order(
        turns=turns,
        count=body.n or 1,
        model_name=body.model,
        user=body.user or body.safety_identifier,
        system="\n\n".join(item["text"] for item in system),
        modalities=[name.upper() for name in ("text", "image") if name in modalities],
        takes_words=True,
        service_tier=tier_of(body.service_tier),
        **body.shape(),
    )


def turn_parts(content: Iterable[dict[str, Any]]) -> list[Part]:
    """Return what a message's content says, given as `read_content` returns it; words that are blank say nothing."""
    parts = []
    for item in content:
        if item["type"] == "text":
            parts += [Part(item["text"])] if item["text"].strip() else []
        else:
            parts.append(picture_part(item["image_url"]))
    return parts


class ChatWriter(ResponseWriter):
    """A chat completion, or its chunks as events."""

    def __init__(self, body: ChatRequest, order: Order, *, as_links: bool) -> None:
        self.as_links = as_links
        self.streams = bool(body.stream)
        self._requested = order.count
        wants = (body.stream_options and body.stream_options.include_usage, body.usage and body.usage.include)
        self._includes_usage = any(wants)
        self._usages: list[Usage] = []
        self._id = ""
        self._head: dict[str, object] = {}

    def response(self, outcomes: Outcomes, exchange: Exchange) -> Response:
        """Return the completion."""
        return PiecesResponse(result(outcomes, as_links=self.as_links), "application/json")

    def event(self, outcome: Outcome, exchange: Exchange) -> Pieces:
        """Return the chunks of one choice; an error has none, because OpenAI's SDKs raise at the first."""
        if not isinstance(outcome.result, Image | Words):
            return ()
        self._id = self._id or _id(exchange.kept_id)
        self._head = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": outcome.created_at,
            "model": outcome.result.model,
        }
        self._usages.append(Usage.of(outcome.result.usage))
        pieces = [*self._chunk(outcome, [b'{"role":"assistant","content":""}'])]
        if outcome.result.text:
            pieces += self._chunk(outcome, [one_line({"content": outcome.result.text})])
        if isinstance(outcome.result, Image):
            pieces += self._chunk(outcome, [b'{"images":', *_images(outcome, as_links=self.as_links), b"}"])
        return [*pieces, *self._chunk(outcome, [b"{}"], _finish(outcome.result))]

    def error_event(self, error: errors.BananaError, exchange: Exchange) -> Pieces:
        """Return `error`, which ends the stream."""
        return [_event({"error": openai.error_object(exchange, error)}), _DONE]

    def last_event(self, failures: list[Failure], cost_usd: Decimal | None, exchange: Exchange) -> Pieces:
        """Return the usage, where that is wanted, and the end; an error when there is no choice at all."""
        if len(failures) == self._requested:
            return self.error_event(failures[0].error, exchange)
        usage = {"choices": [], "usage": openai.chat_usage_of(Usage.sum(self._usages), cost_usd)}
        return [*([_event(self._head | usage)] if self._includes_usage else []), _DONE]

    def _chunk(self, outcome: Outcome, delta: list[Bytes], finish: dict[str, object] | None = None) -> list[Bytes]:
        head = one_line(self._head)[:-1]
        end = one_line(finish or {"finish_reason": None})[1:]
        return [b"data: ", head, b',"choices":[{"index":%d,"delta":' % outcome.index, *delta, b",", end, b"]}\n\n"]


_DONE = b"data: [DONE]\n\n"


def result(outcomes: Outcomes, *, as_links: bool) -> Pieces:
    """Return the completion with data URIs around the base64 as it came, or with links, in pieces."""
    done = [outcome for outcome in outcomes.all if isinstance(outcome.result, Image | Words)]
    head = {
        "id": _id(outcomes.id),
        "object": "chat.completion",
        "created": outcomes.created_at,
        "model": next(outcome.result.model for outcome in done if isinstance(outcome.result, Image | Words)),
    }
    pieces: list[Bytes] = [one_line(head)[:-1], b',"choices":[']
    for number, outcome in enumerate(done):
        pieces += [b","] if number else []
        pieces += _choice(outcome, as_links=as_links)
    usage = openai.chat_usage_of(openai.usage_in(done), outcomes.cost_usd)
    return [*pieces, b'],"usage":', one_line(usage), b"}"]


def _choice(outcome: Outcome, *, as_links: bool) -> Iterator[Bytes]:
    assert isinstance(outcome.result, Image | Words)
    choice = {"index": outcome.index, "logprobs": None} | _finish(outcome.result)
    message = {"role": "assistant", "content": outcome.result.text, "refusal": None}
    yield one_line(choice)[:-1] + b',"message":' + one_line(message)[:-1]
    if isinstance(outcome.result, Image):
        yield b',"images":'
        yield from _images(outcome, as_links=as_links)
    yield b"}}"


def _images(outcome: Outcome, *, as_links: bool) -> list[Bytes]:
    """Return the list of the one image; a link where it is to be one and the image is kept, else a data URI."""
    url = [outcome.url.encode()] if as_links and outcome.url else data_uri_of(outcome)
    return [b'[{"type":"image_url","index":0,"image_url":{"url":"', *url, b'"}}]']


def _finish(done: Image | Words) -> dict[str, object]:
    """Return why a choice ended, in OpenAI's words and in Google's."""
    if isinstance(done, Image):
        return {"finish_reason": "stop", "native_finish_reason": "STOP"}
    reason = "content_filter" if done.is_refusal else "length" if done.finish_reason == "MAX_TOKENS" else "stop"
    return {"finish_reason": reason, "native_finish_reason": done.finish_reason}


def _id(kept_id: str | None) -> str:
    """Return the id of a completion: that of what is kept, so that a repeat has the same one."""
    return f"chatcmpl-{kept_id or uuid.uuid4().hex}"


def _event(data: dict[str, object]) -> bytes:
    return b"data: " + one_line(data) + b"\n\n"


PATH = "/v1/chat/completions"
DIALECT = Dialect("openai-chat", under("/v1/chat"), openai.error_response)
_EXAMPLE = {"messages": [{"role": "user", "content": documentation.EXAMPLE_PROMPT}]}
_EXAMPLE_MESSAGE = {
    "role": "assistant",
    "content": "Here it is.",
    "images": [{"type": "image_url", "index": 0, "image_url": {"url": "data:image/jpeg;base64,…"}}],
}
_EXAMPLE_RESPONSE = {
    "id": "chatcmpl-…",
    "object": "chat.completion",
    "created": 1795392000,
    "model": "gemini-3-pro-image",
    "choices": [{"index": 0, "finish_reason": "stop", "message": _EXAMPLE_MESSAGE}],
    "usage": {"prompt_tokens": 8, "completion_tokens": 1350, "total_tokens": 1358, "cost": 0.137176},
}
_CONTENT_TYPES = {
    "application/json": {
        "schema": {"type": "object", "required": ["id", "choices", "usage"]},
        "example": _EXAMPLE_RESPONSE,
    },
    "text/event-stream": {"schema": {}},
}


def _writer_for(body: ChatRequest, order: Order, _: Headers, services: Services) -> ChatWriter:
    return ChatWriter(body, order, as_links=services.chat_images_as_links)


ENDPOINT: ImageEndpoint[ChatRequest] = ImageEndpoint(
    path=PATH,
    body=ChatRequest,
    order_of=order_of,
    writer_for=_writer_for,
    result=result,
    explicit_base64="",
    dialect=DIALECT,
)
router = APIRouter(tags=["OpenAI"], dependencies=MAKES_IMAGES_ONCE)


@router.post(
    PATH,
    operation_id="createChatCompletion",
    summary="Chat with images",
    responses=documentation.responses(_CONTENT_TYPES, openai.ERROR_SCHEMA, or_task=True),
    openapi_extra={"requestBody": documentation.request_body(ChatRequest, _EXAMPLE)},
)
async def create_chat_completion(
    body: Annotated[ChatRequest, Depends(body_as(ChatRequest))], context: CurrentContext
) -> Response:
    """OpenAI's API format for chat, for chat applications.

    Text and images in, text and images (`images[]`) out, as JSON or as server-sent events with `stream`. Functions are accepted and never called. Fields that cannot be supported, such as `audio`, return an error that names
    them. Other fields, such as `temperature`, are accepted and ignored.
    """
    return await ENDPOINT.respond(body, context)
