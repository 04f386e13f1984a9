"""`POST /v1/outcomes`: how good an answer was, so that the next router can learn from it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from masrouter.server.api_errors import ApiError, documented
from masrouter.server.keys import Caller, caller
from masrouter.server.records import (
    Outcome,
    OutcomeConflictError,
    RecordsError,
    UnknownDecisionError,
)
from masrouter.server.request_body import body_schema, read_json
from masrouter.server.schemas import OutcomeBody, OutcomeRequest
from masrouter.server.service import Service, get_service
from masrouter.types import Usage

router = APIRouter()


@router.post(
    "/v1/outcomes",
    operation_id="tell_outcome",
    summary="How good was the answer?",
    response_model=OutcomeBody,
    responses=documented(404, 409),
    openapi_extra=body_schema(OutcomeRequest),
)
async def tell_outcome(
    request: Request,
    asking: Annotated[Caller, Depends(caller)],
    service: Annotated[Service, Depends(get_service)],
) -> OutcomeBody:
    """Keep the outcome of a decision that was made for the same key; it is on the disk at 200.

    The same outcome again is answered alike; another one for the same decision is refused (409).
    """
    body = await read_json(request, OutcomeRequest)
    if not service.records.kept:
        raise ApiError(
            404,
            "this server keeps no records, so that no outcome can be joined with its decision; "
            "start it with --records FILE",
            code="no_records",
        )
    outcome = Outcome(
        decision_id=body.decision_id,
        score=body.score,
        score_source=body.score_source,
        usage=Usage(body.prompt_tokens, body.completion_tokens, body.cost_usd),
        latency_s=body.latency_s,
        error=body.error,
    )
    try:
        await service.records.add_outcome(outcome, caller=asking.name)
    except UnknownDecisionError:
        raise ApiError(
            404,
            "no decision of this id is kept for this key",
            code="unknown_decision",
            param="decision_id",
        ) from None
    except OutcomeConflictError:
        raise ApiError(
            409,
            "this decision has another outcome already, which stays",
            code="outcome_conflict",
            param="decision_id",
        ) from None
    except RecordsError as error:
        raise ApiError(
            503,
            "the outcome could not be written; send it again later",
            type="server_error",
            code="records_unavailable",
            headers={"retry-after": "5"},
        ) from error
    if service.telemetry is not None:
        service.telemetry.outcome(body.score_source)
    return OutcomeBody(
        decision_id=body.decision_id, score=body.score, score_source=body.score_source
    )
