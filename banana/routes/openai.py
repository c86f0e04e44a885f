"""OpenAI's dialect: `/v1/images/generations`, `/v1/images/edits`, `/v1/models`, for programs written for its SDKs.

What cannot be honoured is refused by name, before anything is paid for. Source: OpenAI's API reference, Images and Models.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from typing import Literal

import msgspec
import pybase64
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.requests import Request
from starlette.responses import Response

from banana import answers, bodies, conversion, errors, gemini
from banana.asgi import facts_of, note, request_id_of
from banana.bodies import ModelName, Pictures, Prompt
from banana.pictures import EncodedPicture
from banana.ratelimit import Handler
from banana.relay import Relay
from banana.skeleton import Bytes
from banana.upstream import Call

COMMENT_SECONDS = 15
# The ratios that every current model takes.
RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
# Between 1024 and 2048, and between that and 4096 pixels: a side of a square as large as the size asked for.
TWO_K_PIXELS, FOUR_K_PIXELS = 1448, 2896
MAX_SIDE_PIXELS = 4096
# What OpenAI calls the kinds of error.
TYPES = {401: "authentication_error", 429: "rate_limit_error"}
INTEGERS = ("n", "output_compression", "partial_images")
Outcome = gemini.Image | errors.BananaError


class ImageRequest(BaseModel):
    """OpenAI's request for images; `image` holds the pictures of an edit."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Prompt = Field(examples=["A banana on the moon"])
    model: ModelName | None = None
    n: int | None = Field(default=1, ge=1, le=10, description="Each is a call, and is paid for.")
    size: str | None = Field(default="auto", description="WxH in pixels: the nearest ratio and size; or auto.")
    response_format: Literal["b64_json", "url"] | None = Field(default=None, description="url is a data URI.")
    output_format: Literal["png", "jpeg", "webp"] | None = Field(
        default=None, description="Left out: as Google sent it."
    )
    output_compression: int | None = Field(default=None, ge=1, le=100, description="Quality of jpeg and webp.")
    stream: bool | None = False
    partial_images: int | None = Field(
        default=None, ge=0, le=3, description="There are never any; OpenAI may send fewer too."
    )
    user: str | None = Field(default=None, max_length=256, description="Noted in the log.")
    quality: Literal["auto", "standard", "medium"] | None = None
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto"] | None = None

    @field_validator("size")
    @classmethod
    def _is_a_size(cls, value: str | None) -> str | None:
        wide, cross, high = (value or "auto").partition("x")
        if value in (None, "auto"):
            return value
        if not (cross and wide.isdecimal() and high.isdecimal() and len(value or "") <= 11):
            raise ValueError("must be auto or WxH in pixels")
        if not all(0 < int(side) <= MAX_SIDE_PIXELS for side in (wide, high)):
            raise ValueError(f"must have sides from 1 to {MAX_SIDE_PIXELS} pixels")
        return value

    @field_validator("stream", mode="before")
    @classmethod
    def _of_a_form(cls, value: object) -> object:
        return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value

    def gives_url(self) -> bool:
        """Tell whether the answer has URLs: when asked for, and by OpenAI's default for its models of old."""
        default = "url" if (self.model or "").startswith("dall-e") else "b64_json"
        return (self.response_format or default) == "url"

    def shape(self) -> tuple[str | None, str | None]:
        """Return Gemini's aspect ratio and size for the size asked for, the nearest there are."""
        if self.size is None or self.size == "auto":
            return None, None
        wide, high = map(int, self.size.split("x"))
        side = math.sqrt(wide * high)
        size = "4K" if side > FOUR_K_PIXELS else "2K" if side > TWO_K_PIXELS else "1K"
        return min(RATIOS, key=lambda ratio: abs(math.log(_quotient(ratio) * high / wide))), size


class EditRequest(ImageRequest):
    """The same, with pictures to start from."""

    image: Pictures = Field(min_length=1, description="A picture to start from, or up to 14.")
    input_fidelity: Literal["high"] | None = None


def tell(request: Request, error: errors.BananaError) -> Response:
    """Return the error in OpenAI's shape; its SDKs are not to repeat what was repeated here, or cannot succeed."""
    note(request.scope, code=error.code)
    status = 400 if error.status == 422 else error.status
    headers = error.headers | {"x-should-retry": "false"}
    return Response(msgspec.json.encode({"error": _told(request, error)}), status, headers, "application/json")


