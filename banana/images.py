"""The one use case: an order becomes outcomes. Every API format makes its images here, and none is known here.

Each image of an order is a call of its own, all are made at once, and what goes wrong in one, expected or not, stays in
its own outcome: nothing that was paid for is lost because of another.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from decimal import Decimal
from functools import partial
from typing import Any

import structlog
from msgspec import Struct, field
from msgspec.structs import replace

from banana import errors
from banana.exchange import Exchange
from banana.google.capabilities import nearest_size, shape_of, size_of_quality
from banana.google.client import Call, GeminiClient
from banana.google.contents import CostBasis, GenerateContentRequest, Turn
from banana.google.models import ModelNames
from banana.google.prices import Prices
from banana.google.wire import Image, Words
from banana.intervals import INTERVALS, Intervals
from banana.payload import conversion

DEFAULT_QUALITY = 90
# Google takes a seed of 31 bits.
SEEDS = 1 << 31

log = structlog.get_logger(__name__)


class Order(Struct, frozen=True):
    """What a caller wants, whatever its API format.

    Attributes:
        turns: what the images should show: words and pictures, in a conversation the oldest first.
        count: how many images; each is a call, and is paid for.
        model_name: as the caller gives it; None is the default.
        aspect_ratio, image_size: as Google names them; None leaves them to the pixels, or the model.
        pixels: width and height; the nearest shape that the model makes is taken.
        thinking_level: as Google names it; None leaves it to the model.
        seed: of the first image; each further one has the next. None leaves it to the model.
        quality: by name, as OpenAI has it; without an image size it means one, where the model has it.
        output_format: `png`, `jpeg` or `webp`; None is as Google sends it.
        output_quality: of jpeg and webp, from 0 to 100; None is Google's, or the usual one for another format.
        user: the end user that the caller names, for the log.
        system: words that hold for the whole conversation.
        modalities: what is asked for, `TEXT` and `IMAGE`.
        takes_words: whether words are a result, instead of an image too, and those of a refusal.
        service_tier: `flex` or `priority`; empty is Google's own.
        developer: words of the system that belong to the conversation.
        previous: the id of an earlier response whose conversation goes before the turns; empty where there is none.
        stores_input: whether the turns are stored, so that the response can be such a one.

    """

    turns: Sequence[Turn]
    count: int = 1
    model_name: str | None = None
    aspect_ratio: str | None = None
    image_size: str | None = None
    pixels: tuple[int, int] | None = None
    thinking_level: str | None = None
    seed: int | None = None
    quality: str | None = None
    output_format: str | None = None
    output_quality: int | None = None
    user: str | None = None
    system: str = ""
    modalities: Sequence[str] = ("IMAGE",)
    takes_words: bool = False
    service_tier: str = ""
    developer: str = ""
    previous: str = ""
    stores_input: bool = False

    @property
    def all_system(self) -> str:
        """All words of the system."""
        return "\n\n".join(filter(None, (self.system, self.developer)))

    @property
    def prompt(self) -> str:
        """The words of the last turn."""
        return "\n".join(part.text for part in self.turns[-1].parts if part.text) if self.turns else ""


class Outcome(Struct, frozen=True):
    """What one call became.

    Attributes:
        index: of the call, from 0.
        result: an image, words where they count, the whole response of a call that was passed on, or an error.
        created_at: when, in seconds of the epoch.
        file: under which it is kept; empty when it is not.
        url: a link to the kept image; empty where there is none.

    """

    index: int
    result: Image | Words | errors.UpstreamResponse | errors.BananaError
    created_at: int = field(default_factory=lambda: int(time.time()))
    file: str = ""
    url: str = ""


class Failure(Struct, frozen=True):
    """An outcome that is an error."""

    index: int
    error: errors.BananaError


class Outcomes(Struct, frozen=True):
    """What an order became, in the order of its calls.

    Attributes:
        all: the outcomes.
        id: of what is kept of it, if anything.
        since: when that was begun, in seconds of the epoch.

    """

    all: Sequence[Outcome]
    id: str = ""
    since: int = 0

    @property
    def created_at(self) -> int:
        """When the last of them was there, in seconds of the epoch."""
        return max(outcome.created_at for outcome in self.all)

    @property
    def cost_usd(self) -> Decimal | None:
        """What all calls cost, as far as that is known; None where nothing is."""
        return sum_of(outcome.result.cost_usd for outcome in self.all)

    @property
    def successes(self) -> list[Outcome]:
        """Those that are images."""
        return [outcome for outcome in self.all if isinstance(outcome.result, Image)]

    @property
    def images(self) -> list[Image]:
        """The images, in the order of the calls that succeeded."""
        return [outcome.result for outcome in self.all if isinstance(outcome.result, Image)]

    @property
    def failures(self) -> list[Failure]:
        """The errors, in the order of the calls that failed."""
        results = ((outcome.index, outcome.result) for outcome in self.all)
        return [Failure(index, result) for index, result in results if isinstance(result, errors.BananaError)]


def sum_of(costs: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum of what is known; None where nothing is."""
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal(0)) if known else None


