"""`POST /generate`, our own dialect: a prompt and pictures in, pictures out."""

from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from operator import itemgetter
from typing import Any, Literal

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from banana import answers, bodies, errors, gemini
from banana.asgi import facts_of, note, request_id_of
from banana.bodies import ModelName, Pictures, Prompt
from banana.relay import Relay
from banana.skeleton import Bytes

MAX_IMAGES = 10
# Balancers and CDNs cut a silent connection after 60 s at the earliest.
COMMENT_SECONDS = 15
Outcome = gemini.Image | errors.BananaError
AspectRatio = Literal[
    "1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "1:4", "4:1", "1:8", "8:1"
]
ImageSize = Literal["512", "1K", "2K", "4K"]


class GenerateRequest(BaseModel):
    """What to make."""

    model_config = ConfigDict(extra="forbid", strict=True, title="GenerateRequest")

    prompt: Prompt = Field(description="What the picture should show; not blank.", examples=["A banana on the moon"])
    image_base64: Pictures = Field(default=(), description="A picture to start from, or a list of up to 14.")
    model: ModelName | None = Field(default=None, description="Gemini's image model; the default when left out.")
    number_of_images: int | None = Field(default=1, ge=1, le=MAX_IMAGES, description="Each is a call, and is paid for.")
    aspect_ratio: AspectRatio | None = None
    image_size: ImageSize | None = None


class GenerateAnswer(BaseModel):
    """The pictures as base64, in the order of the calls that succeeded."""

    images: list[str]
    metadata: dict[str, Any] | None = Field(
        description="null, or after a partial success: requested, returned, and failed as a list of index, code, message."
    )


def router(relay: Relay) -> APIRouter:
    """Return the route."""

    async def generate(request: Request) -> Response:
        """Make pictures from words, and from pictures.

        With `Accept: image/*` and one image, the answer is the picture itself; with `Accept: text/event-stream` it is
        server-sent events: `image` for each one as soon as it is there, `failed`, and `done` at the end.
        """
        deadline = relay.deadline()
        try:
            asked = await bodies.read(
                request, GenerateRequest, deadline, pictures="image_base64", integers=("number_of_images",)
            )
            model = relay.model(asked.model)
            count = asked.number_of_images or 1
            note(
                request.scope,
                model=model,
                images_asked=count,
                **({"prompt": asked.prompt} if relay.log_prompts else {}),
            )
            wanted = gemini.ImageRequest(
                asked.prompt, asked.image_base64, asked.aspect_ratio, asked.image_size, relay.store
            )
            liked = _liked(request.headers.get("accept", ""))
            if liked == "text/event-stream":
                made = relay.upstream.images_as_made(
                    model, wanted, count, deadline, facts_of(request.scope), COMMENT_SECONDS
                )
                return answers.Stream(_events(request, made, count), "text/event-stream")
            work = _answer(
                request,
                relay.upstream.images(model, wanted, count, deadline, facts_of(request.scope)),
                as_picture=liked.startswith("image/"),
            )
            # Whitespace cannot stand before a picture: one that was asked for as itself is waited for in silence.
            silence_seconds = 0 if liked.startswith("image/") and count == 1 else relay.keepalive_seconds
            return await answers.KeptAlive.unless_soon(work, silence_seconds)
        except errors.BananaError as error:
            return answers.tell(request, error)

    routes = APIRouter(tags=["images"], route_class=answers.PlainRoute)
    routes.add_api_route(
        "/generate",
        relay.guard(generate, answers.tell),
        methods=["POST"],
        operation_id="generate",
        response_class=Response,
        responses=answers.documented(_ANSWER_CONTENT, errors.SCHEMA),
        openapi_extra={"requestBody": bodies.request_body(GenerateRequest, "image_base64")},
    )
    return routes


_ANSWER_CONTENT: dict[str, Any] = {
    "application/json": {"schema": GenerateAnswer.model_json_schema()},
    "image/*": {"schema": {"type": "string", "format": "binary"}},
    "text/event-stream": {"schema": {}},
}


async def _answer(request: Request, made: Awaitable[Sequence[Outcome]], *, as_picture: bool) -> Response:
    """Return the answer that tells what became of the calls: the images there are, else the first error."""
    outcomes = await made
    images = [outcome for outcome in outcomes if isinstance(outcome, gemini.Image)]
    failures = [(index, outcome) for index, outcome in enumerate(outcomes) if isinstance(outcome, errors.BananaError)]
    note(request.scope, images_returned=len(images))
    if not images:
        return answers.tell(request, failures[0][1])
    if len(outcomes) == 1 and as_picture:
        return answers.PiecesResponse(list(images[0].picture.decoded()), images[0].mime_type)
    metadata = _summary(len(outcomes), failures) if failures else None
    return answers.PiecesResponse(_json(images, metadata), "application/json")


def _summary(requested: int, failures: Sequence[tuple[int, errors.BananaError]]) -> dict[str, Any]:
    failed = [{"index": index, "code": error.code, "message": error.message} for index, error in failures]
    return {"requested": requested, "returned": requested - len(failed), "failed": failed}


def _json(images: Sequence[gemini.Image], metadata: dict[str, Any] | None) -> list[Bytes]:
    """Return the answer around the base64 as it came, in pieces."""
    pieces: list[Bytes] = []
    for image in images:
        pieces.append(b'","' if pieces else b'{"images":["')
        pieces.extend(image.picture.pieces)
    pieces.append(b'"],"metadata":' + msgspec.json.encode(metadata) + b"}")
    return pieces


async def _events(
    request: Request, made: AsyncGenerator[tuple[int, Outcome] | None, None], requested: int
) -> AsyncGenerator[Sequence[Bytes], None]:
    """Yield an event for each image and each failure, a comment for each silence, and `done`."""
    failures: list[tuple[int, errors.BananaError]] = []
    async with aclosing(made) as outcomes:
        async for item in outcomes:
            if item is None:
                yield answers.COMMENT
                continue
            index, outcome = item
            if isinstance(outcome, gemini.Image):
                start = b'event: image\ndata: {"index":%d,"mime_type":"%s","image":"'
                yield [start % (index, outcome.mime_type.encode()), *outcome.picture.pieces, b'"}\n\n']
            else:
                failures.append((index, outcome))
                note(request.scope, code=outcome.code)
                told = outcome.body(request_id_of(request.scope))["error"]
                yield [b"event: failed\ndata: " + msgspec.json.encode({"index": index, "error": told}) + b"\n\n"]
    failures.sort(key=lambda failure: failure[0])
    note(request.scope, images_returned=requested - len(failures))
    yield [b"event: done\ndata: " + msgspec.json.encode(_summary(requested, failures)) + b"\n\n"]


def _liked(accept: str) -> str:
    """Return the media range that the caller likes best, the first of equals; nothing refused counts."""
    ranges = [item.partition(";") for item in accept.lower().split(",")]
    quality, name = max(((_quality(parameters), name.strip()) for name, _, parameters in ranges), key=itemgetter(0))
    return name if quality > 0 else ""


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0
    return 1
