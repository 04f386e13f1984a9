"""`auto`: the router chooses a model or a whole team for each task, under one budget for all.

    queries ── router at a grid of cost weights ──► options of each task ── allocation ──► decisions

An option is what the router decides at some cost weight, so that it has passed the router's gate;
the critic's guesses about other plans are not asked. Under a budget the options of all tasks
compete (`allocation`), which is one cost weight for the whole batch: at the margin a dollar buys
the same everywhere. Without a budget each task gets what the router decides.

Not here: running anything, and the books of what is spent. Nothing is drawn at random.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from masrouter.delegation.automatic.allocation import Allocation, Option, allocate
from masrouter.delegation.naming.settings import AUTO
from masrouter.delegation.tasks import DelegationError, ErrorType, TaskError
from masrouter.encoder.memo import MemoEncoder
from masrouter.errors import ConstraintError
from masrouter.gate import Floats32
from masrouter.router import Router
from masrouter.selection import LARGEST, number
from masrouter.types import Plan, RoutingDecision

CallCost = Callable[[str, Plan], float | None]
"""The most that one call of a plan on a query can cost, None where that is unknown."""

_BEYOND = (10.0, 100.0, 1000.0)
"""Cost weights above the gate's last one, as its multiples: there cheapness alone counts."""
_REMEMBERED = 4096
"""Embeddings that are kept, since each query is routed at every cost weight."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A decision that has passed the gate, and what it is worth."""

    decision: RoutingDecision
    option: Option


class Auto:
    """Chooses for the tasks of a batch. Thread-safe; it computes, so call it in a worker thread.

    callable_models: models that can be called now; a plan with any other is never chosen.
    topologies: those that can be executed; None: all that the router knows.
    most_call_usd: the most that a call may cost. A ledger holds it until the call has ended, so a
    plan is chosen only where what is left can hold it; None: that is not looked at.
    """

    def __init__(
        self,
        router: Router,
        callable_models: Collection[str],
        *,
        topologies: Collection[str] | None = None,
        most_call_usd: CallCost | None = None,
    ) -> None:
        self.router = remembering(router)
        self._models = tuple(sorted(_models(router.plans) & set(callable_models)))
        known = {plan.topology for plan in router.plans}
        self._topologies = tuple(sorted(known if topologies is None else known & set(topologies)))
        self._most_call_usd = most_call_usd

    def choose(
        self,
        queries: Sequence[str],
        *,
        budget_usd: float | None = None,
        committed_usd: float = 0.0,
        cost_weight: float | None = None,
    ) -> list[RoutingDecision | DelegationError]:
        """A decision for each query, or why there is none, in their order.

        Args:
            budget_usd: for all of them together with what is committed. The decisions' expected
                costs add up to no more; a task that goes without has an error of type `budget`.
            committed_usd: what other tasks of the same budget are going to cost.
            cost_weight: score units that a US dollar is worth, however much budget there is. None
                takes the checkpoint's default without a budget, and 0 with one.

        Raises RoutingError for an argument that cannot be meant.
        """
        if budget_usd is not None:
            number("budget_usd", budget_usd, at_least=0.0)
        number("committed_usd", committed_usd, at_least=0.0)
        if cost_weight is not None:
            number("cost_weight", cost_weight, at_least=0.0)
        chosen: list[RoutingDecision | DelegationError | None] = [
            None if isinstance(query, str) and query.strip() else _blank() for query in queries
        ]
        asked = [query for query, found in zip(queries, chosen, strict=True) if found is None]
        if asked:
            answers: Iterable[RoutingDecision | DelegationError]
            try:
                if budget_usd is None:
                    answers = self._route(asked, cost_weight)
                else:
                    budget = _Budget(budget_usd, committed_usd)
                    answers = self._divide(asked, budget, cost_weight or 0.0)
            except ConstraintError as error:
                answers = [_error("no_plan", self._no_plan(str(error))) for _ in asked]
            left = iter(answers)
            chosen = [next(left) if found is None else found for found in chosen]
        return [found for found in chosen if found is not None]

    def options(self, queries: Sequence[str], *, cost_weight: float = 0.0) -> list[list[Candidate]]:
        """What the router decides for each query at cost weights from this one up.

        Plans whose cost nobody can tell are left out. Raises ConstraintError where nothing is left.
        """
        found: list[dict[Plan, RoutingDecision]] = [{} for _ in queries]
        for weight in self._grid(cost_weight):
            decisions = self._route(queries, weight)
            for candidates, decision in zip(found, decisions, strict=True):
                candidates.setdefault(decision.plan, decision)
        scores = self._scores(queries)  # (B, C)
        column = {plan: position for position, plan in enumerate(self.router.plans)}
        return [
            [
                Candidate(
                    decision,
                    Option(
                        value=float(scores[row, column[plan]]),
                        cost_usd=decision.expected_cost_usd,
                        hold_usd=self._hold(query, plan),
                    ),
                )
                for plan, decision in found[row].items()
                if decision.expected_cost_usd is not None
            ]
            for row, query in enumerate(queries)
        ]

    def _route(self, queries: Sequence[str], cost_weight: float | None) -> list[RoutingDecision]:
        if not self._models or not self._topologies:
            raise ConstraintError("none of its plans can be run")
        return self.router.route_batch(
            queries,
            cost_weight=cost_weight,
            models=self._models,
            topologies=self._topologies,
        )

    def _divide(
        self, queries: Sequence[str], budget: _Budget, cost_weight: float
    ) -> list[RoutingDecision | DelegationError]:
        tasks = self.options(queries, cost_weight=cost_weight)
        options = [[candidate.option for candidate in task] for task in tasks]
        divided = allocate(options, budget.left)
        shared = budget.reason(divided, len(queries))
        chosen: list[RoutingDecision | DelegationError] = []
        for task, offers, position in zip(tasks, options, divided.chosen, strict=True):
            if position is None:
                chosen.append(budget.refusal(offers, divided))
            else:
                decision = task[position].decision
                chosen.append(replace(decision, reasons=(*decision.reasons, shared)))
        return chosen

    def _scores(self, queries: Sequence[str]) -> Floats32:
        """Expected scores (B, C), calibrated, by one and the same head: that of cost weight 0.

        At different cost weights the gate may trust different heads, whose scores do not compare.
        """
        expected = self.router.expect(*self.router.read(queries), 0.0)
        return self.router.state.calibrate(expected.score, expected.head)

    def _hold(self, query: str, plan: Plan) -> float:
        most = None if self._most_call_usd is None else self._most_call_usd(query, plan)
        return 0.0 if most is None else most

    def _grid(self, lowest: float) -> list[float]:
        """Cost weights from `lowest` up: the gate's, those halfway between, and some beyond."""
        nodes = sorted({node.cost_weight for node in self.router.state.gate.nodes})
        above = [weight for weight in nodes if weight > 0]
        between = [math.sqrt(a * b) for a, b in itertools.pairwise(above)]
        top = above[-1] if above else max(1.0, self.router.state.default_cost_weight)
        beyond = [min(top * factor, LARGEST) for factor in _BEYOND]
        return [lowest, *(w for w in sorted({*above, *between, *beyond}) if w > lowest)]

    def _no_plan(self, why: str) -> str:
        models = ", ".join(self._models) or "none"
        return (
            f"auto: the router has no plan for this task: {why}. Of its models these can be called "
            f"here: {models}; of its topologies these can be run: "
            f"{', '.join(self._topologies) or 'none'}. Name a model, or give a checkpoint that "
            "knows the models here"
        )


