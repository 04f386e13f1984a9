"""Failures as the OpenAI API tells them: `{"error": {message, type, param, code}}`.

A message names fields, limits and candidates that the server knows; it never repeats what a client
sent, what a provider said or where a file lies.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from masrouter.errors import (
    BudgetError,
    CallError,
    ConstraintError,
    ExecutionError,
    MasRouterError,
    PlanError,
    RoutingError,
)
from masrouter.server.budgets import BudgetBusyError

_log = logging.getLogger("masrouter.server")

INVALID = "invalid_request_error"


class ApiError(Exception):
    """A failure as it goes to the client."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def to_json(self) -> dict[str, Any]:
        """The body, JSON-ready."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.to_json(), status_code=self.status, headers=self.headers)


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every failure has this shape."""

    error: ErrorDetail


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route, for OpenAPI: these failures beside those that any request may meet.

    Any: 400, 401, 403, 405, 408, 413, 415, 429, 431, 500, 503.
    """
    every = {400, 401, 403, 405, 408, 413, 415, 429, 431, 500, 503, *statuses}
    return {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase}
        for status in sorted(every)
    }


def as_api_error(error: Exception) -> ApiError:
    """The failure that a client is told of any exception; of an unexpected one, nothing."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ConstraintError):
        # Names were checked before, so its message holds known candidates and numbers alone.
        return ApiError(400, str(error), code="no_plan_within_constraints")
    if isinstance(error, BudgetBusyError):
        return ApiError(
            429,
            "the budget may have room once requests under way have ended",
            type="rate_limit_exceeded",
            code="budget_busy",
            headers={"retry-after": "1"},
        )
    if isinstance(error, BudgetError):
        return ApiError(
            429,
            "the budget does not cover what this request may cost at most; raise the budget, or "
            "allow it fewer tokens or cheaper models",
            type="insufficient_quota",
            code="budget_exceeded",
        )
    if isinstance(error, PlanError):
        return ApiError(400, "no team can run this plan", code="invalid_plan")
    if isinstance(error, RoutingError):
        return ApiError(400, "the request cannot be routed with these options", code="not_routable")
    if isinstance(error, CallError):
        return _upstream(error.kind)
    if isinstance(error, ExecutionError):
        return _of_run(error)
    if isinstance(error, HTTPException):
        return _http(error.status_code, error.headers)
    return ApiError(
        500, "the server failed at this request", type="server_error", code="internal_error"
    )


def install_error_handlers(app: FastAPI) -> None:
    """Have the app answer every failure in this shape."""

    async def told(request: Request, error: Exception) -> JSONResponse:
        answer = as_api_error(error)
        if answer.code == "internal_error":
            path = request.scope["path"]  # `request.url` fails at some Host headers
            _log.error("%s %r failed", request.method, path, exc_info=error)
        return answer.response()

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        # Bodies are read by `read_json`; what FastAPI checks itself are paths, queries, headers.
        where = [str(part) for part in error.errors()[0].get("loc", ())[:1]]
        return ApiError(
            400, f"a parameter of the {''.join(where) or 'request'} is not valid", code="invalid"
        ).response()

    async def gone(request: Request, error: Exception) -> JSONResponse:
        return ApiError(400, "the body was cut off", code="incomplete_body").response()

    for kind in (ApiError, MasRouterError, HTTPException, Exception):
        app.add_exception_handler(kind, told)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ClientDisconnect, gone)


def _upstream(kind: str) -> ApiError:
    status = 504 if kind == "timeout" else 502
    return ApiError(status, f"a model's provider failed: {kind}", type="upstream_error", code=kind)


def _of_run(error: ExecutionError) -> ApiError:
    """A team's failure by what ended it: the run's own words may repeat what it was asked."""
    why = (error.run.error or "").partition(":")[0]
    if why == "budget":
        return as_api_error(BudgetError())
    if why == "deadline":
        return _upstream("timeout")
    kinds = [call.error.partition(":")[0] for call in error.run.calls if call.error]
    known = [kind for kind in kinds if kind.isidentifier() and kind.islower()]
    return (
        _upstream(known[-1])
        if known
        else ApiError(502, "the team gave no answer", type="upstream_error", code="no_answer")
    )


def _http(status: int, headers: Mapping[str, str] | None) -> ApiError:
    """Starlette's own: an unknown path, a wrong method."""
    messages = {404: "there is nothing at this path", 405: "this path has no such method"}
    codes = {404: "not_found", 405: "method_not_allowed"}
    phrase = HTTPStatus(status).phrase.lower()
    kind = "server_error" if status >= 500 else INVALID
    return ApiError(
        status,
        messages.get(status, phrase),
        type=kind,
        code=codes.get(status, phrase.replace(" ", "_")),
        headers=headers,
    )
