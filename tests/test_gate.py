"""When the critic may overrule the best fixed plan, and when nothing may."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from masrouter.candidates import Candidates
from masrouter.catalog import Catalog
from masrouter.encoder import HashingEncoder
from masrouter.errors import TrainingError
from masrouter.features import FeatureScales
from masrouter.gate import FIXED, Gate, GateNode, choose
from masrouter.logs import LogKind
from masrouter.outcomes import Outcomes
from masrouter_train.config import CriticConfig, GateConfig
from masrouter_train.fit_critic import fit_critic
from masrouter_train.progress import Progress
from masrouter_train.shrinkage import choose_gate, default_nodes

ENCODER = HashingEncoder(24)
CRITIC = CriticConfig(
    ladder=(FeatureScales(), FeatureScales(0.1, 1.0), FeatureScales(0.2, 1.0, 0.3)),
    cost_ladder=(FeatureScales(), FeatureScales(1.0, 1.0)),
    folds=4,
)
TOPICS = {
    "code": ["python", "function", "loop", "list", "sort", "compile"],
    "poem": ["poem", "rhyme", "verse", "moon", "love", "stanza"],
}
OutcomesOf = Callable[..., Outcomes]


def texts(n: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    side = rng.integers(0, 2, n)
    words = [list(TOPICS.values())[s] for s in side]
    return [" ".join(rng.choice(w, 6)) + f" {i}" for i, w in enumerate(words)], side


def gate_of(outcomes: Outcomes, nodes: int = 5, config: GateConfig | None = None) -> Gate:
    catalog, _ = Catalog.default().with_names_from(outcomes.plans)
    known = np.arange(outcomes.n_plans)
    fitted = fit_critic(
        outcomes,
        ENCODER.encode(outcomes.queries),
        Candidates.from_catalog(catalog, outcomes.plans, ENCODER),
        known,
        CRITIC,
        seed=0,
        progress=Progress(),
    )
    return choose_gate(
        outcomes, fitted, known, default_nodes(outcomes, nodes), config or GateConfig()
    )


def noise_world(outcomes_of: OutcomesOf, seed: int) -> Outcomes:
    """Five plans of different means; what a query gets has nothing to do with its text."""
    rng = np.random.default_rng(seed)
    words, _ = texts(150, rng)
    chance = np.array([0.3, 0.45, 0.5, 0.55, 0.7])
    score = (rng.random((150, 5)) < chance).astype(float)
    cost = 0.001 * np.array([1, 2, 3, 4, 8]) * rng.lognormal(0, 0.2, (150, 5))
    return outcomes_of(score, cost, texts=words)


def topic_world(outcomes_of: OutcomesOf, n: int = 150, seed: int = 0) -> Outcomes:
    """Two plans, each good at one topic; a third that is middling at both."""
    rng = np.random.default_rng(seed)
    words, side = texts(n, rng)
    chance = np.stack([0.15 + 0.7 * side, 0.85 - 0.7 * side, np.full(n, 0.55)], 1)
    score = (rng.random((n, 3)) < chance).astype(float)
    cost = 0.001 * np.array([1, 1.1, 1.2]) * rng.lognormal(0, 0.2, (n, 3))
    return outcomes_of(score, cost, texts=words)


def test_on_noise_the_fixed_plan_stays(outcomes_of: OutcomesOf) -> None:
    """Over five worlds of pure noise, hardly a node may be opened."""
    heads = [n.head for seed in range(5) for n in gate_of(noise_world(outcomes_of, seed)).nodes]
    text = [head for head in heads if head > 0]
    assert len(heads) == 25
    assert len(text) <= 3
    assert sum(head != FIXED for head in heads) <= 8


def test_where_the_text_matters_the_gate_opens(outcomes_of: OutcomesOf) -> None:
    gate = gate_of(topic_world(outcomes_of))
    for node in gate.nodes[:-1]:
        assert node.head == 2
        assert node.gain > 2 * node.gain_error > 0
    assert gate.nodes[0].gain == pytest.approx(0.3, abs=0.1)  # 0.85 for 0.55


def test_randomised_logs_open_the_gate_too(outcomes_of: OutcomesOf) -> None:
    grid = topic_world(outcomes_of, n=600)
    rng = np.random.default_rng(1)
    drawn = grid.dense("score"), grid.dense("cost")
    keep = np.arange(3) == rng.integers(0, 3, 600)[:, None]
    score, cost = (np.where(keep, matrix, np.nan) for matrix in drawn)
    randomised = outcomes_of(
        score, cost, texts=grid.queries, kind=LogKind.RANDOMISED,
        propensity=np.full((600, 3), 1 / 3),
    )  # fmt: skip
    gate = gate_of(randomised)
    assert gate.nodes[0].head == 2
    assert gate.nodes[0].gain == pytest.approx(0.3, abs=0.12)
    assert gate.default == -1


def test_uneven_draws_do_not_bias_the_means(outcomes_of: OutcomesOf) -> None:
    """Plan 0 is drawn mostly for what it is good at: its plain mean flatters it."""
    rng = np.random.default_rng(2)
    n = 3000
    words, side = texts(n, rng)
    chance = np.stack([0.1 + 0.8 * side, np.full(n, 0.6)], 1)
    p0 = np.where(side == 1, 0.9, 0.1)
    first = rng.random(n) < p0
    keep = np.stack([first, ~first], 1)
    score = np.where(keep, (rng.random((n, 2)) < chance).astype(float), np.nan)
    propensity = np.stack([p0, 1 - p0], 1)
    outcomes = outcomes_of(score, texts=words, kind=LogKind.RANDOMISED, propensity=propensity)
    assert np.nanmean(score[:, 0]) > 0.75
    gate = gate_of(outcomes)
    assert gate.mean_score.tolist() == pytest.approx([0.5, 0.6], abs=0.07)  # 3 errors
    assert gate.fixed_utility(0.0).argmax() == 1


def test_a_row_without_propensity_spoils_nothing(outcomes_of: OutcomesOf) -> None:
    grid = topic_world(outcomes_of, n=200)
    keep = np.arange(3) == np.random.default_rng(1).integers(0, 3, 200)[:, None]
    score, cost = (np.where(keep, grid.dense(c), np.nan) for c in ("score", "cost"))
    propensity = np.full((200, 3), 1 / 3)
    propensity[:1] = np.nan
    gate = gate_of(
        outcomes_of(score, cost, texts=grid.queries, kind=LogKind.RANDOMISED, propensity=propensity)
    )
    for name in ("mean_score", "mean_cost", "mean_utility"):
        assert np.isfinite(getattr(gate, name)).all(), name
    assert all(math.isfinite(node.gain) for node in gate.nodes)


def test_several_draws_of_a_query_count_by_their_number(outcomes_of: OutcomesOf) -> None:
    """Cells are means of repeated draws: an unbiased gain weighs them by the draws behind them."""
    rng = np.random.default_rng(0)
    n, draws = 800, 4
    words, side = texts(n, rng)
    chance = np.stack([0.15 + 0.7 * side, np.full(n, 0.5)], 1)
    p = np.array([0.25, 0.75])
    runs = np.zeros((n, 2), dtype=np.int64)
    total = np.zeros((n, 2))
    for _ in range(draws):
        plan = (rng.random(n) > p[0]).astype(int)
        runs[np.arange(n), plan] += 1
        total[np.arange(n), plan] += rng.random(n) < chance[np.arange(n), plan]
    score = np.where(runs > 0, total / np.maximum(runs, 1), np.nan)
    gate = gate_of(
        outcomes_of(
            score, texts=words, kind=LogKind.RANDOMISED, propensity=np.tile(p, (n, 1)), runs=runs
        )
    )
    assert gate.nodes[0].head == 2
    # 0.85 where plan 0 is good, 0.5 elsewhere: 0.675 against 0.5.
    assert gate.nodes[0].gain == pytest.approx(0.175, abs=0.05)


def test_observational_logs_fall_back_to_what_was_run_most(outcomes_of: OutcomesOf) -> None:
    grid = topic_world(outcomes_of, n=120)
    picked = np.random.default_rng(0).choice(3, 120, p=[0.2, 0.2, 0.6])
    score = np.where(np.arange(3) == picked[:, None], grid.dense("score"), np.nan)
    gate = gate_of(outcomes_of(score, texts=grid.queries, kind=LogKind.OBSERVATIONAL))
    assert gate.default == 2
    assert gate.pessimism == GateConfig().pessimism
    assert all(node.gain == 0 for node in gate.nodes)  # nothing of that kind is identified


def test_trust_without_shrinkage_is_an_ablation(outcomes_of: OutcomesOf) -> None:
    gate = gate_of(noise_world(outcomes_of, 0), config=GateConfig(shrink=False))
    assert len({node.head for node in gate.nodes}) == 1
    assert gate.nodes[0].head != FIXED


def test_nodes_span_the_costs_that_were_seen(outcomes_of: OutcomesOf) -> None:
    outcomes = noise_world(outcomes_of, 0)
    nodes = default_nodes(outcomes, 7)
    assert len(nodes) == 7
    assert nodes[0] == 0.0
    assert nodes[-1] * float(np.median(outcomes.cost)) == pytest.approx(6)
    ratios = np.diff(np.log(nodes[1:]))
    np.testing.assert_allclose(ratios, ratios[0])
    free = replace(outcomes, cost=np.full_like(outcomes.cost, np.nan))
    assert default_nodes(free, 7) == (0.0,)


def test_a_cost_weight_that_no_query_can_answer_is_refused(outcomes_of: OutcomesOf) -> None:
    """Costs and scores are never known of the same cell."""
    rng = np.random.default_rng(0)
    score = rng.random((40, 2)).round()
    cost = np.full((40, 2), np.nan)
    score[:, 1] = np.nan
    cost[:, 1] = 0.001
    with pytest.raises(TrainingError, match="no query has a plan of known utility"):
        gate_of(outcomes_of(score, cost))


def hand_made() -> Gate:
    nan = math.nan
    heads = {0.0: 2, 1.0: FIXED, 100.0: 0}
    return Gate(
        nodes=tuple(GateNode(weight, head, 0.1, 0.02) for weight, head in heads.items()),
        mean_score=np.array([0.5, 0.9, nan]),
        mean_cost=np.array([0.001, 0.1, nan]),
        mean_utility=np.array([[0.5, 0.9, nan], [0.49, 0.8, nan], [0.3, nan, nan]]),
        runs=np.array([10.0, 20.0, 0.0]),
        pessimism=0.5,
        default=1,
    )


@pytest.mark.parametrize(
    ("cost_weight", "node"),
    [(0.0, 0), (1e-12, 1), (1.0, 1), (9.0, 1), (11.0, 2), (100.0, 2), (1e12, 2)],
)
def test_the_nearest_node_on_a_log_scale_decides(cost_weight: float, node: int) -> None:
    gate = hand_made()
    assert gate.at(cost_weight) == (node, gate.nodes[node])


def test_with_one_node_it_decides_everywhere() -> None:
    gate = replace(hand_made(), nodes=hand_made().nodes[:1])
    assert gate.at(5.0)[0] == gate.at(0.0)[0] == 0


def test_what_is_known_without_reading_the_query() -> None:
    gate = hand_made()
    low = -math.inf
    assert gate.fixed_utility(0.0).tolist() == pytest.approx([0.5, 0.9, low])
    # At a node: cells whose utility is known. Between nodes: mean score and mean cost.
    assert gate.fixed_utility(1.0).tolist() == pytest.approx([0.49, 0.8, low])
    assert gate.fixed_utility(10.0).tolist() == pytest.approx([0.49, -0.1, low])
    assert gate.fixed_utility(100.0).tolist() == pytest.approx([0.3, low, low])


def test_the_gate_is_read_back_from_json_and_tensors() -> None:
    gate = hand_made()
    tensors = gate.tensors()
    assert all(np.isfinite(t).all() for t in tensors.values())  # files hold no NaN
    again = Gate.from_state(json.loads(json.dumps(gate.config())), tensors)
    assert (again.nodes, again.pessimism, again.default) == (gate.nodes, 0.5, 1)
    for name in ("mean_score", "mean_cost", "mean_utility", "runs"):
        np.testing.assert_array_equal(getattr(again, name), getattr(gate, name))


def test_the_best_available_plan_is_chosen_even_if_little_is_known_of_it() -> None:
    nan = math.nan
    utility = np.array([[0.9, 0.5, 0.5], [0.1, nan, nan], [nan, nan, -math.inf], [nan, 0.2, 1]])
    available = np.array([[0, 1, 1], [0, 1, 1], [0, 0, 1], [1, 1, 0]], dtype=bool)
    assert choose(utility, available).tolist() == [1, 1, 2, 1]
    # The first of what is available, never something that is not.


def test_support_is_asked_for_on_observational_logs_only() -> None:
    gate = replace(hand_made(), runs=np.array([3000.0, 19.0, 0.0]))
    assert gate.supported().tolist() == [True, False, False]
    assert replace(gate, default=-1).supported().all()
    small = replace(gate, runs=np.array([100.0, 2.0, 0.0]))
    assert small.supported().tolist() == [True, True, False]