class Images:
    """Makes images.

    Args:
        client: the calls to Google.
        models: resolves the model's name that a caller gives.
        converter: where pictures are converted; its threads bound how many are decoded at once, 50 MB each.
        google_store: Google's flag `store`; None leaves it out.
        log_prompts: whether the log has prompts.
        prices: of the calls.

    """

    def __init__(
        self,
        client: GeminiClient,
        models: ModelNames,
        converter: Executor,
        *,
        google_store: bool | None,
        log_prompts: bool,
        prices: Prices,
        intervals: Intervals = INTERVALS,
    ) -> None:
        self._silence_seconds = intervals.silence
        self._prices = prices
        self._client = client
        self._models = models
        self._converter = converter
        self._google_store = google_store
        self._log_prompts = log_prompts

    async def make(self, order: Order, exchange: Exchange) -> Outcomes:
        """Make all images of `order`; return what each call became. Raises the first error when there is nothing else."""
        calls = self._calls(order, exchange)
        outcomes = Outcomes([await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls))
        exchange.images_returned = len(outcomes.images)
        failures = outcomes.failures
        if len(failures) == len(outcomes.all):
            raise failures[0].error
        return outcomes

    async def stream(self, order: Order, exchange: Exchange) -> AsyncGenerator[Outcome | None, None]:
        """Make all images of `order`; yield what each call became as soon as it has.

        After a silence (`Intervals`), yields None. Closed before its end, it cancels what still runs.
        """
        pending = {asyncio.create_task(call) for call in self._calls(order, exchange)}
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=self._silence_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    yield None
                for outcome in sorted((task.result() for task in done), key=lambda outcome: outcome.index):
                    if isinstance(outcome.result, Image):
                        exchange.images_returned += 1
                    yield outcome
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def _calls(self, order: Order, exchange: Exchange) -> list[Coroutine[Any, Any, Outcome]]:
        """Return the calls of `order` as coroutines, not started."""
        exchange.model = model = self._models.resolve(order.model_name)
        exchange.images_requested = order.count
        exchange.images_returned = 0
        exchange.user = order.user or None
        exchange.prompt = order.prompt if self._log_prompts else None
        fitted = _fitted(order, model) if self._models.is_successor(order.model_name) else order
        if order.seed is None:
            calls = [self._call(fitted, model)] * order.count
        else:  # as many images of one seed would be one image
            seeds = [order.seed + index for index in range(order.count)]
            seeds = [seed if seed < SEEDS else seed - SEEDS for seed in seeds]
            calls = [self._call(replace(fitted, seed=seed), model) for seed in seeds]
        return [self._outcome(index, call, order, exchange) for index, call in enumerate(calls)]

    def _call(self, order: Order, model: str, *, is_signed_anew: bool = False) -> Call:
        """Return the call that makes one image of `order`."""
        aspect_ratio, image_size = _shape(order, model)
        request = GenerateContentRequest(
            order.turns,
            aspect_ratio,
            image_size,
            order.thinking_level,
            order.seed,
            self._google_store,
            order.all_system,
            order.modalities,
            order.service_tier,
            is_signed_anew,
        )
        has_signatures = not is_signed_anew and any(turn.is_model for turn in order.turns)
        return Call(
            model,
            f"models/{model}:generateContent",
            request.body(),
            limit=lambda: self._call_limit(order, model),
            tier=lambda: order.service_tier,
            signed_anew=partial(self._call, order, model, is_signed_anew=True) if has_signatures else None,
            for_model=lambda other: self._call(_fitted(order, other), other, is_signed_anew=is_signed_anew),
        )

    def limit_of(self, order: Order) -> Decimal | None:
        """Return what an order may cost at the most, in USD; None where that is not known."""
        limit = self._call_limit(order, self._models.resolve(order.model_name))
        return None if limit is None else limit * order.count

    def _call_limit(self, order: Order, model: str) -> Decimal | None:
        parts = [part for turn in order.turns for part in turn.parts]
        text_bytes = len(order.all_system.encode()) + sum(len(part.text.encode()) for part in parts)
        pictures = sum(part.picture is not None or bool(part.reference) for part in parts)
        _, size = _shape(order, model)
        basis = CostBasis((size,) if size else (), text_bytes=text_bytes, pictures=pictures, tier=order.service_tier)
        return self._prices.limit(model, basis)

    async def _outcome(self, index: int, call: Call, order: Order, exchange: Exchange) -> Outcome:
        """Make one image; return it, or the error."""
        try:
            result = await self._client.image(call, exchange, takes_words=order.takes_words)
            if isinstance(result, Words) and result.is_refusal:
                exchange.error_code = errors.Blocked.code  # for the log: the caller gets words
            return Outcome(index, await self._converted(result, order) if isinstance(result, Image) else result)
        except errors.BananaError as error:
            return Outcome(index, error)
        except Exception:
            log.exception("internal_error")
            return Outcome(index, errors.Internal())

    async def _converted(self, image: Image, order: Order) -> Image:
        """Return the image in the format of the order; as it came when none is named, or when it cannot be converted."""
        target = _target_format(image, order)
        if target is None:
            return image
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._converter, _convert, image, target, order.output_quality
            )
        except Exception as error:  # it was paid for: as it came is better than not at all, whatever Pillow raises
            log.warning("not_converted", error=type(error).__name__, output_format=target)
            return image


