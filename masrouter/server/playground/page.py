"""Serves the playground: its files, as they lie in the package, and what the page must know.

The page talks to the server's public endpoints alone. It loads nothing from elsewhere, and its
policy keeps a browser from doing so; what models and catalogs say is shown as text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel

from masrouter.router import Router
from masrouter.server.api_errors import ApiError
from masrouter.server.keys import caller
from masrouter.server.service import Service, get_service

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The page's Content-Security-Policy."""

HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
"""Of every file: browsers ask each time whether theirs is still the one, by its ETag."""

_PAGE = "index.html"
_ALTERNATIVES = 8
_UNLEARNED = (1.0, 10_000.0)
"""The slider's ends where a checkpoint learned at no cost weight above 0."""
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}

router = APIRouter(tags=["playground"])


class ChoiceBody(BaseModel):
    """A model or a topology that the router's plans use."""

    name: str
    description: str


class CostWeightsBody(BaseModel):
    """The ends of the slider: score units that a US dollar is worth, both above 0."""

    least: float
    most: float


class PlaygroundConfig(BaseModel):
    """What the page offers."""

    runs: bool
    """Whether a provider is configured, so that teams can be run."""
    default_cost_weight: float
    cost_weights: CostWeightsBody
    models: list[ChoiceBody]
    topologies: list[ChoiceBody]
    max_agents: int
    alternatives: int
    """How many the page asks for with a decision."""
    max_query_characters: int
    checkpoint: str


@router.get("/", include_in_schema=False)
@router.head("/", include_in_schema=False)
def page(request: Request) -> Response:
    """The page."""
    return _answer(request, _PAGE)


@router.get("/playground/{name}", include_in_schema=False)
@router.head("/playground/{name}", include_in_schema=False)
def part(request: Request, name: Annotated[str, Path(max_length=64)]) -> Response:
    """One of the page's own scripts or its style sheet; 404 for any other name."""
    if name == _PAGE:  # its links lead on from `/`
        raise ApiError(404, "there is nothing at this path", code="not_found")
    return _answer(request, name)


@router.get("/v1/playground/config", dependencies=[Depends(caller)])
def config(service: Annotated[Service, Depends(get_service)]) -> PlaygroundConfig:
    """What the page must know of the server: the router's candidates and the slider's ends."""
    plans = [p for p in service.router.plans if not set(p.models) & set(service.unserved)]
    catalog = service.router.catalog
    models = sorted({model for plan in plans for model in plan.models})
    topologies = sorted({plan.topology for plan in plans})
    least, most = slider_ends(service.router)
    return PlaygroundConfig(
        runs=service.llm is not None,
        default_cost_weight=service.router.state.default_cost_weight,
        cost_weights=CostWeightsBody(least=least, most=most),
        models=[_choice(name, catalog.models) for name in models],
        topologies=[_choice(name, catalog.topologies) for name in topologies],
        max_agents=max((len(plan.agents) for plan in plans), default=1),
        alternatives=_ALTERNATIVES,
        max_query_characters=service.settings.limits.max_query_characters,
        checkpoint=service.router.checkpoint,
    )


def slider_ends(router: Router) -> tuple[float, float]:
    """The smallest and largest cost weight above 0 that the router learned at, or has as default.

    A decade on either side where there is but one.
    """
    state = router.state
    weights = [node.cost_weight for node in state.gate.nodes] + [state.default_cost_weight]
    learned = [weight for weight in weights if weight > 0]
    if not learned:
        return _UNLEARNED
    least, most = min(learned), max(learned)
    return (least, most) if most > least else (least / 10, most * 10)


def _choice(name: str, entries: Mapping[str, object]) -> ChoiceBody:
    return ChoiceBody(name=name, description=getattr(entries.get(name), "description", ""))


@cache
def _files() -> Mapping[str, tuple[bytes, str]]:
    """Content and ETag of the page's files by name."""
    found = {}
    for file in resources.files("masrouter.server.playground").iterdir():
        if any(file.name.endswith(ending) for ending in _TYPES):
            content = file.read_bytes()
            found[file.name] = content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return found


def _answer(request: Request, name: str) -> Response:
    if name not in _files():
        raise ApiError(404, "there is nothing at this path", code="not_found")
    content, tag = _files()[name]
    headers = {**HEADERS, "etag": tag}
    asked = request.headers.get("if-none-match", "")
    if tag in (one.strip().removeprefix("W/") for one in asked.split(",")):
        return Response(status_code=304, headers=headers)
    kind = _TYPES[name[name.rindex(".") :]]
    return Response(content, headers=headers, media_type=kind)
