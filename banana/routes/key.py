"""`GET /v1/key`: what a caller has spent, and what is left of its budget, in OpenRouter's shape.

Source: https://openrouter.ai/docs/api-reference/limits; amounts are in USD, windows begin at midnight UTC, weeks on Monday.
"""

from decimal import Decimal
from functools import partial

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from banana.exchange import Exchange
from banana.ledger.spend import Window
from banana.money import rounded, usd
from banana.routes import documentation, openai, openai_images
from banana.routes.dialect import DialectRoute, Services

# As OpenRouter names the windows.
RESETS = {Window.DAY: "daily", Window.MONTH: "monthly"}


class Key(BaseModel):
    """A caller: its budget, null where it has none, and what it has spent: ever, and in the running day, week and month."""

    label: str
    limit: float | None
    limit_remaining: float | None
    limit_reset: str | None
    usage: float
    usage_daily: float
    usage_weekly: float
    usage_monthly: float


class KeyResponse(BaseModel):
    """The caller that the token is of."""

    data: Key


def routes(services: Services) -> list[APIRoute]:
    """Return the route."""

    async def key(request: Request, exchange: Exchange) -> Response:
        assert exchange.caller is not None
        standing = await services.budgets.standing_of(exchange.caller)
        budget, spent = standing.budget, standing.spent
        data = Key(
            label=exchange.caller,
            limit=_number(budget.limit if budget else None),
            limit_remaining=_number(standing.remaining),
            limit_reset=RESETS[budget.window] if budget else None,
            usage=rounded(usd(spent.ever)),
            usage_daily=rounded(usd(spent.day)),
            usage_weekly=rounded(usd(spent.week)),
            usage_monthly=rounded(usd(spent.month)),
        )
        return JSONResponse(KeyResponse(data=data).model_dump(), headers={"Cache-Control": "no-store"})

    content = {"application/json": {"schema": partial(documentation.schema_of, KeyResponse)}}
    return [
        DialectRoute(
            "/v1/key",
            key,
            (openai_images.DIALECT,),
            services,
            makes_nothing=True,
            methods=["GET"],
            operation_id="getKey",
            tags=["key"],
            summary="Your budget and spending",
            description="Your budget, what is left of it, and what you have spent, in USD. OpenRouter's API format.",
            responses=documentation.responses(content, openai.ERROR_SCHEMA),
        )
    ]


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else rounded(amount)