def _told(request: Request, error: errors.BananaError) -> dict[str, object]:
    fields = error.extra.get("fields")
    param = fields[0]["field"] if isinstance(fields, list) and fields else None
    kind = TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    code = "moderation_blocked" if error.code == "blocked" else error.code
    told = {"message": error.message, "type": kind, "param": param, "code": code}
    return told | {"request_id": request_id_of(request.scope)} | error.extra


def router(relay: Relay) -> APIRouter:
    """Return the routes of images."""

    def making(model: type[ImageRequest], event: str) -> Handler:
        async def make(request: Request) -> Response:
            deadline = relay.deadline()
            note(request.scope, dialect="openai")
            try:
                asked = await bodies.read(request, model, deadline, pictures="image", integers=INTEGERS)
                name = relay.model(asked.model)
                count = asked.n or 1
                told = {"user": asked.user, "prompt": asked.prompt if relay.log_prompts else None}
                given = {field: value for field, value in told.items() if value}
                note(request.scope, model=name, images_asked=count, **given)
                pictures = asked.image if isinstance(asked, EditRequest) else ()
                wanted = gemini.ImageRequest(asked.prompt, pictures, *asked.shape(), relay.store)
                facts = facts_of(request.scope)
                if asked.stream:
                    made = relay.upstream.images_as_made(name, wanted, count, deadline, facts, COMMENT_SECONDS)
                    return answers.Stream(_events(request, asked, made, event), "text/event-stream")
                work = _answer(request, asked, relay.upstream.images(name, wanted, count, deadline, facts))
                return await answers.KeptAlive.unless_soon(work, relay.keepalive_seconds)
            except errors.BananaError as error:
                return tell(request, error)

        return make

    routes = APIRouter(tags=["OpenAI"], route_class=answers.PlainRoute)
    routes.add_api_route(
        "/v1/images/generations",
        relay.guard(making(ImageRequest, "image_generation"), tell),
        methods=["POST"],
        operation_id="createImage",
        summary="Make pictures from words",
        responses=answers.documented(_ANSWER, _ERROR),
        openapi_extra={"requestBody": bodies.request_body(ImageRequest, "image", form=False)},
    )
    routes.add_api_route(
        "/v1/images/edits",
        relay.guard(making(EditRequest, "image_edit"), tell),
        methods=["POST"],
        operation_id="createImageEdit",
        summary="Make pictures from pictures",
        responses=answers.documented(_ANSWER, _ERROR),
        openapi_extra={"requestBody": bodies.request_body(EditRequest, "image")},
    )
    return routes


_ANSWER = {
    "application/json": {"schema": {"type": "object", "required": ["created", "data"]}},
    "text/event-stream": {"schema": {}},
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "object", "required": ["message"]}}}


def models(relay: Relay) -> Handler:
    """Return the handler of `/v1/models[/{model}]`: Google's image models in OpenAI's shape."""

    async def openai_models(request: Request) -> Response:
        deadline = relay.deadline()
        note(request.scope, dialect="openai")
        try:
            answer = await relay.upstream.forward(
                Call("", "models?pageSize=1000", (), "GET"), deadline, facts_of(request.scope)
            )
            known = _models_in(b"".join(answer.chunks))
        except errors.BananaError as error:
            return tell(request, error)
        wanted = request.path_params.get("model")
        if wanted is None:
            return _json({"object": "list", "data": known})
        name = relay.model(wanted)
        if found := next((model for model in known if model["id"] == name), None):
            return _json(found)
        return tell(request, errors.ModelNotFound(f"The model {wanted} does not exist."))

    return relay.guard(openai_models, tell)


def _models_in(body: bytes) -> list[dict[str, object]]:
    try:
        listed = msgspec.json.decode(body)["models"]
        names = [model["name"].removeprefix("models/") for model in listed]
    except (msgspec.MsgspecError, ValueError, LookupError, TypeError, AttributeError):
        raise errors.InvalidAnswer("Google's list of models is not in its format.") from None
    makes_images = [name for name in names if "image" in name or "banana" in name]
    return [{"id": name, "object": "model", "created": 0, "owned_by": "google"} for name in makes_images]