@dataclass(frozen=True, slots=True)
class _Budget:
    """A batch's budget, as its tasks are told of it."""

    total: float
    committed: float

    @property
    def left(self) -> float:
        return max(0.0, self.total - self.committed)

    def _said(self) -> str:
        committed = f", {self.committed:.6g} of it committed" if self.committed else ""
        return f"{self.total:.6g} US$ for the batch{committed}"

    def reason(self, divided: Allocation, tasks: int) -> str:
        """Why a task got the plan that it got."""
        done = sum(position is not None for position in divided.chosen)
        more = (
            f"one more dollar would buy {divided.price:.4g} of score"
            if divided.price
            else "more would buy nothing"
        )
        return (
            f"budget: {self._said()}; its {done} of {tasks} tasks by auto are expected to take "
            f"{divided.cost_usd:.6g}, {more}"
        )

    def refusal(self, offers: Sequence[Option], divided: Allocation) -> DelegationError:
        """Why a task goes without."""
        cost = min((offer.cost_usd for offer in offers), default=None)
        hold = min((max(offer.cost_usd, offer.hold_usd) for offer in offers), default=None)
        if cost is None or hold is None:
            why = "no plan that can be called here has a known cost"
        else:
            free = max(0.0, self.left - divided.cost_usd)
            least = f"its cheapest plan is expected to cost {cost:.6g} US$"
            if hold > cost:
                least += f", and {hold:.6g} US$ must be free for a call's worst cost"
            why = f"{least}; the other tasks leave {free:.6g}, where they buy more"
        return _error(
            "budget",
            f"auto: not enough left for this task: {self._said()}: {why}. Raise the budget, hand "
            "out fewer tasks, or allow answers fewer tokens",
        )


def remembering(router: Router) -> Router:
    """The router with an encoder that keeps its latest embeddings."""
    if isinstance(router.encoder, MemoEncoder):
        return router
    return router.with_encoder(MemoEncoder(router.encoder, most=_REMEMBERED))


def _models(plans: Iterable[Plan]) -> set[str]:
    return {model for plan in plans for model in plan.models}


def _blank() -> DelegationError:
    return _error("invalid_task", "auto: the task's text is empty; say what is to be done")


def _error(kind: ErrorType, message: str) -> DelegationError:
    return DelegationError(TaskError(kind, message, asked=AUTO))
