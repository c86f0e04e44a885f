"""`GET /v1/key`: what a caller has spent, and what is left of its budget, in OpenRouter's shape.

Source: https://openrouter.ai/docs/api-reference/limits; amounts are in USD, windows begin at midnight UTC, weeks on Monday.
"""

from decimal import Decimal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from banana.ledger.spend import Window
from banana.money import rounded, usd
from banana.routes import documentation, openai
from banana.routes.deps import MAKES_NOTHING, CurrentContext

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


router = APIRouter(tags=["key"], dependencies=MAKES_NOTHING)


@router.get(
    "/v1/key",
    operation_id="getKey",
    summary="Your budget and spending",
    response_model=KeyResponse,
    responses=documentation.responses({}, openai.ERROR_SCHEMA),
)
async def key(context: CurrentContext, response: Response) -> KeyResponse:
    """Your budget, what is left of it, and what you have spent, in USD. OpenRouter's API format."""
    response.headers["Cache-Control"] = "no-store"
    standing = await context.services.budgets.standing_of(context.caller)
    budget, spent = standing.budget, standing.spent
    data = Key(
        label=context.caller,
        limit=_number(budget.limit if budget else None),
        limit_remaining=_number(standing.remaining),
        limit_reset=RESETS[budget.window] if budget else None,
        usage=rounded(usd(spent.ever)),
        usage_daily=rounded(usd(spent.day)),
        usage_weekly=rounded(usd(spent.week)),
        usage_monthly=rounded(usd(spent.month)),
    )
    return KeyResponse(data=data)


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else rounded(amount)
