"""`GET /v1/models`: the router and the settings' fixed plans, as models that can be asked.

The models that teams are made of are not listed: they are the router's to choose.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from masrouter.server.api_errors import ApiError, documented
from masrouter.server.keys import Caller, caller
from masrouter.server.schemas import PlanBody
from masrouter.server.service import Service, get_service

OWNER = "masrouter"
AUTO = f"{OWNER}/auto"

router = APIRouter()


class ModelBody(BaseModel):
    """A model as OpenAI describes one, and the plan that it stands for."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    """Not known: the plans are the settings'."""
    owned_by: str = OWNER
    plan: PlanBody | None = None
    """None where the router chooses one for each query."""


class ModelListBody(BaseModel):
    """All of them, the router first."""

    object: Literal["list"] = "list"
    data: list[ModelBody]


@router.get(
    "/v1/models",
    operation_id="list_models",
    summary="Which models can be asked?",
    responses=documented(),
)
async def list_models(
    asking: Annotated[Caller, Depends(caller)],
    service: Annotated[Service, Depends(get_service)],
) -> ModelListBody:
    """`masrouter/auto`, which routes each query, and the fixed plans as `masrouter/<name>`."""
    return ModelListBody(data=_models(service))


@router.get(
    "/v1/models/{model:path}",
    operation_id="retrieve_model",
    summary="One model",
    responses=documented(404),
)
async def retrieve_model(
    model: str,
    asking: Annotated[Caller, Depends(caller)],
    service: Annotated[Service, Depends(get_service)],
) -> ModelBody:
    """The model of this id."""
    for found in _models(service):
        if found.id == model:
            return found
    raise unknown_model(service)


def fixed_plan_of(model: str, service: Service) -> str | None:
    """The name of the fixed plan that a model stands for, None for the router.

    Raises ApiError 404 for any other model.
    """
    name = model.removeprefix(f"{OWNER}/")
    if model == AUTO:
        return None
    if model != name and name in service.settings.plans:
        return name
    raise unknown_model(service)


def unknown_model(service: Service) -> ApiError:
    """The failure, to be raised."""
    known = ", ".join(model.id for model in _models(service))
    return ApiError(
        404, f"there is no such model; there is {known}", code="model_not_found", param="model"
    )


def _models(service: Service) -> list[ModelBody]:
    fixed = [
        ModelBody(id=f"{OWNER}/{name}", plan=PlanBody.model_validate(plan.to_json()))
        for name, plan in service.settings.plans.items()
    ]
    return [ModelBody(id=AUTO), *fixed]
