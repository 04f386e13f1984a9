"""The routing function: a query in, a team out. Pure: no network, no randomness unless asked.

    text ── encoder ──► embedding ── critic ──► expected score and cost of every plan
                                        │
      constraints, cost weight ─────────┴─► gate ──► plan, with evidence, alternatives and reasons

The cascade proposes when sampling is asked for and says how probable each stage of a choice was.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from masrouter.catalog import Catalog
from masrouter.checkpoint import read_checkpoint, write_checkpoint
from masrouter.critic import FoldedCritic
from masrouter.encoder import Encoder
from masrouter.errors import RoutingError
from masrouter.evidence import EvidenceIndex
from masrouter.explanation import Explanation, explain, reasons
from masrouter.features import text_statistics
from masrouter.gate import choose
from masrouter.plan_space import PlanTree
from masrouter.router_state import RouterState, state_from_checkpoint, state_to_checkpoint
from masrouter.selection import (
    LARGEST,
    Constraints,
    Expected,
    allowed_plans,
    decide,
    expect,
    frontier,
    integer,
    number,
)
from masrouter.types import (
    Interval,
    Plan,
    RoutingDecision,
    ScoredPlan,
    StageProbabilities,
)

Z95 = 1.959964
TREES_KEPT = 64


class Router:
    """Routes queries to teams. Thread-safe: nothing changes after construction but caches.

    Made by `masrouter_train.fit` or `Router.from_pretrained`.
    """

    def __init__(self, state: RouterState, encoder: Encoder, *, checkpoint: str = "") -> None:
        self.state = state
        self.encoder = encoder
        self.checkpoint = checkpoint
        index = state.candidates.index_plans(state.plans)
        position = torch.arange(len(state.plans))
        position[len(state.critic.known) :] = -1
        self._index = index
        self._critic = FoldedCritic(state.critic, index, position)
        self._evidence = EvidenceIndex(state.evidence, state.gate.runs)
        self._price_ratio = state.price_ratio()
        self._prices = state.prices()
        with torch.inference_mode():
            self._prepared = state.controller.prepare()
        self._trees: dict[bytes, tuple[PlanTree, Tensor]] = {}
        self._lock = threading.Lock()

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans that this router chooses from."""
        return self.state.plans

    @property
    def catalog(self) -> Catalog:
        """Today's descriptions and prices."""
        return self.state.catalog

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        encoder: Encoder | None = None,
        catalog: Catalog | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Router:
        """Load a checkpoint folder, or a model id of the Hugging Face hub.

        Args:
            encoder: in place of the one that the checkpoint names; its identity must be the same.
            catalog: today's prices, in place of those of the day of training.

        Raises CheckpointError for anything wrong with the checkpoint.
        """
        loaded = read_checkpoint(source, revision=revision, local_files_only=local_files_only)
        state, encoder = state_from_checkpoint(loaded.data, str(loaded.path), encoder)
        if catalog is not None:
            state = state.with_catalog(catalog)
        return cls(state, encoder, checkpoint=loaded.id)

    def save_pretrained(self, folder: str | Path) -> str:
        """Write a checkpoint folder and return its id; an existing checkpoint is replaced."""
        return write_checkpoint(folder, state_to_checkpoint(self.state, self.encoder))

    def with_plans(self, plans: Sequence[Plan], catalog: Catalog | None = None) -> Router:
        """A router that may also choose these plans, judged by what they share with logged ones.

        New names need a description, and a price to be routed to at a cost weight, in `catalog`.
        Where the gate takes the best fixed plan, plans without logged runs are never chosen.
        """
        state = self.state.with_plans(plans, catalog or self.catalog, self.encoder)
        return Router(state, self.encoder, checkpoint=self.checkpoint)

    def route(
        self,
        query: str,
        *,
        cost_weight: float | None = None,
        willingness_to_pay: float | None = None,
        max_cost_usd: float | None = None,
        max_agents: int | None = None,
        models: Sequence[str] | None = None,
        exclude_models: Sequence[str] = (),
        topologies: Sequence[str] | None = None,
        k: int = 3,
        sample: bool = False,
        seed: int | None = None,
    ) -> RoutingDecision:
        """Choose the team for one query.

        Args:
            cost_weight: lambda, score units that a US dollar is worth. Without it and without a
                budget the checkpoint's default is taken; with a budget alone, 0.
            willingness_to_pay: the same as US dollars for a whole unit of score (1 / lambda).
            max_cost_usd: plans expected to cost more are not considered.
            max_agents, models, exclude_models, topologies: what the team may be made of.
            k: alternatives on the expected cost-score frontier to return, beside the choice.
            sample: draw from the cascade, so that the decision's log can train the next router.
            seed: of the draw; needed with `sample` for a repeatable one.

        Raises:
            RoutingError: an argument that cannot be meant, or an empty query.
            ConstraintError: no plan meets the constraints; says which to relax.
        """
        return self.route_batch(
            [query],
            cost_weight=cost_weight,
            willingness_to_pay=willingness_to_pay,
            max_cost_usd=max_cost_usd,
            max_agents=max_agents,
            models=models,
            exclude_models=exclude_models,
            topologies=topologies,
            k=k,
            sample=sample,
            seed=seed,
        )[0]

    async def aroute(self, query: str, **options: object) -> RoutingDecision:
        """`route` in a worker thread, so that an event loop is not held up. Same options."""
        return await asyncio.to_thread(self.route, query, **options)  # type: ignore[arg-type]

    def route_batch(
        self,
        queries: Sequence[str],
        *,
        cost_weight: float | None = None,
        willingness_to_pay: float | None = None,
        max_cost_usd: float | None = None,
        max_agents: int | None = None,
        models: Sequence[str] | None = None,
        exclude_models: Sequence[str] = (),
        topologies: Sequence[str] | None = None,
        k: int = 3,
        sample: bool = False,
        seed: int | None = None,
    ) -> list[RoutingDecision]:
        """`route` for many queries under the same options, encoded and scored together."""
        if isinstance(queries, str):
            raise RoutingError("route_batch: expected a list of queries, got one string; use route")
        for position, query in enumerate(queries):
            if not isinstance(query, str) or not query.strip():
                raise RoutingError(f"query {position}: expected text, got {query!r}")
        integer("k", k, at_least=0)
        if seed is not None:
            integer("seed", seed, at_least=0)
        if not queries:
            return []
        constraints = Constraints(
            max_cost_usd, max_agents, _names("models", models),
            _names("exclude_models", exclude_models) or (), _names("topologies", topologies),
        )  # fmt: skip
        constraints.check(
            {m for plan in self.plans for m in plan.models},
            {plan.topology for plan in self.plans},
        )
        weight = self._cost_weight(cost_weight, willingness_to_pay, max_cost_usd)
        with torch.inference_mode():
            embeddings, statistics = self.read(queries)
            phi = self.state.critic.phi(embeddings, statistics)
            expected = self.expect(phi, weight)
            allowed = allowed_plans(constraints, self.plans, expected.cost, weight)
            chosen = decide(expected, self.state.gate, allowed)
            safe = choose(self._safe_utility(weight).expand_as(expected.score), allowed)
            thin = self._evidence.nearest(embeddings) < self.state.evidence.thin
            # The critic guesses on a text unlike anything logged; the fixed plan does not.
            chosen = torch.where(thin, safe, chosen)
            cascade = self.state.controller.encode(
                embeddings,
                self.state.critic.query_features.standardise(statistics),
                torch.full((len(queries),), weight),
            )
            stages, chosen = self._stages(cascade, allowed, chosen, sample, seed)
            domains = self.state.critic.query_features.domain_probabilities(embeddings, statistics)
        return [
            self._decision(i, int(chosen[i]), int(safe[i]), stages[i], expected, allowed[i],
                           embeddings[i], domains[i], weight, constraints, k, sample,
                           fallback=bool(thin[i]) and not sample)
            for i in range(len(queries))
        ]  # fmt: skip

    def explain(self, query: str, **options: object) -> Explanation:
        """Why this team: parts of the prediction, every plan's figures, and the decision itself.

        Takes the options of `route`. Print it to read it.
        """
        decision = self.route(query, **options)  # type: ignore[arg-type]
        with torch.inference_mode():
            embeddings, statistics = self.read([query])
            phi = self.state.critic.phi(embeddings, statistics)
            expected = self.expect(phi, decision.cost_weight)
        return explain(decision, self.state, self._critic, phi, expected)

    def read(self, queries: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings (B, E) and raw text statistics (B, S) of queries."""
        embeddings = torch.from_numpy(self.encoder.encode(list(queries)))
        return embeddings, torch.from_numpy(text_statistics(queries))

    def expect(self, phi: Tensor, cost_weight: float) -> Expected:
        """What the critic expects of every plan: phi (B, F) -> Expected of (B, C)."""
        return expect(
            self._critic, self.state.gate, phi, cost_weight, self._price_ratio, self._prices
        )

    def plan_log_probabilities(self, encoded: Tensor) -> Tensor:
        """The cascade's log-probability of every plan: states (B, D) -> (B, C)."""
        tree, _ = self._tree(torch.ones(len(self.plans), dtype=torch.bool))
        return self.state.controller.log_probabilities(encoded, self._prepared, tree)

    def _cost_weight(
        self, cost_weight: float | None, willingness: float | None, budget: float | None
    ) -> float:
        if cost_weight is not None and willingness is not None:
            raise RoutingError("cost_weight and willingness_to_pay say the same thing: give one")
        if willingness is not None:
            return 1 / number("willingness_to_pay", willingness, above=1 / LARGEST)
        if cost_weight is not None:
            return number("cost_weight", cost_weight, at_least=0.0)
        return 0.0 if budget is not None else self.state.default_cost_weight

    def _safe_utility(self, cost_weight: float) -> Tensor:
        """Mean utility (C,), with the logged default in front on observational logs."""
        gate = self.state.gate
        utility = gate.fixed_utility(cost_weight).clone()
        if gate.default >= 0:
            utility[gate.default] = math.inf
        return utility

    def _tree(self, allowed: Tensor) -> tuple[PlanTree, Tensor]:
        """The tree of the allowed plans (C,) bool, and their positions."""
        key = allowed.numpy().tobytes()
        with self._lock:
            if key in self._trees:
                return self._trees[key]
        kept = allowed.nonzero()[:, 0]
        tree = PlanTree.build(self._index.at(kept), self.state.controller.sizes)
        with self._lock:
            if len(self._trees) >= TREES_KEPT:
                self._trees.clear()
            self._trees[key] = (tree, kept)
        return tree, kept

    def _stages(
        self, cascade: Tensor, allowed: Tensor, chosen: Tensor, sample: bool, seed: int | None
    ) -> tuple[list[StageProbabilities], Tensor]:
        """The cascade's probabilities of the chosen plans; with `sample`, its own choices."""
        if sample and not self.state.cascade_trained:
            raise RoutingError("this checkpoint's cascade was not trained; route without sample")
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        chosen = chosen.clone()
        stages: list[StageProbabilities] = [StageProbabilities(1.0, 1.0, (), ())] * len(chosen)
        patterns, which = allowed.unique(dim=0, return_inverse=True)
        for position, pattern in enumerate(patterns):
            rows = (which == position).nonzero()[:, 0]
            tree, kept = self._tree(pattern)
            if sample:
                drawn = self.state.controller.sample(cascade[rows], self._prepared, tree, generator)
                matches = (tree.steps == drawn.steps[:, None]).all(2)  # (b, P)
                picked, log_p = matches.long().argmax(1), drawn.log_probabilities
                chosen[rows] = kept[picked]
            else:
                picked = (kept == chosen[rows][:, None]).long().argmax(1)
                every = self.state.controller.stage_log_probabilities(
                    cascade[rows], self._prepared, tree
                )
                log_p = every[torch.arange(len(rows)), picked]  # (b, L)
            for row, probabilities, plan in zip(
                rows.tolist(), log_p.exp().tolist(), chosen[rows].tolist(), strict=True
            ):
                end = 2 + 2 * len(self.plans[plan].agents)
                stages[row] = StageProbabilities(
                    probabilities[0],
                    probabilities[1],
                    tuple(probabilities[2:end:2]),
                    tuple(probabilities[3:end:2]),
                )
        return stages, chosen

    def _scored(self, plan: int, expected: Expected, row: int) -> ScoredPlan:
        score, error = expected.score[row, plan], expected.score_error[row, plan]
        low, mid, high = (
            float(self.state.calibrate(score + z * error, expected.head)) for z in (-Z95, 0.0, Z95)
        )
        cost, factor = float(expected.cost[row, plan]), float(expected.cost_factor[row, plan])
        priced = math.isfinite(cost)
        return ScoredPlan(
            self.plans[plan],
            expected_score=mid,
            score_interval=Interval(low, high),
            expected_cost_usd=cost if priced else None,
            cost_interval=Interval(cost / factor**Z95, cost * factor**Z95) if priced else None,
            expected_prompt_tokens=_known(expected.prompt_tokens[row, plan]),
            expected_completion_tokens=_known(expected.completion_tokens[row, plan]),
        )

    def _decision(
        self, row: int, plan: int, safe: int, stages: StageProbabilities, expected: Expected,
        allowed: Tensor, embedding: Tensor, domains: Tensor, weight: float,
        constraints: Constraints, k: int, sampled: bool, *, fallback: bool,
    ) -> RoutingDecision:  # fmt: skip
        scored = self._scored(plan, expected, row)
        others = [
            i
            for i in frontier(expected.score[row], expected.cost[row], allowed, k + 1)
            if i != plan
        ]
        names = self.state.critic.query_features.domains
        domain = int(domains.argmax()) if names else -1
        propensity = 1.0
        if sampled:
            propensity = math.prod((stages.topology, stages.count, *stages.roles, *stages.models))
        decision = RoutingDecision(
            plan=scored.plan,
            cost_weight=weight,
            propensity=propensity,
            stage_probabilities=stages,
            expected_score=scored.expected_score,
            score_interval=scored.score_interval,
            expected_cost_usd=scored.expected_cost_usd,
            cost_interval=scored.cost_interval,
            domain=names[domain] if names else "unknown",
            domain_probability=float(domains[domain]) if names else 0.0,
            evidence=self._evidence.look_up(embedding, plan),
            fallback=fallback,
            alternatives=tuple(self._scored(i, expected, row) for i in others[:k]),
            checkpoint=self.checkpoint,
        )
        return reasons(decision, self.state.gate, self.state.critic, constraints,
                       self._scored(safe, expected, row), sampled=sampled)  # fmt: skip


def _known(value: Tensor) -> float | None:
    return float(value) if bool(torch.isfinite(value)) else None


def _names(field: str, names: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(names, str):
        raise RoutingError(f"{field}: expected a list of names, got the string {names!r}")
    return None if names is None else tuple(names)
