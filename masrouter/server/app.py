"""The app: every endpoint behind the limits, errors in one shape, and what happens at the end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from masrouter import __version__
from masrouter.server import chat, decisions, health, models, outcomes
from masrouter.server import telemetry as metrics
from masrouter.server.api_errors import install_error_handlers
from masrouter.server.keys import ANONYMOUS
from masrouter.server.limits import LimitsMiddleware
from masrouter.server.playground import page
from masrouter.server.service import Service
from masrouter.server.telemetry import Telemetry

_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def create_app(service: Service, *, telemetry: Telemetry | None = None) -> FastAPI:
    """An ASGI app over a service, which it closes when it stops.

    telemetry: in place of the service's own; with neither there is no `/metrics`.
    """
    if telemetry is not None:
        service.telemetry = telemetry
    counting = service.telemetry
    if counting is not None:
        counting.watch_budgets(lambda: _left(service))
        counting.watch_memo(lambda: (service.memo.hits, service.memo.misses))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.aclose()

    app = FastAPI(
        title="masrouter",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.telemetry = counting
    install_error_handlers(app)
    app.add_middleware(LimitsMiddleware, limits=service.settings.limits, meter=counting)
    for part in (decisions, outcomes, chat, models, health, metrics):
        app.include_router(part.router)
    if service.settings.playground:
        app.include_router(page.router)
    app.openapi = lambda: _described(app, service)  # type: ignore[method-assign]
    return app


def _left(service: Service) -> dict[str, float | None]:
    """What may still be spent, by key."""
    names = [entry.name for entry in service.settings.keys] or [ANONYMOUS]
    return {name: service.budgets.left(name) for name in names}


def _described(app: FastAPI, service: Service) -> dict[str, Any]:
    """The OpenAPI description; keys are in it where the server wants one."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        if service.settings.keys:
            schema.setdefault("components", {})["securitySchemes"] = _KEYS
            for path, methods in schema["paths"].items():
                for operation in methods.values() if path.startswith("/v1/") else ():
                    operation["security"] = [{name: []} for name in _KEYS]
        # FastAPI documents its own errors, which this app never sends.
        for methods in schema["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
        app.openapi_schema = schema
    return app.openapi_schema
