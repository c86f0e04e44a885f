"""The body of a request, read as it arrives, within the deadline: JSON or a form, checked against a pydantic model.

Whatever is wrong is answered at once and by the name of the field.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from banana import errors
from banana.payload.beside import beside
from banana.payload.lazyjson import InvalidJson, JsonTooLarge, LazyJsonParser
from banana.payload.multipart import FormParser, InvalidForm, fields_of

Model = TypeVar("Model", bound=BaseModel)

# How many wrong fields an error names, and how much of a name it shows.
MAX_PROBLEMS = 20
SMALL_CHUNK_BYTES = 8192
_NOTHING: Mapping[str, object] = {}
MAX_NAME_CHARACTERS = 100
# What people send who have edited images with other models.
MASKS = ("mask", "input_image_mask")
NO_MASKS = "is not supported; describe the area to change in the prompt"


class BodyReader:
    """Reads bodies; `idle_seconds` is how long a caller may take without sending one byte."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds

    async def read(
        self,
        request: Request,
        model: type[Model],
        deadline: float,
        *,
        files: str | None,
        also: Mapping[str, object] = _NOTHING,
    ) -> Model:
        """Return the body as `model`. Raises InvalidRequest, TooLarge, Overloaded and DeadlineExceeded.

        JSON is validated strictly; long strings in it are `LongString`. A form has only strings, so that pydantic reads
        numbers and truth values from them; its files are given in the field `files`, as `EncodedPicture`; where that is
        None there are no forms. `deadline` is in seconds of the event loop's clock. `also` are fields that stand elsewhere.
        """
        content_type = request.headers.get("content-type", "")
        is_form = files is not None and content_type.lower().startswith("multipart/form-data")
        begins = b""
        try:
            parser = FormParser(content_type, files or "") if is_form else LazyJsonParser()

            def feed(chunk: bytes) -> None:
                nonlocal begins
                begins = begins or chunk[:1]
                parser.feed(chunk)

            size_bytes = await self._feed(feed, request, deadline)
            return await beside(size_bytes, _read, parser, model, files or "", also)
        except JsonTooLarge as error:
            raise errors.InvalidRequest.of_fields([("body", f"has {error}")]) from None
        except InvalidJson as error:
            problem = f"is not JSON: {error}"
            if content_type.lower().startswith("application/x-www-form-urlencoded") and begins not in b"{[ \r\n\t":
                # As curl's -d sends it by default, JSON as well.
                problem = "is not JSON: send JSON" + (", or a form with curl's -F instead of -d" if files else "")
            raise errors.InvalidRequest.of_fields([("body", problem)]) from None
        except InvalidForm as error:
            raise errors.InvalidRequest.of_fields([("body", f"is not a form: {error}")]) from None

    async def read_bytes(self, request: Request, deadline: float) -> list[bytes]:
        """Return the body as the chunks it came in. Raises TooLarge, Overloaded and DeadlineExceeded."""
        chunks: list[bytes] = []
        await self._feed(chunks.append, request, deadline)
        return [chunk for chunk in chunks if chunk]

    async def _feed(self, feed: Callable[[bytes], None], request: Request, deadline: float) -> int:
        """Give `feed` the body as it arrives; return its length.

        Raises DeadlineExceeded when it takes too long, whole or for one more byte.
        """
        loop = asyncio.get_running_loop()
        size_bytes = 0
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + self._idle_seconds)) as timer:
                small = bytearray()
                more_body = True
                while more_body:
                    chunk, more_body = await _next_chunk(request)
                    size_bytes += len(chunk)
                    if more_body:
                        timer.reschedule(min(deadline, loop.time() + self._idle_seconds))
                    if len(chunk) >= SMALL_CHUNK_BYTES and not small:
                        feed(chunk)
                        continue
                    # What is kept beside a chunk takes some 300 bytes: those of a few bytes are joined.
                    small += chunk
                    if len(small) >= SMALL_CHUNK_BYTES:
                        feed(bytes(small))
                        small.clear()
                feed(bytes(small))
        except TimeoutError:
            message = "The deadline passed before the whole request arrived."
            # Which of the two was waited for, not the clock: a loop's timers may end a clock's tick early.
            if timer.when() != deadline:
                message = (
                    f"The request's body stopped arriving for {self._idle_seconds:g} s. Nothing was sent to Google."
                )
            raise errors.DeadlineExceeded(message) from None
        return size_bytes


def _read(parser: FormParser | LazyJsonParser, model: type[Model], files: str, also: Mapping[str, object]) -> Model:
    """Return what was parsed as `model`. Raises InvalidJson, InvalidForm and InvalidRequest."""
    is_form = isinstance(parser, FormParser)
    document = fields_of(parser.close(), files) if is_form else parser.close()
    if isinstance(document, dict):
        document = {**document, **also}
    return _validated(document, model, strict=not is_form)


async def _next_chunk(request: Request) -> tuple[bytes, bool]:
    """Return the next part of the body, and whether there is more. Raises ClientDisconnect."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        await asyncio.sleep(0)  # the cancellation arrives here
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def _validated(document: Any, model: type[Model], *, strict: bool) -> Model:
    """Return `document` as `model`. Raises InvalidRequest, which names what is wrong, but no more than `MAX_PROBLEMS`."""
    # pydantic would write an error for each unknown field, however many there are.
    is_strange = model.model_config.get("extra") == "forbid"
    has_many_fields = is_strange and isinstance(document, dict) and len(document) > MAX_PROBLEMS
    unknown = set(document) - set(model.model_fields) if has_many_fields else set()
    if len(unknown) > MAX_PROBLEMS:
        names = [name for name in document if name in unknown][:MAX_PROBLEMS]
        raise _invalid_request([(name, _unknown_field(name, model)) for name in names], len(unknown))
    try:
        return model.model_validate(document, strict=strict)
    except ValidationError as error:
        problems = [_problem(item, model) for item in error.errors(include_input=False)]
        raise _invalid_request(problems, len(problems)) from None


def _invalid_request(problems: list[tuple[str, str]], count: int) -> errors.InvalidRequest:
    named: list[tuple[str, str]] = []
    for field, problem in problems[:MAX_PROBLEMS]:
        is_repeated = any(problem == earlier for _, earlier in named)
        named.append((_short(field), problem.partition(";")[0] if is_repeated else problem))
    if count > len(named):
        named.append(("body", f"has {count - len(named)} more problems"))
    return errors.InvalidRequest.of_fields(named)


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME_CHARACTERS else f"{name[:MAX_NAME_CHARACTERS]}…"


def _unknown_field(name: str, model: type[BaseModel]) -> str:
    if name in MASKS:
        return NO_MASKS
    return f"is not a known field; known are {', '.join(model.model_fields)}"


def _problem(item: Any, model: type[BaseModel]) -> tuple[str, str]:
    field = ".".join(map(str, item["loc"])) or "body"
    if item["type"] == "extra_forbidden":
        name = str(item["loc"][-1])
        return field, _unknown_field(name, model) if len(item["loc"]) == 1 or name in MASKS else "is not a known field"
    if item["type"] == "missing":
        return field, "is missing"
    if item["type"] == "model_type":
        return field, "is not a JSON object"
    return field, str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
