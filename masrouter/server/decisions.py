"""`POST /v1/decision`: which team should answer? Nothing is run and no model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from masrouter.explanation import PlanFigures
from masrouter.server.api_errors import ApiError, documented
from masrouter.server.keys import Caller, caller
from masrouter.server.request_body import body_schema, read_json
from masrouter.server.schemas import (
    ComparedPlanBody,
    DecisionBody,
    DecisionListBody,
    DecisionRequest,
    EvidenceBody,
    PlanFiguresBody,
    plan_body,
    plan_figures,
)
from masrouter.server.service import DATASET, ServedDecision, Service, get_service
from masrouter.server.sessions import is_session_name

SESSION_HEADER = "x-masrouter-session"

router = APIRouter()


@router.post(
    "/v1/decision",
    operation_id="decide",
    summary="Which team should answer?",
    response_model=DecisionBody | DecisionListBody,
    responses=documented(),
    openapi_extra=body_schema(DecisionRequest),
)
async def decide(
    request: Request,
    asking: Annotated[Caller, Depends(caller)],
    service: Annotated[Service, Depends(get_service)],
) -> Response:
    """Route a query, or several under the same options, without running anything.

    With the header `x-masrouter-session` a single query keeps the first plan of its session.
    """
    body = await read_json(request, DecisionRequest)
    session = session_of(request)
    dataset = body.dataset or DATASET
    if isinstance(body.query, str):
        served = await service.decide(
            body.query,
            body.options,
            caller=asking,
            session=session,
            dataset=dataset,
            task=body.task,
        )
        compared = await service.compared(body.query, body.options) if body.explain else None
        return _answer(decision_body(served, compared))
    if session is not None:
        raise ApiError(
            400, f"{SESSION_HEADER}: a session goes with one query, not with a list", code="invalid"
        )
    most = service.settings.limits.max_batch
    if len(body.query) > most:
        raise ApiError(
            400, f"query: expected at most {most} queries", code="batch_too_large", param="query"
        )
    if body.explain:
        raise ApiError(
            400, "explain: goes with one query, not with a list", code="invalid", param="explain"
        )
    found = await service.decide_all(
        body.query, body.options, caller=asking, dataset=dataset, task=body.task
    )
    return _answer(DecisionListBody(data=[decision_body(served) for served in found]))


def _answer(body: DecisionBody | DecisionListBody) -> Response:
    # Built from checked models: FastAPI would check them a second time.
    return Response(body.model_dump_json(), media_type="application/json")


def session_of(request: Request) -> str | None:
    """The request's session; raises ApiError 400 for what is no name of one."""
    name = request.headers.get(SESSION_HEADER)
    if name is not None and not is_session_name(name):
        raise ApiError(
            400,
            f"{SESSION_HEADER}: expected 1 to 128 printable ASCII characters",
            code="invalid",
        )
    return name


def decision_body(
    served: ServedDecision, compared: Sequence[PlanFigures] | None = None
) -> DecisionBody:
    """A decision as JSON; `compared` adds every plan's figures.

    Of a plan that is not the router's choice today only the cost is known: its other figures are
    null, and the router's choice is the first of the alternatives.
    """
    decision = served.decision
    if decision is None:
        raise ValueError("a fixed plan's decision has no figures")
    alternatives = [PlanFiguresBody(**plan_figures(plan)) for plan in decision.alternatives]
    if served.chosen:
        figures = plan_figures(decision)
        evidence = EvidenceBody(**asdict(decision.evidence))
    else:
        figures = {"plan": plan_body(served.plan), "expected_cost_usd": served.expected_cost_usd}
        evidence = None
        alternatives.insert(0, PlanFiguresBody(**plan_figures(decision)))
    return DecisionBody(
        **figures,
        id=served.id,
        policy=served.policy,
        propensity=served.propensity,
        cost_weight=decision.cost_weight,
        domain=decision.domain,
        domain_probability=decision.domain_probability,
        fallback=decision.fallback and served.chosen,
        explored=served.explored,
        sticky=served.sticky,
        reasons=list(served.reasons),
        alternatives=alternatives,
        evidence=evidence,
        checkpoint=decision.checkpoint,
        plans=None if compared is None else [_compared(figures) for figures in compared],
    )


def _compared(figures: PlanFigures) -> ComparedPlanBody:
    return ComparedPlanBody(
        plan=plan_body(figures.plan),
        score=figures.score,
        cost_usd=figures.cost_usd,
        utility=figures.utility,
        logged_runs=figures.logged_runs,
    )
