"""Picks one of a framework's models for a text: what the routing half of every host shares.

A framework that asks for a model makes one call with it, and keeps its own prompts and tools. So
the choice is among plans of one agent that make one call (`io`, `cot`), and of such a plan only the
model is taken.

What is routed on is the text of the last user message: not the system prompt, not tool results. So
all calls of one turn, those after tool calls too, get the same model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from masrouter.errors import ConfigError, RoutingError
from masrouter.types import Interval, Plan, RoutingDecision

if TYPE_CHECKING:
    from masrouter.router import Router

AUTO = "masrouter/auto"
"""The model name that stands for routing, where a framework asks for models by name."""

ONE_CALL = ("io", "cot")
"""Topologies whose team of one agent is one call."""

OnDecision = Callable[[RoutingDecision], None]


class RouteOptions(TypedDict, total=False):
    """Options of `Router.route` that a host passes on."""

    cost_weight: float | None
    willingness_to_pay: float | None
    max_cost_usd: float | None
    topologies: Sequence[str] | None
    """In place of `ONE_CALL`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The model to call, and the decision behind it."""

    model: str
    decision: RoutingDecision

    def as_metadata(self) -> dict[str, Any]:
        """What a host attaches to a response: JSON-ready, without the text that was routed."""
        decision = self.decision
        return {
            "model": self.model,
            "plan": decision.plan.to_json(),
            "expected_score": decision.expected_score,
            "score_interval": _pair(decision.score_interval),
            "expected_cost_usd": decision.expected_cost_usd,
            "cost_interval": _pair(decision.cost_interval),
            "cost_weight": decision.cost_weight,
            "domain": decision.domain,
            "fallback": decision.fallback,
            "reasons": list(decision.reasons),
            "checkpoint": decision.checkpoint,
        }


class Chooser:
    """Routes texts to the models of a host.

    names: the models that a host has, as the router knows them. None stands for all that the router
    can choose, for a host that says with each text which of them it has.
    on_decision: called with every decision.
    options: of `Router.route`, the same for every text.
    """

    def __init__(
        self,
        router: Router,
        names: Iterable[str] | None,
        options: RouteOptions,
        *,
        on_decision: OnDecision | None = None,
    ) -> None:
        """Raises ConfigError for a model that the router could never choose."""
        self._router = router
        self._options = options
        self._on_decision = on_decision
        wanted = options.get("topologies") or ONE_CALL
        plans = [p for p in router.plans if len(p.agents) == 1 and p.topology in tuple(wanted)]
        self._topologies = tuple(dict.fromkeys(plan.topology for plan in plans))
        lacking = [name for name in options.get("topologies") or () if name not in self._topologies]
        if lacking:
            raise ConfigError(
                f"topologies: this router has no plan of one agent with "
                f"{' or '.join(map(repr, lacking))}; leave it out"
            )
        choosable = _models(plans)
        if not choosable:
            raise ConfigError(
                f"router: it has no plan of one agent with the topology {' or '.join(wanted)}, "
                "which a host's single call needs; train it on logs that hold such runs"
            )
        self.names = choosable if names is None else tuple(dict.fromkeys(names))
        if not self.names:
            raise ConfigError("models: expected at least one model to choose from, got none")
        unknown = [name for name in self.names if name not in choosable]
        if unknown:
            raise ConfigError(
                f"models: this router has no plan that makes one call of "
                f"{', '.join(map(repr, unknown))}, so it would never be chosen; it has "
                f"{', '.join(choosable)}. Name models as the router does, or teach it new ones by "
                "`Router.add_model`"
            )

    async def achoose(self, text: str, *, among: Collection[str] | None = None) -> Choice:
        """`choose` in a worker thread, so that an event loop is not held up."""
        return await asyncio.to_thread(self.choose, text, among=among)

    def choose(self, text: str, *, among: Collection[str] | None = None) -> Choice:
        """The model for a text.

        among: only these of `names`. Raises RoutingError where there is no text, or none of them is
        left; ConstraintError where none meets the options.
        """
        if not text.strip():
            raise RoutingError(
                "the last user message holds no text, and there is nothing else to route on; "
                "name a model for this request"
            )
        names = self.names if among is None else [n for n in self.names if n in among]
        if not names:
            raise RoutingError(
                f"no model to route to: none of {', '.join(self.names)} is available here"
            )
        options = {**self._options, "topologies": self._topologies}
        decision = self._router.route(text, models=names, max_agents=1, **options)  # type: ignore[arg-type]
        if self._on_decision is not None:
            self._on_decision(decision)
        return Choice(decision.plan.agents[0].model, decision)


def missing_host(extra: str, missing: ImportError) -> ConfigError:
    """The error for a framework that is not installed."""
    return ConfigError(
        f"masrouter.hosts: {missing.name or missing} cannot be imported; "
        f"run: pip install 'masrouter[{extra}]'"
    )


def _models(plans: Iterable[Plan]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(plan.agents[0].model for plan in plans))


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
