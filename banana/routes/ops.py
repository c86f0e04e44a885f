"""The routes for those who run the service. They never ask the upstream and are never rate limited."""

from fastapi import APIRouter
from pydantic import BaseModel


class Health(BaseModel):
    """The service is up."""

    status: str = "healthy"
    version: str


def router(version: str) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["operation"])

    @routes.head("/health", include_in_schema=False)
    @routes.get("/health", operation_id="health")
    async def health() -> Health:
        """Tell that the process answers; says nothing of Google."""
        return Health(version=version)

    return routes
