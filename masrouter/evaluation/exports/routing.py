"""Route many queries under one request, as the exports of predictions do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from masrouter.router import Router
from masrouter.types import RoutingDecision

AT_ONCE = 256
"""Queries between two reports of progress."""

Progress = Callable[[int, int], None]
"""Called with (queries done, queries in all)."""


@dataclass(frozen=True)
class RouteOptions:
    """The trade-off and the constraints of a request, as `Router.route` takes them."""

    cost_weight: float | None = None
    willingness_to_pay: float | None = None
    max_cost_usd: float | None = None
    max_agents: int | None = None
    models: tuple[str, ...] | None = None
    exclude_models: tuple[str, ...] = ()
    topologies: tuple[str, ...] | None = None

    def decide(
        self, router: Router, queries: Sequence[str], progress: Progress | None = None
    ) -> list[RoutingDecision]:
        """The decision on each query; raises what `Router.route` raises."""
        decisions: list[RoutingDecision] = []
        for start in range(0, len(queries), AT_ONCE):
            decisions += router.route_batch(
                queries[start : start + AT_ONCE],
                cost_weight=self.cost_weight,
                willingness_to_pay=self.willingness_to_pay,
                max_cost_usd=self.max_cost_usd,
                max_agents=self.max_agents,
                models=self.models,
                exclude_models=self.exclude_models,
                topologies=self.topologies,
                k=0,
            )
            if progress is not None:
                progress(len(decisions), len(queries))
        return decisions