async def _answer(request: Request, asked: ImageRequest, outcomes: Awaitable[Sequence[Outcome]]) -> Response:
    """Return OpenAI's answer with the images there are, or the first error."""
    made = await outcomes
    images = [one for one in made if isinstance(one, gemini.Image)]
    note(request.scope, images_returned=len(images))
    if not images:
        return tell(request, next(one for one in made if isinstance(one, errors.BananaError)))
    pieces: list[Bytes] = [b'{"created":%d,"data":[' % time.time()]
    for number, image in enumerate(images):
        picture, mime_type = await _in_format(image, asked)
        pieces += [b"," * (number > 0), *_picture_field(asked, picture, mime_type, b"{"), b"}"]
    pieces.append(b'],"usage":' + msgspec.json.encode(_usage(images)) + b"}")
    return answers.PiecesResponse([piece for piece in pieces if len(piece)], "application/json")


async def _events(
    request: Request, asked: ImageRequest, made: AsyncGenerator[tuple[int, Outcome] | None, None], event: str
) -> AsyncGenerator[Sequence[Bytes], None]:
    """Yield OpenAI's event for each image; an error only when there is none, because its SDKs raise at one."""
    failures: list[errors.BananaError] = []
    returned = 0
    async with aclosing(made) as outcomes:
        async for item in outcomes:
            if item is None:
                yield answers.COMMENT
            elif isinstance(item[1], errors.BananaError):
                failures.append(item[1])
            else:
                returned += 1
                picture, mime_type = await _in_format(item[1], asked)
                told = {
                    "type": f"{event}.completed",
                    "created_at": int(time.time()),
                    "size": asked.size or "auto",
                    "quality": asked.quality or "auto",
                    "background": "opaque",
                    "output_format": mime_type.removeprefix("image/"),
                    "usage": _usage([item[1]]),
                }
                start = f"event: {event}.completed\ndata: ".encode() + msgspec.json.encode(told)[:-1] + b","
                yield [*_picture_field(asked, picture, mime_type, start), b"}\n\n"]
    note(request.scope, images_returned=returned)
    if not returned:
        note(request.scope, code=failures[0].code)
        yield [b"event: error\ndata: " + msgspec.json.encode({"error": _told(request, failures[0])}) + b"\n\n"]


def _picture_field(asked: ImageRequest, picture: EncodedPicture, mime_type: str, start: bytes) -> list[Bytes]:
    """Return `start` and the field that holds a picture, as base64 or as a data URI."""
    if asked.gives_url():
        return [start + f'"url":"data:{mime_type};base64,'.encode(), *picture.pieces, b'"']
    return [start + b'"b64_json":"', *picture.pieces, b'"']


async def _in_format(image: gemini.Image, asked: ImageRequest) -> tuple[EncodedPicture, str]:
    """Return the picture in the format asked for; as it came when none was, or when it cannot be read."""
    wanted = conversion.FORMATS.get(asked.output_format or "", image.mime_type)
    if wanted == image.mime_type or asked.output_format is None:
        return image.picture, image.mime_type
    try:
        picture = await asyncio.to_thread(
            conversion.convert, b"".join(image.picture.decoded()), asked.output_format, asked.output_compression or 90
        )
    except OSError:  # it was paid for: as it came is better than not at all
        return image.picture, image.mime_type
    return EncodedPicture(wanted, [pybase64.b64encode(picture)], picture[:32]), wanted


def _usage(images: Sequence[gemini.Image]) -> dict[str, object]:
    def total(*names: str) -> int:
        counts = (image.usage.get(name) for image in images for name in names)
        return sum(count for count in counts if isinstance(count, int))

    words = total("promptTokenCount")
    return {
        "input_tokens": words,
        "input_tokens_details": {"text_tokens": words, "image_tokens": 0},
        "output_tokens": total("candidatesTokenCount", "thoughtsTokenCount"),
        "total_tokens": total("totalTokenCount"),
    }


def _quotient(ratio: str) -> float:
    wide, high = ratio.split(":")
    return int(wide) / int(high)


def _json(document: object) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")
