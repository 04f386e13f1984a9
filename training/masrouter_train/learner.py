"""The router as a learner among baselines, so that all are judged by the same code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from masrouter.catalog import Catalog
from masrouter.encoder import Encoder
from masrouter.evaluation.learners import Queries
from masrouter.features import text_statistics
from masrouter.outcomes import Bools, Floats, Ints, Outcomes
from masrouter.plan_space import PlanTree
from masrouter.router import Router
from masrouter.selection import decide
from masrouter_train.config import TrainConfig
from masrouter_train.fit import TrainingData, fit_outcomes
from masrouter_train.held_parts import HeldParts

Embeddings = NDArray[np.float32]
ROUTER = "masrouter"
CASCADE = "masrouter cascade alone"


@dataclass(frozen=True)
class RouterLearner:
    """Trains a router on each fold and lets it choose as `Router.route` does.

    `route` scores every known plan, so the cascade does not change its choice and is not trained
    here; with `cascade` the cascade's own greedy choices are judged instead, without the critic.
    The fall-back of `route` for texts unlike anything logged is not applied: what is judged is what
    was learned. A router trained without the cost term is asked at cost weight 0 whatever the
    trade-off.
    """

    config: TrainConfig
    encoder: Encoder
    catalog: Catalog | None = None
    cascade: bool = False
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or (CASCADE if self.cascade else ROUTER)

    def fit(
        self,
        train: Outcomes,
        embeddings: NDArray[np.float32],
        *,
        cost_weights: Sequence[float],
        seed: int,
    ) -> RouterChooser:
        controller = replace(self.config.controller, enabled=self.cascade)
        config = replace(self.config, seed=seed, controller=controller)
        router = fit_outcomes(
            TrainingData(train, np.asarray(embeddings, dtype=np.float32)),
            config,
            catalog=self.catalog,
            encoder=self.encoder,
            cost_weights=cost_weights,
        )
        held = HeldParts.of(self.config)
        unseen = [
            plan
            for plan in train.plans
            if plan not in router.plans and held.agree(plan, router.plans[0])
        ]
        if unseen:
            catalog, _ = router.catalog.with_names_from(unseen)
            largest = router.state.candidates.max_agents
            router = router.with_plans([p for p in unseen if len(p.agents) <= largest], catalog)
        remarks: tuple[str, ...] = ()
        if held:
            remarks = (
                f"{self.name}: held at {held.describe(router.plans[0])}; it chooses from "
                f"{len(router.plans)} of {len(train.plans)} plans",
            )
        return RouterChooser(
            router,
            train.plans,
            self.cascade,
            label=self.name,
            use_cost=self.config.use_cost,
            remarks=remarks,
        )


class RouterChooser:
    """A trained router, asked by plan position.

    `use_cost`: False asks it at cost weight 0 whatever the trade-off. `remarks` go into `notes`.
    """

    def __init__(
        self,
        router: Router,
        plans: Sequence[object],
        cascade: bool,
        *,
        label: str = ROUTER,
        use_cost: bool = True,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.router = router
        self.cascade = cascade
        position = {plan: i for i, plan in enumerate(plans)}
        self.columns = np.array([position[plan] for plan in router.plans])  # (C,) into plans
        self.n_plans = len(plans)
        self.label = label
        self.use_cost = use_cost
        self.remarks = remarks
        self.asked = 0
        self.stranded = 0
        """Choices so far on which none of the router's plans was available."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What it is held at, and how often it had nothing to choose from."""
        if not self.stranded:
            return self.remarks
        return (
            *self.remarks,
            f"{self.label}: in {self.stranded} of {self.asked} choices of a fold none of its plans "
            "had a known outcome on the query; the query's first plan was taken",
        )

    def choose(self, queries: Queries, cost_weight: float, available: Bools) -> Ints:
        cost_weight = cost_weight if self.use_cost else 0.0
        mine = available[:, self.columns]
        # A query whose every logged plan is beyond this router gets its first one.
        stranded = np.asarray(~mine.any(axis=1))
        mine[stranded] = True
        self.asked += len(stranded)
        self.stranded += int(stranded.sum())
        embeddings, statistics = self._read(queries)
        if self.cascade:
            chosen = self._cascade(embeddings, statistics, cost_weight, mine)
        else:
            expected = self.router.expect(embeddings, statistics, cost_weight)
            chosen = decide(expected, self.router.state.gate, mine)
        choice: Ints = self.columns[chosen]
        choice[stranded] = available[stranded].argmax(1)
        return choice

    def expected_scores(self, queries: Queries) -> Floats:
        """Calibrated scores at cost weight 0: (n, P), NaN for plans beyond this router."""
        embeddings, statistics = self._read(queries)
        expected = self.router.expect(embeddings, statistics, 0.0)
        scores = np.full((len(queries), self.n_plans), np.nan)
        scores[:, self.columns] = self.router.state.calibrate(expected.score, expected.head)
        return scores

    @torch.inference_mode()
    def predicted_domains(self, queries: Queries) -> tuple[str, ...] | None:
        """The likeliest domain of each text, (n,); None where training knew only one."""
        features = self.router.state.critic.query_features
        if not features.domains:
            return None
        read = map(torch.from_numpy, self._read(queries))
        likeliest = features.domain_probabilities(*read).argmax(1)  # (n,)
        return tuple(features.domains[i] for i in likeliest.tolist())

    @torch.inference_mode()
    def _cascade(
        self, embeddings: Embeddings, statistics: Embeddings, cost_weight: float, available: Bools
    ) -> Ints:
        """The likeliest available plan by the cascade alone."""
        state = self.router.state
        controller = state.controller
        encoded = controller.encode(
            torch.from_numpy(embeddings),
            state.critic.query_features.standardise(torch.from_numpy(statistics)),
            torch.full((len(embeddings),), cost_weight),
        )
        index = state.candidates.index_plans(state.plans)
        tree = PlanTree.build(index, controller.sizes)
        log_p = controller.log_probabilities(encoded, controller.prepare(), tree)
        likeliest: Ints = (
            log_p.masked_fill(~torch.from_numpy(available), -torch.inf).argmax(1).numpy()
        )
        return likeliest

    def _read(self, queries: Queries) -> tuple[Embeddings, Embeddings]:
        return np.asarray(queries.embeddings, dtype=np.float32), text_statistics(queries.texts)
