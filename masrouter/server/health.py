"""`/health`: the process answers. `/ready`: it should be sent requests.

Both tell nothing of the server, so that no key is needed, and neither waits behind work.
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from masrouter.server.api_errors import ApiError, documented

router = APIRouter()


class HealthBody(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReadyBody(BaseModel):
    """Requests are welcome."""

    status: Literal["ready"] = "ready"


@router.get("/health", operation_id="health", summary="Is it alive?", responses=documented())
async def health() -> HealthBody:
    """200 as long as the process answers at all, while it drains too."""
    return HealthBody()


@router.get("/ready", operation_id="ready", summary="Should it be asked?", responses=documented())
async def ready(request: Request) -> ReadyBody:
    """200 while requests are welcome; 503 once the server was told to stop."""
    # Set by `running` at the first signal; a router is loaded before there is an app.
    if request.scope.get("state", {}).get("draining", False):
        raise ApiError(
            503,
            "the server is stopping; ask another one",
            type="server_error",
            code="draining",
            headers={"retry-after": "1"},
        )
    return ReadyBody()