def _fitted(order: Order, model: str) -> Order:
    """Return the order as a model can make it that follows the one it was for."""
    return replace(order, image_size=nearest_size(model, order.image_size))


def _shape(order: Order, model: str) -> tuple[str | None, str | None]:
    """Return the aspect ratio and the size to ask for: what is named, else what is nearest to the pixels, or the quality."""
    ratio, size = shape_of(model, *order.pixels) if order.pixels else (None, size_of_quality(model, order.quality))
    return order.aspect_ratio or ratio, order.image_size or size


def _target_format(image: Image, order: Order) -> str | None:
    """Return the format to convert to; None where the image is already as it is wanted."""
    own = next((name for name, mime_type in conversion.FORMATS.items() if mime_type == image.mime_type), None)
    has_quality = order.output_quality is not None and order.output_format != "png"
    # A PNG is without loss: a quality means a format that has one.
    target = order.output_format or ("jpeg" if has_quality and own == "png" else own)
    return target if target != own or has_quality else None


def _convert(image: Image, output_format: str, quality: int | None) -> Image:
    picture = conversion.convert(image.picture, output_format, DEFAULT_QUALITY if quality is None else quality)
    # Its signature is that of the picture as it came.
    return replace(image, picture=picture, mime_type=conversion.FORMATS[output_format], signature=())
