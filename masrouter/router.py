"""The routing function: a query in, a team out. Pure: no network, no randomness unless asked.

    text ── encoder ──► embedding ── critic ──► expected score and cost of every plan
                                        │
      constraints, cost weight ─────────┴─► gate ──► plan, with evidence, alternatives and reasons

The cascade proposes when sampling is asked for and says how probable each stage of a choice was.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from masrouter.adaptation import Profile, with_candidate, with_plans
from masrouter.cascade import Cascade
from masrouter.catalog import Catalog, ModelEntry, RoleEntry, TopologyEntry
from masrouter.checkpoint import read_checkpoint, write_checkpoint
from masrouter.encoder import Encoder
from masrouter.errors import RoutingError
from masrouter.evidence import EvidenceIndex
from masrouter.explanation import Explanation, Predictions, explain, reasons
from masrouter.features import text_statistics
from masrouter.gate import FIXED
from masrouter.newcomers import told_apart, widened
from masrouter.probes import Kind
from masrouter.router_checks import check_finite, refusing
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
    safe_plans,
)
from masrouter.types import LogRecord, Plan, RoutingDecision, StageProbabilities

ROWS = 256
"""Queries that are scored together: bounds the memory of a large batch."""


class Router:
    """Routes queries to teams. Thread-safe: nothing changes after construction but caches.

    Made by `masrouter_train.fit` or `Router.from_pretrained`.
    """

    def __init__(self, state: RouterState, encoder: Encoder, *, checkpoint: str = "") -> None:
        self.state = state
        self.encoder = encoder
        self.checkpoint = checkpoint
        index = state.candidates.index_plans(state.plans)
        self._models = {model for plan in state.plans for model in plan.models}
        self._topologies = {plan.topology for plan in state.plans}
        self._critic = state.fold(index)
        self._evidence = EvidenceIndex(state.evidence, state.gate.runs)
        self._price_ratio = state.price_ratio()
        self._prices = state.prices()
        self._cascade = Cascade(state.controller, index)

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
        where = str(loaded.path)
        state, encoder = state_from_checkpoint(loaded.data, where, encoder)
        if catalog is not None:
            state = state.with_catalog(catalog)
        with refusing(where):
            router = cls(state, encoder, checkpoint=loaded.id)
            router._probe(where)
        return router

    def save_pretrained(self, folder: str | Path) -> str:
        """Write a checkpoint folder and return its id; an existing checkpoint is replaced."""
        return write_checkpoint(folder, state_to_checkpoint(self.state, self.encoder))

    def add_model(
        self,
        profile: ModelEntry,
        probes: Iterable[LogRecord] = (),
        *,
        plans: Sequence[Plan] | None = None,
    ) -> Router:
        """A router that knows one more model, from its description and prices and a few runs.

        Nothing else changes: predictions for all other plans stay the same to the last bit. Where
        the critic decides, the new plans compete at once. Where the gate takes the best fixed plan,
        they compete once they were probed, with the lower bound of what probes say; before that
        they are alternatives, and what `models=[...]` asks for.

        Args:
            profile: name, description, prices and context window.
            probes: runs of plans with the new model, scored; a few dozen help.
            plans: the new plans. Without, copies of this router's plans of one agent with the new
                model in its seat (of all its plans of one model, where no plan has one agent), and
                whatever the probes ran.

        Raises:
            RoutingError: the model is known already, or `profile` is none.
            CatalogError: the profile breaks a rule of the catalog.
            PlanError: a plan without the model, with another unknown name, or too large.
            LogError: a probe that is no run of the new plans, or has no score, or too many.
        """
        return self._with_candidate("model", profile, probes, plans)

    def add_role(
        self,
        profile: RoleEntry,
        probes: Iterable[LogRecord] = (),
        *,
        plans: Sequence[Plan] | None = None,
    ) -> Router:
        """`add_model` for a role. Without `plans` it takes the seat of every plan of one agent."""
        return self._with_candidate("role", profile, probes, plans)

    def add_topology(
        self,
        profile: TopologyEntry,
        probes: Iterable[LogRecord] = (),
        *,
        plans: Sequence[Plan] | None = None,
    ) -> Router:
        """`add_model` for a topology. Without `plans` it takes every team of one model whose size
        it allows, or every team of such a size where there is none of one model."""
        return self._with_candidate("topology", profile, probes, plans)

    def with_plans(self, plans: Sequence[Plan], catalog: Catalog | None = None) -> Router:
        """A router that may also choose these plans, judged by what they share with logged ones.

        New names need a description, and a price to be routed to at a cost weight, in `catalog`.
        Where the gate takes the best fixed plan, plans without logged runs are never chosen.
        """
        state = with_plans(self.state, plans, catalog or self.catalog, self.encoder)
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
        constraints = Constraints(
            max_cost_usd, max_agents, _names("models", models),
            _names("exclude_models", exclude_models) or (), _names("topologies", topologies),
        )  # fmt: skip
        constraints.check(self._models, self._topologies)
        if seed is not None:
            integer("seed", seed, at_least=0)
        request = _Request(
            constraints,
            self._cost_weight(cost_weight, willingness_to_pay, max_cost_usd),
            integer("k", k, at_least=0),
            self._generator(seed) if sample else None,
        )
        with torch.inference_mode():
            return [
                decision
                for start in range(0, len(queries), ROWS)
                for decision in self._route(queries[start : start + ROWS], request)
            ]

    def _route(self, queries: Sequence[str], request: _Request) -> list[RoutingDecision]:
        """Decide for a bounded number of queries at once."""
        state, weight = self.state, request.cost_weight
        features = state.critic.query_features
        embeddings, statistics = self.read(queries)
        domains = features.domain_probabilities(embeddings, statistics)  # (B, D)
        expected = self.expect(features(embeddings, statistics, domains), weight)
        allowed = allowed_plans(request.constraints, self.plans, expected.cost, weight)
        safe = told_apart(state, safe_plans(state.gate, weight, allowed), expected, allowed, weight)
        cosines = self._evidence.cosines(embeddings)  # (B, Q)
        # The critic guesses on a text unlike anything logged; the fixed plan does not.
        thin = cosines.max(1).values < state.evidence.thin
        decided = decide(expected, state.gate, allowed)
        if state.gate.at(weight)[1].head == FIXED:
            decided = told_apart(state, decided, expected, allowed, weight)
        chosen = torch.where(thin, safe, decided)
        encoded = state.controller.encode(
            embeddings, features.standardise(statistics), torch.full((len(queries),), weight)
        )
        stages, plans = self._cascade.stages(encoded, allowed, chosen, request.generator)
        predictions = Predictions(state, expected)
        decisions = []
        known = (state.gate.runs > 0)[safe].tolist()
        for i, (plan, fixed) in enumerate(zip(plans, safe.tolist(), strict=True)):
            scored = predictions.of(i, plan)
            others = frontier(expected.score[i], expected.cost[i], allowed[i], request.k + 1)
            likeliest = int(domains[i].argmax()) if features.domains else -1
            decision = RoutingDecision(
                plan=scored.plan,
                cost_weight=weight,
                propensity=1.0 if request.generator is None else _product(stages[i]),
                stage_probabilities=stages[i],
                expected_score=scored.expected_score,
                score_interval=scored.score_interval,
                expected_cost_usd=scored.expected_cost_usd,
                cost_interval=scored.cost_interval,
                domain=features.domains[likeliest] if likeliest >= 0 else "unknown",
                domain_probability=float(domains[i, likeliest]) if likeliest >= 0 else 0.0,
                evidence=self._evidence.look_up(cosines[i], plan),
                fallback=bool(thin[i]) and request.generator is None,
                alternatives=tuple(predictions.of(i, other) for other in others if other != plan)[
                    : request.k
                ],
                checkpoint=self.checkpoint,
            )
            decisions.append(
                reasons(decision, state.gate, state.critic, request.constraints,
                        predictions.of(i, fixed) if known[i] else None,
                        sampled=request.generator is not None,
                        added=state.addition_of(plan))
            )  # fmt: skip
        return decisions

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
        expected = expect(
            self._critic, self.state.gate, phi, cost_weight, self._price_ratio, self._prices
        )
        return widened(self.state, self._critic, expected, phi)

    def plan_log_probabilities(self, encoded: Tensor) -> Tensor:
        """The cascade's log-probability of every plan: states (B, D) -> (B, C)."""
        return self._cascade.plan_log_probabilities(encoded)

    @torch.inference_mode()
    def _probe(self, where: str) -> None:
        """CheckpointError unless what the weights say of a made-up query is finite."""
        critic, controller = self.state.critic, self.state.controller
        embedding = torch.zeros(1, critic.query_features.dimension)
        embedding[0, 0] = 1.0
        statistics = critic.query_features.statistics_mean[None]
        phi = critic.phi(embedding, statistics)
        check_finite("the domain", phi, where)
        one_a_head = {node.head: node.cost_weight for node in self.state.gate.nodes}
        for weight in {*one_a_head.values(), self.state.default_cost_weight}:
            expected = self.expect(phi, weight)
            check_finite("the score", torch.cat([expected.score, expected.score_error]), where)
            check_finite("the error of the cost", expected.cost_factor, where)
            encoded = controller.encode(
                embedding, critic.query_features.standardise(statistics), torch.tensor([weight])
            )
            check_finite("the cascade", self.plan_log_probabilities(encoded), where)

    def _with_candidate(
        self, kind: Kind, profile: Profile, probes: Iterable[LogRecord],
        plans: Sequence[Plan] | None,
    ) -> Router:  # fmt: skip
        state = with_candidate(self.state, self.encoder, kind, profile, probes, plans)
        return Router(state, self.encoder)  # no checkpoint holds it yet

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

    def _generator(self, seed: int | None) -> torch.Generator:
        if not self.state.cascade_trained:
            raise RoutingError("this checkpoint's cascade was not trained; route without sample")
        generator = torch.Generator()
        if seed is None:
            generator.seed()
            return generator
        return generator.manual_seed(seed)


@dataclass(frozen=True)
class _Request:
    """The options of a call, checked."""

    constraints: Constraints
    cost_weight: float
    k: int
    generator: torch.Generator | None
    """Of the cascade's draws; None decides without drawing."""


def _product(stages: StageProbabilities) -> float:
    return math.prod((stages.topology, stages.count, *stages.roles, *stages.models))


def _names(field: str, names: object) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise RoutingError(f"{field}: expected a list of names, got {names!r}")
    return tuple(names)
