"""The stand-in's server: Gemini's routes, its checks of a request, its answers; over a real socket."""

import asyncio
import base64
import binascii
import hashlib
import json
import re
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from standin import drawing, faults
from standin.serving import Listener

RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
WIDE_RATIOS = (*RATIOS, "1:4", "4:1", "1:8", "8:1")
# Model: its sizes and ratios.
MODELS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gemini-3-pro-image": (("1K", "2K", "4K"), RATIOS),
    "gemini-nano-banana-2.1": (("1K", "2K", "4K"), WIDE_RATIOS),
    "gemini-3.1-flash-image": (("512", "1K", "2K", "4K"), WIDE_RATIOS),
    "gemini-3.1-flash-lite-image": (("1K",), RATIOS),
    "gemini-2.5-flash-image": (("1K",), RATIOS),
}
# Models that refuse a part of their own that comes back unsigned: its images, and its words too.
SIGNED_IMAGES = ("gemini-3-pro-image", "gemini-3.1-flash-image")
SIGNED_WORDS = ("gemini-3-pro-image",)
# Google's documented value for a signature that is not there.
STAND_IN_SIGNATURE = "skip_thought_signature_validator"
FLEX_MODELS = ("gemini-3-pro-image",)
TOP_FIELDS = {
    *("contents", "generationConfig", "safetySettings", "systemInstruction", "store", "tools", "toolConfig", "labels"),
    *("cachedContent", "serviceTier"),
}
SIZE_NAMES = {f"IMAGE_SIZE_{name}": size for name, size in (("ONE_K", "1K"), ("TWO_K", "2K"), ("FOUR_K", "4K"))}
_NUMBERS = (
    *(
        "ZERO",
        "ONE",
        "TWO",
        "THREE",
        "FOUR",
        "FIVE",
        "SIX",
        "SEVEN",
        "EIGHT",
        "NINE",
        "TEN",
        "ELEVEN",
        "TWELVE",
        "THIRTEEN",
    ),
    *("FOURTEEN", "FIFTEEN", "SIXTEEN", "SEVENTEEN", "EIGHTEEN", "NINETEEN", "TWENTY", "TWENTY_ONE"),
)
RATIO_NAMES = {
    f"ASPECT_RATIO_{'_BY_'.join(_NUMBERS[int(side)] for side in ratio.split(':'))}": ratio for ratio in WIDE_RATIOS
}
# Of "Here it is."
WORDS = "Here it is."
WORDS_TOKENS = 5
INPUT_TYPES = ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")
MAX_COUNTED_PROMPTS = 10_000
_FAULT_IN_PROMPT = re.compile(r"\[fault:([\w-]+)\]")


class Refusal(Exception):
    """An error as Google answers it: HTTP status, google.rpc status, message."""

    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass
class Call:
    """One request as it arrived; `aborted` once the other side hung up before its answer was whole.

    `peer` is the other side's address and port: the connection it came on.
    """

    model: str
    key: str
    headers: dict[str, str]
    peer: tuple[str, int]
    body: dict[str, Any] = field(default_factory=dict)
    aborted: bool = False
    ended: bool = False


class _Recorded(Response):
    """What `answering` answers, once it has; `call` learns how it ended."""

    def __init__(self, call: Call, answering: Awaitable[Response]) -> None:
        super().__init__()
        self._call, self._answering = call, answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            try:
                response = await self._answering
            except Refusal as refusal:
                response = faults.error(refusal.code, refusal.status, str(refusal))
            await response(scope, receive, send)
        except asyncio.CancelledError:
            self._call.aborted = True
            raise
        finally:
            self._call.ended = True


