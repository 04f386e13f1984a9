"""From logs to a router: the one function that everything here serves.

logs ─► outcomes ─► critic, cross-fitted ─► gate ─► cascade, distilled ─► Router
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from masrouter.candidates import Candidates
from masrouter.catalog import Catalog
from masrouter.controller import Controller
from masrouter.encoder import Encoder, load_encoder
from masrouter.encoder.embedding_cache import EmbeddingCache
from masrouter.errors import ConfigError, TrainingError
from masrouter.gate import FIXED, Gate
from masrouter.logs import Logs
from masrouter.networks import TrainedNetworks
from masrouter.outcomes import Ints, Outcomes
from masrouter.router import Router
from masrouter.router_state import RouterState
from masrouter_train.config import TrainConfig
from masrouter_train.evidence import keep_evidence
from masrouter_train.fit_critic import FittedCritic, fit_critic
from masrouter_train.held_parts import HeldParts
from masrouter_train.lessons import make_lessons
from masrouter_train.progress import Progress
from masrouter_train.shrinkage import choose_gate, default_nodes

SMALLEST_LOG = 10
"""Queries below which nothing can be held out."""


@dataclass(frozen=True)
class TrainingData:
    """What `fit` learns from: outcomes, and an embedding of each query."""

    outcomes: Outcomes
    embeddings: NDArray[np.float32]  # (N, E)


def fit(
    logs: Logs,
    config: TrainConfig | None = None,
    *,
    catalog: Catalog | None = None,
    encoder: Encoder | None = None,
    run_folder: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Router:
    """Learn a router from outcome logs.

    Args:
        logs: from `masrouter.read_logs`. Their kind (grid, randomised, observational) is detected.
        catalog: descriptions and prices; the default catalog if None.
        encoder: in place of `config.encoder`.
        run_folder: where CSV and TensorBoard logs and resumable state go; None keeps nothing.
        resume: continue the run in `run_folder`; the result is the uninterrupted run's.
        progress: where to say what happens; silent if None.

    Raises TrainingError where the logs cannot train a router, with the reason.
    """
    config = config or TrainConfig()
    progress = progress or Progress()
    if config.controller.enabled:
        _check_lightning()
    if resume and run_folder is None:
        raise ConfigError("resume needs run_folder: the folder of the run to continue")
    outcomes = Outcomes.from_logs(logs)
    encoder = encoder or load_encoder(config.encoder, cache=EmbeddingCache())
    progress.say(f"{outcomes.kind} logs: {outcomes.why}")
    for note in outcomes.notes:
        progress.say(f"note: {note}")
    embeddings = encoder.encode(outcomes.queries, progress=progress.console is not None)
    return fit_outcomes(
        TrainingData(outcomes, embeddings),
        config,
        catalog=catalog,
        encoder=encoder,
        run_folder=run_folder,
        resume=resume,
        progress=progress,
    )


def fit_outcomes(
    data: TrainingData,
    config: TrainConfig,
    *,
    catalog: Catalog | None = None,
    encoder: Encoder,
    cost_weights: Sequence[float] | None = None,
    run_folder: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Router:
    """`fit` from arrays. `cost_weights`: where the gate takes its verdicts; log-spaced if None."""
    progress = progress or Progress()
    outcomes = data.outcomes
    if config.controller.enabled:
        _check_lightning()
    _check(outcomes)
    catalog, unknown = (catalog or Catalog.default()).with_names_from(outcomes.plans)
    if unknown:
        progress.say(
            f"{len(unknown)} names are not in the catalog (price unknown, described by their "
            f"name): {', '.join(unknown)}"
        )
    candidates = Candidates.from_catalog(catalog, outcomes.plans, encoder)
    known = _known_plans(outcomes, config.max_candidates, progress)
    if len(known) < 2:
        raise TrainingError(
            f"the logs hold scored runs of one plan only ({outcomes.plans[known[0]]}): there is "
            "nothing to choose; log runs of at least two"
        )
    if cost_weights is None:
        cost_weights = default_nodes(outcomes, config.gate.nodes)
    if not config.use_cost:
        cost_weights = (0.0,)
    typical = _typical_cost(outcomes)
    default_cost_weight = 0.1 / typical if outcomes.has_costs and config.use_cost else 0.0
    known = _choosable_plans(outcomes, known, config, default_cost_weight, progress)
    with _threads(config.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        fitted = fit_critic(
            outcomes, data.embeddings, candidates, known, config.critic,
            seed=config.seed, progress=progress,
        )  # fmt: skip
        gate = choose_gate(outcomes, fitted, known, cost_weights, config.gate)
        _say_gate(gate, fitted, progress)
        controller = Controller(encoder.dimension, candidates, typical, config.controller.width)
        trained = config.controller.enabled
        cascade_utility = None
        if trained:
            from masrouter_train.fit_controller import RunFolder, fit_controller

            lessons = make_lessons(outcomes, fitted, gate, known, typical, config.seed)
            folder = None if run_folder is None else RunFolder(Path(run_folder), resume=resume)
            cascade_utility = fit_controller(
                controller, lessons, fitted.critic.known, config, folder, progress
            )
    plans = tuple(outcomes.plans[i] for i in known)
    view = outcomes.plans_at(known)
    state = RouterState(
        plans=plans,
        networks=TrainedNetworks(
            candidates, fitted.critic, controller.requires_grad_(False).eval()
        ),
        gate=gate,
        evidence=keep_evidence(
            data.embeddings,
            view.query,
            view.plan,
            view.runs,
            at_most=config.max_evidence,
            seed=config.seed,
        ),
        catalog=catalog,
        trained_catalog=catalog,
        calibration=_calibrate(outcomes, fitted),
        default_cost_weight=default_cost_weight,
        cascade_trained=trained,
        encoder_name=config.encoder,
        training={
            "queries": outcomes.n_queries,
            "cells": len(outcomes.score),
            "datasets": sorted(set(outcomes.datasets)),
            "kind": str(outcomes.kind),
            "why": outcomes.why,
            "notes": list(outcomes.notes),
            "names_not_in_catalog": list(unknown),
            "config": config.to_json(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        },
        metrics={
            "held_out_squared_error": {
                scales.name: float(error.sum() / np.isfinite(outcomes.score).sum())
                for scales, error in zip(fitted.critic.score_scales, fitted.errors, strict=True)
            },
            "cascade_held_out_utility": cascade_utility,
        },
    )
    return Router(state, encoder)


def _check_lightning() -> None:
    """Imported only where a cascade is trained: other commands do not wait for it or need it."""
    try:
        import lightning  # noqa: F401
    except ImportError as error:
        raise TrainingError(
            f"training the cascade needs the package {error.name!r}: pip install 'masrouter[train]'"
        ) from error


def _check(outcomes: Outcomes) -> None:
    if outcomes.n_queries < SMALLEST_LOG:
        raise TrainingError(
            f"{outcomes.n_queries} queries: at least {SMALLEST_LOG} are needed to hold some out"
        )
    if not np.isfinite(outcomes.score).any():
        raise TrainingError("no run has a score: grade the runs, then train")


def _known_plans(outcomes: Outcomes, at_most: int, progress: Progress) -> Ints:
    """Positions of the plans with a scored run, the most-run ones if there are too many."""
    runs = np.bincount(outcomes.plan, weights=outcomes.runs, minlength=outcomes.n_plans)
    seen = np.flatnonzero(runs > 0)
    if len(seen) <= at_most:
        return seen
    progress.say(
        f"{len(seen)} plans were run; the {at_most} most-run ones can be chosen, the others teach "
        "what their parts have in common"
    )
    return np.sort(seen[np.argsort(-runs[seen], kind="stable")[:at_most]])


def _choosable_plans(
    outcomes: Outcomes, known: Ints, config: TrainConfig, cost_weight: float, progress: Progress
) -> Ints:
    """Those of the known plans that the ablations of the settings leave."""
    held = HeldParts.of(config)
    if not held:
        return known
    kept = held.choosable(outcomes, known, cost_weight)
    progress.say(
        f"held at {held.describe(outcomes.plans[kept[0]])}: {len(kept)} of {len(known)} plans can "
        "be chosen"
    )
    if len(kept) < 2 and config.controller.enabled:
        raise TrainingError(
            f"held at {held.describe(outcomes.plans[kept[0]])}, only "
            f"{outcomes.plans[kept[0]]} is left: there is nothing to choose; switch fewer of "
            "choose_topology, choose_roles and choose_models off"
        )
    return kept


def _typical_cost(outcomes: Outcomes) -> float:
    """Median known cost above 0, US dollars; 1 where none is."""
    costs = outcomes.cost[np.isfinite(outcomes.cost) & (outcomes.cost > 0)]
    return float(np.median(costs)) if len(costs) else 1.0


def _calibrate(outcomes: Outcomes, fitted: FittedCritic) -> tuple[tuple[float, float], ...]:
    """Platt scaling of each head on held-out predictions: slope and intercept of the logit.

    A score between 0 and 1 counts as that share of a success.
    """
    known = np.isfinite(outcomes.score)
    score = outcomes.score[known]
    y = np.concatenate([np.ones_like(score), np.zeros_like(score)])
    weight = np.concatenate([score, 1 - score])
    pairs = []
    for head in fitted.scores:
        x = torch.logit(head.cells.clamp(0.005, 0.995)).numpy()
        if 0 < score.mean() < 1:
            model = LogisticRegression(C=1e3).fit(
                np.concatenate([x, x])[:, None], y, sample_weight=weight
            )
            pairs.append((max(float(model.coef_[0, 0]), 0.05), float(model.intercept_[0])))
        else:
            pairs.append((1.0, 0.0))
    return tuple(pairs)


def _say_gate(gate: Gate, fitted: FittedCritic, progress: Progress) -> None:
    names = [scales.name for scales in fitted.critic.score_scales]
    for node in gate.nodes:
        if gate.default >= 0:
            verdict = f"{names[node.head]}, if it beats the logged default surely"
        elif node.head == FIXED:
            verdict = "best fixed plan (nothing beat it on held-out queries)"
        else:
            gain = f"{node.gain:+.4f} +- {1.96 * node.gain_error:.4f}"
            verdict = f"{names[node.head]}: {gain} over the best fixed plan on held-out queries"
        progress.say(f"cost weight {node.cost_weight:.4g}: {verdict}")


class _threads:
    """Limit torch's threads while fitting; None leaves them."""

    def __init__(self, threads: int | None) -> None:
        self.threads = threads
        self.before = torch.get_num_threads()

    def __enter__(self) -> None:
        if self.threads:
            torch.set_num_threads(self.threads)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)
