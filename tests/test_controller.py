"""The cascade: a probability for every plan, stage by stage, whatever the plans."""

from __future__ import annotations

from itertools import product
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from masrouter.candidates import Candidates
from masrouter.cascade import Cascade
from masrouter.catalog import Catalog
from masrouter.controller import Controller
from masrouter.encoder import HashingEncoder
from masrouter.features import STATISTICS
from masrouter.plan_space import PlanTree, plan_steps
from masrouter.plan_steps import open_depths, stage_name
from masrouter.scorer import Reading, Scores
from masrouter.types import Agent, Plan, StageProbabilities

DIMENSION = 16
ROLES = (None, "coder", "critic")
MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4")
SEATS = tuple(Agent(role, model) for role, model in product(ROLES, MODELS))
PLANS = (
    *(Plan(t, (seat,)) for t in ("io", "cot") for seat in SEATS),
    *(Plan("chain", pair) for pair in product(SEATS, repeat=2)),
    *(Plan("debate", pair) for pair in product(SEATS, repeat=2)),
    *(Plan("debate", (a, b, a)) for a, b in product(SEATS, repeat=2)),
)
"""261 plans: four topologies, one to three agents."""


@pytest.fixture(scope="module")
def candidates() -> Candidates:
    catalog, _ = Catalog.default().with_names_from(PLANS)
    return Candidates.from_catalog(catalog, PLANS, HashingEncoder(DIMENSION))


@pytest.fixture(scope="module")
def controller(candidates: Candidates) -> Controller:
    """With weights large enough that its choices are far from uniform."""
    torch.manual_seed(0)
    made = Controller(DIMENSION, candidates, reference_cost=0.001, width=12).double()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "residual" in name or name == "position":
                parameter.copy_(torch.randn_like(parameter))
            elif "read" in name or "hidden" in name:
                parameter.mul_(3)
    # Tables are inputs, not weights, so `double` does not reach them.
    for table in (candidates.topologies, candidates.roles, candidates.models):
        object.__setattr__(table, "vectors", table.vectors.double())
    return made.requires_grad_(False)