class StandIn:
    """The server. `plan` holds faults for the next calls, in order; a prompt may also ask for one: `[fault:503]`.

    `bad_keys` are refused; `troubles` are faults by key, until they are taken out; `retired` are models that answer 404, and
    `answers_as` those that another one answers for. `calls` is what arrived. With `varies` the same prompt is another
    picture each time, as Google's.
    """

    def __init__(self, latency_seconds: float = 0, *, varies: bool = False) -> None:
        self.latency_seconds = latency_seconds
        self._drawn: Counter[str] | None = Counter() if varies else None
        self.plan: deque[faults.Fault | str | None] = deque()
        self.bad_keys: set[str] = set()
        self.troubles: dict[str, faults.Fault | str] = {}
        self.retired: set[str] = set()
        self.answers_as: dict[str, str] = {}
        self.calls: list[Call] = []
        self.base_url = ""
        self._listener: Listener | None = None

    async def start(self, port: int = 0) -> str:
        """Listen on loopback; return the base URL, with the version."""
        routes = []
        for version in ("v1", "v1beta"):
            models = f"/{version}/models"
            routes += [
                Route(models + "/{model}:generateContent", self._generate, methods=["POST"]),
                Route(models + "/{model}:streamGenerateContent", self._generate, methods=["POST"]),
                Route(models + "/{model}:countTokens", self._count_tokens, methods=["POST"]),
                Route(models, self._models),
                Route(models + "/{model}", self._models),
            ]
        app = Starlette(routes=routes, exception_handlers={Refusal: _refused, 404: _not_found, 405: _not_found})
        self._listener = Listener(app)
        await self._listener.start(port)
        self.base_url = f"http://127.0.0.1:{self._listener.port}/v1beta"
        return self.base_url

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._listener is not None:
            await self._listener.stop()

    async def _generate(self, request: Request) -> Response:
        assert request.client is not None
        headers = dict(request.headers)
        key = headers.get("x-goog-api-key", "")
        call = Call(request.path_params["model"], key, headers, (request.client.host, request.client.port))
        self.calls.append(call)
        return _Recorded(call, self._answer(request, call))

    async def _answer(self, request: Request, call: Call) -> Response:
        planned = self.plan.popleft() if self.plan else self.troubles.get(call.key)
        if planned is None:
            self._check_credentials(request, call)
        call.body = await _json(request)
        if call.model in self.retired:
            raise Refusal(404, "NOT_FOUND", f"models/{call.model} is not found for API version v1beta.")
        prompt, sources = _contents(call.body, call.model)
        named = _FAULT_IN_PROMPT.search(prompt)
        fault = planned or (named and named[1])
        if fault:
            picture = drawing.draw_base64(prompt, "1:1", "1K")
            act = faults.FAULTS[fault] if isinstance(fault, str) else fault
            return await act(request, picture)
        ratio, size = _image_config(call.model, call.body, sources)
        variant = self._variant(prompt)
        await asyncio.sleep(self.latency_seconds)
        picture = await asyncio.to_thread(drawing.draw_base64, prompt, ratio, size, sources, variant)
        whole = _whole(call, self.answers_as.get(call.model, call.model), picture, size, len(sources))
        if not request.url.path.endswith(":streamGenerateContent"):
            tier = call.body.get("serviceTier")
            return faults.answered(whole, headers={"x-gemini-service-tier": tier} if tier else {})
        thinking = answer(call.model, picture)
        thinking["usageMetadata"] = {"promptTokenCount": 8, "thoughtsTokenCount": 40, "totalTokenCount": 48}
        thinking["candidates"] = [{"content": {"role": "model", "parts": [{"text": "Drawing…", "thought": True}]}}]
        return _Streamed([thinking, whole], self.latency_seconds, events=request.query_params.get("alt") == "sse")

    def _variant(self, prompt: str) -> int:
        """Return how often a prompt came before, where that makes a difference."""
        if self._drawn is None:
            return 0
        if len(self._drawn) > MAX_COUNTED_PROMPTS:
            self._drawn.clear()
        self._drawn[prompt] += 1
        return self._drawn[prompt] - 1

    async def _count_tokens(self, request: Request) -> Response:
        words, _ = _contents(await _json(request), "")
        return faults.answered({"totalTokens": len(words.split())})

    async def _models(self, request: Request) -> Response:
        if not request.headers.get("x-goog-api-key"):
            return faults.error(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers.")
        if request.headers["x-goog-api-key"] in self.bad_keys:
            return faults.error(401, "UNAUTHENTICATED", "API key not valid. Please pass a valid API key.")
        wanted = request.path_params.get("model")
        known = [_described(name) for name in MODELS] + [_described("gemini-3-flash")]
        if wanted is None:
            return faults.answered({"models": known})
        found = next((model for model in known if model["name"] == f"models/{wanted}"), None)
        return faults.answered(found) if found else faults.error(404, "NOT_FOUND", f"models/{wanted} is not found.")

    def _check_credentials(self, request: Request, call: Call) -> None:
        if "authorization" in call.headers:
            raise Refusal(400, "INVALID_ARGUMENT", "Multiple authentication credentials received.")
        if not call.key:
            raise Refusal(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers.")
        if call.key in self.bad_keys:
            raise Refusal(401, "UNAUTHENTICATED", f"The key {call.key} is not valid.")
        if float(call.headers.get("x-server-timeout", 10)) < 10:
            raise Refusal(
                400, "INVALID_ARGUMENT", "Manually set deadline is too short. Minimum allowed deadline is 10s."
            )


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return faults.error(refusal.code, refusal.status, str(refusal))


async def _not_found(request: Request, _: Exception) -> Response:
    return faults.error(404, "NOT_FOUND", f"{request.method} {request.url.path} is not a method of this API.")


def answer(model: str, picture: str, mime_type: str = "image/jpeg") -> dict[str, Any]:
    """Return a whole answer with one image."""
    return {
        "candidates": [
            {
                "content": {"parts": [{"inlineData": {"mimeType": mime_type, "data": picture}}], "role": "model"},
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": _usage({"IMAGE": _image_tokens(model, "1K")}, 0),
        "modelVersion": model,
        "responseId": uuid.uuid4().hex,
    }


def _image_tokens(model: str, size: str) -> int:
    """Return the tokens of an image of that size, as Google's price list has them."""
    if model == "gemini-2.5-flash-image":
        return 1290
    is_pro = "pro" in model
    largest = 2000 if is_pro else 3780 if "banana-2.1" in model else 2520
    return {"512": 747, "1K": 1120, "2K": 1120 if is_pro else 1680, "4K": largest}[size]


def _usage(made: dict[str, int], sources: int) -> dict[str, Any]:
    """Return the count of tokens: `made` by modality, and of an input with so many pictures."""
    given = [{"modality": "TEXT", "tokenCount": 8}]
    if sources:
        given.append({"modality": "IMAGE", "tokenCount": 560 * sources})
    prompt, output = 8 + 560 * sources, sum(made.values())
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": output,
        "thoughtsTokenCount": 225,
        "totalTokenCount": prompt + output + 225,
        "promptTokensDetails": given,
        "candidatesTokensDetails": [{"modality": name, "tokenCount": count} for name, count in made.items() if count],
    }


class _Streamed(Response):
    """The parts one by one: as server-sent events, else as a JSON list."""

    def __init__(self, parts: list[dict[str, Any]], pause_seconds: float, *, events: bool) -> None:
        super().__init__(media_type="text/event-stream" if events else "application/json")
        del self.headers["content-length"]
        self._parts, self._pause_seconds, self._events = parts, pause_seconds, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for number, part in enumerate(self._parts):
            text = json.dumps(part)
            text = f"data: {text}\r\n\r\n" if self._events else f"{',' if number else '['}{text}"
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            await asyncio.sleep(self._pause_seconds)
        await send({"type": "http.response.body", "body": b"" if self._events else b"]"})


def _described(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "displayName": name,
        "inputTokenLimit": 65536,
        "outputTokenLimit": 32768,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise Refusal(400, "INVALID_ARGUMENT", f"Invalid JSON payload received. {error}") from None
    if not isinstance(body, dict) or not body.get("contents"):
        raise Refusal(400, "INVALID_ARGUMENT", "* GenerateContentRequest.contents: contents is not specified")
    if unknown := set(body) - TOP_FIELDS:
        raise Refusal(400, "INVALID_ARGUMENT", f'Invalid JSON payload received. Unknown name "{min(unknown)}"')
    return body


def _contents(body: dict[str, Any], model: str) -> tuple[str, list[bytes]]:
    """Return the words and the pictures of all parts."""
    words, pictures = [], []
    try:
        for role, place, part in _parts(body):
            if "text" in part:
                words.append(str(part["text"]))
                if role == "model" and not part.get("thought"):  # SDKs send thoughts back as they were streamed
                    _check_signature(part, words[-1].encode(), "Text", place, must_be=model in SIGNED_WORDS)
                continue
            data = part.get("inlineData") or part["inline_data"]
            mime_type = data.get("mimeType") or data.get("mime_type")
            if mime_type not in INPUT_TYPES:
                raise Refusal(400, "INVALID_ARGUMENT", f"Unsupported MIME type: {mime_type}")
            pictures.append(_decoded(data["data"]))
            if role == "model":
                _check_signature(part, pictures[-1], "Image", place, must_be=model in SIGNED_IMAGES)
    except (TypeError, KeyError, AttributeError):
        raise Refusal(400, "INVALID_ARGUMENT", "Invalid JSON payload received.") from None
    return " ".join(words), pictures


def _parts(body: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every part with its side and its place; refuses what Google refuses."""
    for number, content in enumerate(body["contents"], 1):
        role = content.get("role", "user")
        if role not in ("user", "model"):
            raise Refusal(400, "INVALID_ARGUMENT", "Please use a valid role: user, model.")
        if not content["parts"]:
            raise Refusal(
                400, "INVALID_ARGUMENT", "* GenerateContentRequest.contents: contents.parts must not be empty."
            )
        for position, part in enumerate(content["parts"], 1):
            yield role, f"in content position {number}, part position {position}", part


def _check_signature(part: dict[str, Any], content: bytes, kind: str, place: str, *, must_be: bool) -> None:
    """Refuse a part of the model's that is not signed, or with something else; bytes are compared, in either alphabet."""
    given = part.get("thoughtSignature", part.get("thought_signature"))
    if not given:
        if must_be:
            raise Refusal(400, "INVALID_ARGUMENT", f"{kind} part is missing a thought_signature {place}.")
        return
    known = (signature(content), STAND_IN_SIGNATURE, base64.b64encode(STAND_IN_SIGNATURE.encode()).decode())
    if _decoded(given) not in map(_decoded, known):
        raise Refusal(400, "INVALID_ARGUMENT", "Corrupted thought signature.")


def signature(content: bytes) -> str:
    """Return what an image or words of the model are signed with; as long as Google's are at times."""
    return base64.b64encode(hashlib.sha256(content).digest() * 40).decode()


def _whole(call: Call, model: str, picture: str, size: str, sources: int) -> dict[str, Any]:
    """Return the answer to a call: with words where they are asked for, and without a picture where that is not."""
    whole = answer(model, picture)
    modalities = call.body.get("generationConfig", {}).get("responseModalities", ["IMAGE"])
    (part,) = whole["candidates"][0]["content"]["parts"]
    parts = [part | {"thoughtSignature": signature(base64.b64decode(picture))}] if "IMAGE" in modalities else []
    words = [{"text": WORDS, "thoughtSignature": signature(WORDS.encode())}] if "TEXT" in modalities else []
    whole["candidates"][0]["content"]["parts"] = words + parts
    made = {"TEXT": WORDS_TOKENS if words else 0, "IMAGE": _image_tokens(model, size) if parts else 0}
    usage = _usage(made, sources)
    if tier := call.body.get("serviceTier"):
        usage["serviceTier"] = tier
    if any("googleSearch" in tool for tool in call.body.get("tools", [])):
        whole["candidates"][0]["groundingMetadata"] = {"webSearchQueries": ["what bananas look like"]}
    return whole | {"usageMetadata": usage}


def _decoded(text: str) -> bytes:
    """Google takes both alphabets, padded or not."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except binascii.Error:
        raise Refusal(400, "INVALID_ARGUMENT", "Base64 decoding failed for inline_data.data") from None


def _image_config(model: str, body: dict[str, Any], sources: list[bytes]) -> tuple[str, str]:
    """Return ratio and size, by default the shape of the first picture that was given; refuses what Google refuses."""
    if model not in MODELS:
        raise Refusal(404, "NOT_FOUND", f"models/{model} is not found for API version v1beta.")
    config = body.get("generationConfig", {})
    if config.get("candidateCount", 1) > 1:
        raise Refusal(400, "INVALID_ARGUMENT", "Multiple candidates is not enabled for this model")
    sizes, ratios = MODELS[model]
    tier = body.get("serviceTier")
    if tier not in (None, "flex", "priority") or (tier == "flex" and model not in FLEX_MODELS):
        raise Refusal(400, "INVALID_ARGUMENT", f"Service tier {tier} is not supported for {model}")
    image = config.get("imageConfig", {}) | config.get("responseFormat", {}).get("image", {})
    ratio, size = image.get("aspectRatio"), image.get("imageSize", "1K")
    ratio, size = RATIO_NAMES.get(ratio, ratio), SIZE_NAMES.get(size, size)
    if ratio is None:
        ratio = (drawing.nearest_ratio(sources[0], ratios) if sources else None) or "1:1"
    if size not in sizes:
        raise Refusal(400, "INVALID_ARGUMENT", f"Image size {size} is not supported for {model}; supported: {sizes}")
    if ratio not in ratios:
        raise Refusal(400, "INVALID_ARGUMENT", f"Aspect ratio {ratio} is not supported for {model}")
    return ratio, size
