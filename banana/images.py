"""The one use case: an order becomes outcomes. Every API format makes its images here, and none is known here.

Each image of an order is a call of its own, all are made at once, and what goes wrong in one, expected or not, stays in
its own outcome: nothing that was paid for is lost because of another.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from banana import errors
from banana.exchange import Exchange
from banana.google.client import GeminiClient
from banana.google.models import ModelNames
from banana.google.wire import Image, ImageRequest
from banana.payload import conversion
from banana.payload.pictures import EncodedPicture
from banana.payload.pieces import Pieces

# Balancers and CDNs cut a silent connection after 60 s at the earliest.
SILENCE_SECONDS = 15
DEFAULT_QUALITY = 90

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller wants, whatever its API format.

    Attributes:
        prompt: what the images should show.
        pictures: to start from.
        count: how many images; each is a call, and is paid for.
        model: as the caller names it; None is the default.
        aspect_ratio, image_size: as Google names them; None leaves them to the model.
        output_format: `png`, `jpeg` or `webp`; None is as Google sends it.
        output_quality: of jpeg and webp, from 1 to 100.
        user: the end user that the caller names, for the log.

    """

    prompt: str
    pictures: Sequence[EncodedPicture] = ()
    count: int = 1
    model: str | None = None
    aspect_ratio: str | None = None
    image_size: str | None = None
    output_format: str | None = None
    output_quality: int | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call of an order became: an image, or an error. `index` counts the calls from 0."""

    index: int
    image: Image | None = None
    error: errors.BananaError | None = None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What an order became, in the order of its calls; at least one is an image."""

    all: Sequence[Outcome]

    @property
    def images(self) -> list[Image]:
        """The images, in the order of the calls that succeeded."""
        return [outcome.image for outcome in self.all if outcome.image is not None]

    @property
    def failures(self) -> list[Outcome]:
        """The outcomes that are errors."""
        return [outcome for outcome in self.all if outcome.error is not None]


class Images:
    """Makes images.

    Args:
        client: the calls to Google.
        models: resolves the model's name that a caller gives.
        store: Google's flag of that name; None leaves it out.
        log_prompts: whether the log has prompts.

    """

    def __init__(self, client: GeminiClient, models: ModelNames, *, store: bool | None, log_prompts: bool) -> None:
        self._client = client
        self._models = models
        self._store = store
        self._log_prompts = log_prompts

    async def make(self, order: Order, exchange: Exchange) -> Outcomes:
        """Make all images of `order`; return what each call became. Raises the first error when there is no image."""
        calls = self._calls(order, exchange)
        outcomes = [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls)
        for outcome in outcomes:
            _count(outcome, exchange)
        if not exchange.images_returned:
            raise _first_error(outcomes)
        return Outcomes(outcomes)

    async def stream(self, order: Order, exchange: Exchange) -> AsyncGenerator[Outcome | None, None]:
        """Make all images of `order`; yield what each call became as soon as it has.

        After every `SILENCE_SECONDS` without one, yields None. Closed before its end, it cancels what still runs.
        """
        pending = {asyncio.create_task(call) for call in self._calls(order, exchange)}
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=SILENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    yield None
                for outcome in sorted((task.result() for task in done), key=lambda outcome: outcome.index):
                    _count(outcome, exchange)
                    yield outcome
        finally:
            for task in pending:
                task.cancel()

    def _calls(self, order: Order, exchange: Exchange) -> list[Coroutine[Any, Any, Outcome]]:
        """Return the calls of `order`, none of them begun."""
        exchange.model = model = self._models.resolve(order.model)
        exchange.images_requested = order.count
        exchange.images_returned = 0
        exchange.user = order.user or None
        exchange.prompt = order.prompt if self._log_prompts else None
        request = ImageRequest(order.prompt, order.pictures, order.aspect_ratio, order.image_size, self._store)
        body = request.body()
        return [self._outcome(index, model, body, order, exchange) for index in range(order.count)]

    async def _outcome(self, index: int, model: str, body: Pieces, order: Order, exchange: Exchange) -> Outcome:
        """Make one image; return it, or the error."""
        try:
            image = await self._client.image(model, body, exchange)
        except errors.BananaError as error:
            return Outcome(index, error=error)
        except Exception:
            log.exception("internal_error")
            return Outcome(index, error=errors.Internal())
        return Outcome(index, await _in_format(image, order))


def _count(outcome: Outcome, exchange: Exchange) -> None:
    """Count one outcome in the exchange; its error is the first one's, and none once there is an image."""
    if outcome.error is None:
        exchange.images_returned = (exchange.images_returned or 0) + 1
        exchange.error_code = None
    elif not exchange.images_returned and exchange.error_code is None:
        exchange.error_code = outcome.error.code


def _first_error(outcomes: Sequence[Outcome]) -> errors.BananaError:
    return next(outcome.error for outcome in outcomes if outcome.error is not None)


async def _in_format(image: Image, order: Order) -> Image:
    """Return the image in the format of the order; as it came when none is named, or when it cannot be converted."""
    if order.output_format is None or conversion.FORMATS[order.output_format] == image.mime_type:
        return image
    quality = order.output_quality or DEFAULT_QUALITY
    try:
        picture = await asyncio.to_thread(conversion.convert, image.picture, order.output_format, quality)
    except Exception as error:  # it was paid for: as it came is better than not at all, whatever Pillow raises
        log.warning("not_converted", error=type(error).__name__, output_format=order.output_format)
        return image
    return Image(picture, conversion.FORMATS[order.output_format], image.usage)