def states(controller: Controller, queries: int, weight: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(
        torch.randn(queries, DIMENSION, generator=generator, dtype=torch.float64), dim=1
    )
    s = torch.randn(queries, len(STATISTICS), generator=generator, dtype=torch.float64)
    return controller.encode(x, s, torch.full((queries,), weight, dtype=torch.float64))


def tree_of(controller: Controller, plans: list[Plan] | tuple[Plan, ...]) -> PlanTree:
    return PlanTree.build(controller.candidates.index_plans(plans), controller.sizes)


class Paths:
    """A scorer of which only the cascade is asked."""

    backend, rows = "test", 256

    def __init__(self, controller: Controller, plans: list[Plan] | tuple[Plan, ...]) -> None:
        self.controller = controller
        self.steps = controller.candidates.names.steps(plans)
        self.depths = open_depths(self.steps)
        self.prepared = controller.prepare()

    def read(self, *_: object) -> Reading:
        raise AssertionError

    def score(self, *_: object) -> Scores:
        raise AssertionError

    def logits(self, state: np.ndarray, steps: np.ndarray) -> dict[int, np.ndarray]:
        found = self.controller.path_logits(
            torch.from_numpy(state), self.prepared, torch.from_numpy(steps), self.depths
        )
        return {depth: part.numpy() for depth, part in zip(self.depths, found, strict=True)}


def cascade_of(controller: Controller, plans: list[Plan] | tuple[Plan, ...]) -> Cascade:
    paths = Paths(controller, plans)
    return Cascade(paths.steps, paths)


def flat(stages: StageProbabilities) -> list[float]:
    """In the order of the cascade."""
    seats = zip(stages.roles, stages.models, strict=True)
    return [stages.topology, stages.count, *(p for seat in seats for p in seat)]


some = st.lists(st.sampled_from(PLANS), min_size=1, max_size=40, unique=True)


@settings(max_examples=60, deadline=None)
@given(some)
def test_probabilities_of_any_set_of_plans_sum_to_one(
    controller: Controller, plans: list[Plan]
) -> None:
    tree = tree_of(controller, plans)
    log_p = controller.log_probabilities(states(controller, 3), controller.prepare(), tree)
    assert log_p.shape == (3, len(plans))
    assert torch.isfinite(log_p).all()
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(3, dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(some)
def test_stages_add_up_to_the_plan_and_each_is_a_distribution_over_allowed_choices(
    controller: Controller, plans: list[Plan]
) -> None:
    tree = tree_of(controller, plans)
    state, prepared = states(controller, 2), controller.prepare()
    stages = controller.stage_log_probabilities(state, prepared, tree)  # (2, P, L)
    assert (stages <= 1e-12).all()
    torch.testing.assert_close(stages.sum(2), controller.log_probabilities(state, prepared, tree))
    steps = tree.steps
    assert (stages[:, steps < 0] == 0).all()
    for depth in range(steps.shape[1]):
        by_prefix: dict[tuple[int, ...], dict[int, float]] = {}
        for plan in range(len(plans)):
            if steps[plan, depth] >= 0:
                choices = by_prefix.setdefault(tuple(steps[plan, :depth].tolist()), {})
                p = float(stages[0, plan, depth].exp())
                # The same prefix and choice have one probability, in whichever plan.
                assert choices.setdefault(int(steps[plan, depth]), p) == pytest.approx(p)
        for choices in by_prefix.values():
            assert sum(choices.values()) == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(some, some, st.randoms(use_true_random=False))
def test_the_stages_of_one_plan_are_those_of_the_tree_of_what_is_allowed(
    controller: Controller, plans: list[Plan], forbidden: list[Plan], random: Random
) -> None:
    """Routing follows one path a query; the tree of training visits all."""
    allowed = [plan for plan in plans if plan not in forbidden] or plans
    state = states(controller, 5)
    tree = tree_of(controller, allowed)
    every = controller.stage_log_probabilities(state, controller.prepare(), tree).exp()
    at = [random.randrange(len(allowed)) for _ in range(5)]
    mask = np.tile([plan in allowed for plan in plans], (5, 1))
    chosen = np.array([plans.index(allowed[i]) for i in at])
    found = cascade_of(controller, plans).stages(state.numpy(), mask, chosen)
    for row, (i, stages) in enumerate(zip(at, found, strict=True)):
        size = 2 + 2 * len(allowed[i].agents)
        np.testing.assert_allclose(flat(stages), every[row, i, :size], atol=1e-12)


@given(some)
def test_the_open_stages_are_those_at_which_the_tree_leaves_a_choice(
    controller: Controller, plans: list[Plan]
) -> None:
    tree = tree_of(controller, plans)
    left = [depth for depth, level in enumerate(tree.levels) if not level.forced]
    assert list(open_depths(controller.candidates.names.steps(plans))) == left


def test_a_tree_follows_its_plans_and_masks_all_else(controller: Controller) -> None:
    plans = [
        Plan("io", (SEATS[0],)),
        Plan("chain", (SEATS[1], SEATS[2])),
        Plan("chain", (SEATS[1], SEATS[5])),
        Plan("debate", (SEATS[3], SEATS[3], SEATS[3])),
    ]
    tree = tree_of(controller, plans)
    assert [stage_name(depth) for depth in range(4)] == ["topology", "count", "role", "model"]
    assert tree.levels[0].mask.sum() == 3
    reachable = {()}
    for depth, level in enumerate(tree.levels):
        assert level.mask.any(1).sum() == sum(
            any(s[depth] >= 0 and tuple(s[:depth]) == prefix for s in tree.steps.tolist())
            for prefix in reachable
        )
        reachable = {tuple(s[: depth + 1]) for s in tree.steps.tolist() if s[depth] >= 0}
    assert tree.levels[3].forced  # each first role leaves one model
    assert not tree.levels[0].forced


@settings(max_examples=40, deadline=None)
@given(some, st.integers(0, 5))
def test_greedy_takes_the_likeliest_choice_at_every_stage(
    controller: Controller, plans: list[Plan], seed: int
) -> None:
    tree = tree_of(controller, plans)
    state, prepared = states(controller, 4, seed=seed), controller.prepare()
    greedy = controller.greedy(state, prepared, tree)
    stages = controller.stage_log_probabilities(state, prepared, tree)
    for row in range(4):
        alive = list(range(len(plans)))
        for depth in range(tree.steps.shape[1]):
            best = max(alive, key=lambda plan: float(stages[row, plan, depth]))
            choice = tree.steps[best, depth]
            alive = [plan for plan in alive if tree.steps[plan, depth] == choice]
        assert len(alive) == 1
        assert greedy[row].tolist() == tree.steps[alive[0]].tolist()


@settings(max_examples=20, deadline=None)
@given(some, st.randoms(use_true_random=False))
def test_a_draw_is_allowed_and_carries_the_probability_that_the_tree_gives_it(
    controller: Controller, plans: list[Plan], random: Random
) -> None:
    state = states(controller, 20)
    mask = np.array([[random.random() < 0.6 for _ in plans] for _ in range(20)])
    mask[:, random.randrange(len(plans))] = True
    cascade = cascade_of(controller, plans)
    stages, drawn = cascade.draw(state.numpy(), mask, np.random.default_rng(1))
    for row, plan in enumerate(drawn):
        assert mask[row, plan]
        allowed = [p for p, ok in zip(plans, mask[row], strict=True) if ok]
        every = controller.stage_log_probabilities(
            state[row : row + 1], controller.prepare(), tree_of(controller, allowed)
        )
        size = 2 + 2 * len(plans[plan].agents)
        expected = every[0, allowed.index(plans[plan]), :size].exp()
        np.testing.assert_allclose(flat(stages[row]), expected, atol=1e-12)


def test_draws_are_as_frequent_as_they_are_probable(controller: Controller) -> None:
    plans = list(PLANS[:8]) + list(PLANS[20:100:9])
    state, n = states(controller, 1), 4000
    everything = np.ones((n, len(plans)), dtype=bool)
    _, drawn = cascade_of(controller, plans).draw(
        state.expand(n, -1).numpy(), everything, np.random.default_rng(0)
    )
    count = np.bincount(drawn, minlength=len(plans))
    tree = tree_of(controller, plans)
    p = controller.log_probabilities(state, controller.prepare(), tree)[0].exp().numpy()
    rare = p * n < 5
    observed = [*count[~rare], count[rare].sum()]
    expected = [*(p[~rare] * n), p[rare].sum() * n]
    if not rare.any():
        observed, expected = observed[:-1], expected[:-1]
    assert len(expected) > 5
    assert chisquare(observed, np.array(expected) / sum(expected) * sum(observed)).pvalue > 0.001


def test_the_same_seed_draws_the_same(controller: Controller) -> None:
    cascade, state = cascade_of(controller, PLANS), states(controller, 20).numpy()
    everything = np.ones((20, len(PLANS)), dtype=bool)
    one, two, other = (
        cascade.draw(state, everything, np.random.default_rng(seed))[1] for seed in (3, 3, 4)
    )
    assert one == two
    assert one != other


def model_distribution(controller: Controller, prefix: tuple[Agent, ...], role: str) -> Tensor:
    """P(model of the last seat | earlier agents, its role), (M,)."""
    plans = [Plan("chain", (*prefix, Agent(role, model))) for model in MODELS]
    tree = tree_of(controller, plans)
    stages = controller.stage_log_probabilities(states(controller, 1), controller.prepare(), tree)
    return stages[0, :, 3 + 2 * len(prefix)].exp()


def test_a_model_is_chosen_for_its_role_and_after_the_agents_before_it(
    controller: Controller,
) -> None:
    first, second = Agent("coder", "gpt-4o"), Agent("critic", "gpt-4o")
    third = Agent("coder", "gpt-4")
    base = model_distribution(controller, (first,), "coder")
    torch.testing.assert_close(base.sum(), torch.tensor(1.0, dtype=torch.float64))
    for other in (
        model_distribution(controller, (first,), "critic"),  # another role of the same seat
        model_distribution(controller, (second,), "coder"),  # another role before it
        model_distribution(controller, (third,), "coder"),  # another model before it
    ):
        assert (base - other).abs().max() > 1e-3


def test_the_role_of_a_single_agent_decides_its_model(controller: Controller) -> None:
    """With one agent, too, the model stage sees the role that it serves."""
    plans = [Plan("io", (seat,)) for seat in SEATS]
    tree = tree_of(controller, plans)
    stages = controller.stage_log_probabilities(states(controller, 1), controller.prepare(), tree)
    p = stages[0, :, 3].exp().reshape(len(ROLES), len(MODELS))
    torch.testing.assert_close(p.sum(1), torch.ones(len(ROLES), dtype=torch.float64))
    assert (p[1] - p[2]).abs().max() > 1e-3


def test_topology_and_count_shape_what_follows(controller: Controller) -> None:
    def first_seat(topology: str, agents: int) -> Tensor:
        rest = (SEATS[0],) * (agents - 1)
        plans = [Plan(topology, (seat, *rest)) for seat in SEATS]
        stages = controller.stage_log_probabilities(
            states(controller, 1), controller.prepare(), tree_of(controller, plans)
        )
        return stages[0, :, 2:4].sum(1).exp()

    assert (first_seat("chain", 2) - first_seat("debate", 2)).abs().max() > 1e-3
    assert (first_seat("debate", 2) - first_seat("debate", 3)).abs().max() > 1e-3


def test_every_stage_is_taught(controller: Controller, candidates: Candidates) -> None:
    """A gradient of one plan's probability reaches each stage and the trade-off."""
    torch.manual_seed(1)
    fresh = Controller(DIMENSION, candidates, reference_cost=0.001, width=12).double()
    tree = tree_of(fresh, PLANS)
    plan = PLANS.index(Plan("debate", (SEATS[4], SEATS[8])))
    log_p = fresh.log_probabilities(states(fresh, 2), fresh.prepare(), tree)
    log_p[:, plan].sum().backward()
    for name, parameter in fresh.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_cost_weight_changes_the_policy(controller: Controller) -> None:
    tree, prepared = tree_of(controller, PLANS), controller.prepare()
    p = [
        controller.log_probabilities(states(controller, 3, weight), prepared, tree).exp()
        for weight in (0.0, 100.0, 10_000.0)
    ]
    assert (p[0] - p[1]).abs().max() > 1e-3
    assert (p[1] - p[2]).abs().max() > 1e-3


@pytest.mark.parametrize("weight", [0.0, 1e-9, 1.0, 1e12])
def test_any_cost_weight_gives_a_distribution(controller: Controller, weight: float) -> None:
    tree, prepared = tree_of(controller, PLANS), controller.prepare()
    p = controller.log_probabilities(states(controller, 2, weight), prepared, tree).exp()
    torch.testing.assert_close(p.sum(1), torch.ones(2, dtype=torch.float64))


def test_a_batch_is_its_queries_one_by_one(controller: Controller) -> None:
    tree, prepared = tree_of(controller, PLANS), controller.prepare()
    state = states(controller, 7)
    together = controller.stage_log_probabilities(state, prepared, tree)
    apart = [controller.stage_log_probabilities(row[None], prepared, tree) for row in state]
    torch.testing.assert_close(together, torch.cat(apart))
    greedy = controller.greedy(state, prepared, tree)
    assert greedy.tolist() == [
        controller.greedy(row[None], prepared, tree)[0].tolist() for row in state
    ]


def test_steps_name_the_choices_of_each_plan(candidates: Candidates) -> None:
    plan = Plan("chain", (Agent("critic", "gpt-4"), Agent(None, "gpt-4o")))
    steps = plan_steps(candidates.index_plans([plan]))[0].tolist()
    c = candidates
    assert steps == [
        c.topologies.names.index("chain"), 1,
        c.roles.names.index("critic"), c.models.names.index("gpt-4"),
        0, c.models.names.index("gpt-4o"),
        -1, -1,
    ]  # fmt: skip


def test_a_new_candidate_has_logits_at_once(candidates: Candidates) -> None:
    torch.manual_seed(0)
    catalog, _ = Catalog.default().with_names_from(PLANS)
    small = Candidates.from_catalog(catalog, PLANS, HashingEncoder(DIMENSION))
    trained = Controller(DIMENSION, small, reference_cost=0.001, width=12)
    new = [Plan("panel", (Agent("editor", "claude-x"), SEATS[1])), Plan("io", (Agent(None, "y"),))]
    wider, _ = catalog.with_names_from([*PLANS, *new])
    trained.candidates = small.extended(wider, new, HashingEncoder(DIMENSION))
    plans = [*PLANS[::5], *new]
    tree = tree_of(trained, plans)
    x = torch.nn.functional.normalize(torch.randn(3, DIMENSION), dim=1)
    state = trained.encode(x, torch.zeros(3, len(STATISTICS)), torch.ones(3))
    log_p = trained.log_probabilities(state, trained.prepare(), tree)
    assert torch.isfinite(log_p).all()
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(3))
    assert (log_p[:, -2:].exp() > 1e-6).all()
