"""Designs: probabilities that are right and add up, draws that never move, clear refusals."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.collection.worlds import PLANS, sums, team

from masrouter.collection import Assignment, PlanSpace, epsilon_greedy, grid, uniform
from masrouter.errors import CollectionError
from masrouter.types import Agent, Plan

ROLES = ("assistant", "critic", "judge")
MODELS = ("a", "b", "c")

spaces = st.builds(
    PlanSpace,
    topologies=st.dictionaries(
        st.sampled_from(["io", "debate", "panel"]),
        st.tuples(st.integers(1, 2), st.integers(0, 1)).map(lambda t: (t[0], t[0] + t[1])),
        min_size=1,
    ),
    roles=st.fixed_dictionaries(
        {"any": st.lists(st.sampled_from(ROLES), min_size=1, max_size=2, unique=True).map(tuple)},
        optional={"math": st.just(("calculator", "assistant")), "code": st.just(("coder",))},
    ),
    models=st.lists(st.sampled_from(MODELS), min_size=1, max_size=2, unique=True).map(tuple),
)
SMALL_SPACE = PlanSpace({"io": (1, 1), "debate": (1, 2)}, {"any": ("assistant",)}, ("a", "b"))


def every_plan(space: PlanSpace, task: str) -> Iterator[Plan]:
    for topology, (low, high) in space.topologies.items():
        for count in range(low, high + 1):
            seats = [Agent(r, m) for r in space.roles_of(task) for m in space.models]
            for agents in itertools.product(seats, repeat=count):
                yield Plan(topology, agents)


def flat(assignment: Assignment) -> list[float]:
    """Stage probabilities in the order of the choices."""
    stages = assignment.stages
    assert stages is not None
    seats = itertools.chain(*zip(stages["roles"], stages["models"], strict=True))
    return [stages["topology"], stages["count"], *seats]


@given(spaces, st.sampled_from(["math", "code", "knowledge"]))
def test_uniform_probabilities_add_up_to_one(space: PlanSpace, task: str) -> None:
    plans = list(every_plan(space, task))
    assert len(set(plans)) == len(plans)
    assert math.fsum(math.prod(space.steps(plan, task)) for plan in plans) == pytest.approx(1)


@given(spaces)
@settings(max_examples=30)
def test_a_uniform_draw_carries_its_own_probability(space: PlanSpace) -> None:
    for drawn in uniform(sums(4), space, draws=3):
        assert drawn.policy == "uniform"
        assert drawn.plan in set(every_plan(space, "math"))
        assert drawn.propensity == pytest.approx(math.prod(space.steps(drawn.plan, "math")))
        assert math.prod(flat(drawn)) == pytest.approx(drawn.propensity)
        assert len(flat(drawn)) == 2 + 2 * len(drawn.plan.agents)


greedy_plans = st.one_of(
    st.just(team("escalate", "a", "b")),  # outside of every space
    st.just(team("debate", "a", "z")),  # its last model is
    st.just(team("debate", "a", "a")),
    st.just(Plan("io", (Agent(None, "a"),))),
    st.just(team("io", "a")),
)


@given(spaces, greedy_plans, st.sampled_from([0.001, 0.2, 1.0]))
@settings(max_examples=60)
def test_the_stages_of_an_epsilon_mixture_multiply_to_its_propensity(
    space: PlanSpace, greedy: Plan, epsilon: float
) -> None:
    problems = sums(6)
    drawn = epsilon_greedy(problems, [greedy] * 6, space, policy="mine", epsilon=epsilon, draws=3)
    for assignment in drawn:
        inside = math.prod(space.steps(assignment.plan, "math"))
        expected = epsilon * inside + (1 - epsilon) * (assignment.plan == greedy)
        assert assignment.propensity == pytest.approx(expected)
        assert math.prod(flat(assignment)) == pytest.approx(expected)
        assert all(0 < step <= 1 for step in flat(assignment))


@pytest.mark.parametrize("greedy", [team("debate", "b", "a"), team("escalate", "a", "b")])
def test_the_stages_of_a_mixture_are_its_marginals_over_every_plan(greedy: Plan) -> None:
    space, epsilon = SMALL_SPACE, 0.3
    plans = {*every_plan(space, "math"), greedy}
    exact = {
        plan: epsilon * math.prod(space.steps(plan, "math")) + (1 - epsilon) * (plan == greedy)
        for plan in plans
    }
    assert math.fsum(exact.values()) == pytest.approx(1)
    seen = set()
    for assignment in epsilon_greedy(
        sums(60), [greedy] * 60, space, policy="mine", epsilon=epsilon, draws=4
    ):
        plan, steps = assignment.plan, flat(assignment)
        seen.add(plan)
        same_topology = {p: m for p, m in exact.items() if p.topology == plan.topology}
        same_count = {p: m for p, m in same_topology.items() if len(p.agents) == len(plan.agents)}
        assert steps[0] == pytest.approx(math.fsum(same_topology.values()))
        assert steps[1] == pytest.approx(
            math.fsum(same_count.values()) / math.fsum(same_topology.values())
        )
        first = {p: m for p, m in same_count.items() if p.agents[0] == plan.agents[0]}
        assert steps[2] * steps[3] == pytest.approx(
            math.fsum(first.values()) / math.fsum(same_count.values())
        )
    assert seen == plans


@pytest.mark.parametrize("design", ["uniform", "epsilon"])
def test_plans_come_as_often_as_their_propensity_says(design: str) -> None:
    greedy, problems = team("debate", "b", "a"), sums(400)
    if design == "uniform":
        drawn = list(uniform(problems, SMALL_SPACE, draws=10, seed=5))
    else:
        chosen = [greedy] * len(problems)
        drawn = list(
            epsilon_greedy(
                problems, chosen, SMALL_SPACE, policy="mine", epsilon=0.5, draws=10, seed=5
            )
        )
    counts = Counter(assignment.plan for assignment in drawn)
    propensity = {assignment.plan: assignment.propensity for assignment in drawn}
    assert len(counts) == len(list(every_plan(SMALL_SPACE, "math")))
    for plan, times in counts.items():
        p = propensity[plan]
        assert p is not None
        error = math.sqrt(p * (1 - p) / len(drawn))
        assert abs(times / len(drawn) - p) < 5 * error


def test_a_design_is_the_same_every_time_and_in_any_order_of_problems() -> None:
    problems = sums(20)
    once = list(uniform(problems, SMALL_SPACE, draws=3, seed=1))
    assert once == list(uniform(problems[::-1], SMALL_SPACE, draws=3, seed=1))
    assert once != list(uniform(problems, SMALL_SPACE, draws=3, seed=2))


def test_more_problems_and_draws_leave_the_others_draws_alone() -> None:
    few = set(map(hashable, uniform(sums(10), SMALL_SPACE, draws=2)))
    more = set(map(hashable, uniform(sums(15), SMALL_SPACE, draws=3)))
    assert few < more


def test_another_space_policy_or_choice_shares_no_run_with_the_first() -> None:
    problems, greedy = sums(30), team("io", "a")
    wider = PlanSpace(SMALL_SPACE.topologies, SMALL_SPACE.roles, ("a", "b", "c"))

    def around(plan: Plan, policy: str, epsilon: float, space: PlanSpace) -> set[object]:
        chosen = [plan] * len(problems)
        return set(
            map(
                hashable,
                epsilon_greedy(problems, chosen, space, policy=policy, epsilon=epsilon, draws=2),
            )
        )

    designs = [
        set(map(hashable, uniform(problems, SMALL_SPACE, draws=2))),
        set(map(hashable, uniform(problems, wider, draws=2))),
        around(greedy, "one", 0.5, SMALL_SPACE),
        around(greedy, "two", 0.5, SMALL_SPACE),
        around(greedy, "one", 0.6, SMALL_SPACE),
        around(greedy, "one", 0.5, wider),
        around(team("io", "b"), "one", 0.5, SMALL_SPACE),
    ]
    for one, other in itertools.combinations(designs, 2):
        assert not one & other


def hashable(assignment: Assignment) -> tuple[str, Plan, int]:
    return assignment.problem.problem_id, assignment.plan, assignment.seed


def test_a_grid_holds_every_problem_and_plan_once_a_seed() -> None:
    problems = sums(5)
    runs = list(grid(problems, PLANS, seeds=2))
    assert len({hashable(run) for run in runs}) == len(runs) == 5 * len(PLANS) * 2
    assert {run.propensity for run in runs} == {None}
    first = {run.problem.problem_id for run in runs[: 2 * len(PLANS)]}
    assert len(first) == 1


def test_the_run_id_stands_for_query_plan_seed_and_prompt_version() -> None:
    one, other = grid(sums(2), PLANS[:1])
    again = next(iter(grid(sums(2), PLANS[:1], seeds=1)))
    assert one.run_id("v1") == again.run_id("v1")
    ids = {one.run_id("v1"), one.run_id("v2"), other.run_id("v1")}
    ids |= {run.run_id("v1") for run in grid(sums(1), PLANS, seeds=2)}
    assert len(ids) == 3 + 2 * len(PLANS) - 1
    assert all(len(name) == 32 for name in ids)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid([], PLANS), "no problem to run"),
        (lambda: grid(sums(1), []), "needs a list of plans"),
        (lambda: grid(sums(1), PLANS, seeds=0), "at least one run of each problem, got 0"),
        (lambda: grid(sums(1) * 2, PLANS), "two problems have the same id"),
        (lambda: uniform(sums(1), SMALL_SPACE, draws=0), "at least one run"),
        (
            lambda: uniform(
                sums(1), PlanSpace({"io": (1, 1)}, {"code": ("coder",)}, ("a",)), draws=1
            ),
            "no role for problems of math",
        ),
        (
            lambda: epsilon_greedy(
                sums(1), [PLANS[0]], SMALL_SPACE, policy="p", epsilon=0.0, draws=1
            ),
            "epsilon: expected a number above 0",
        ),
        (
            lambda: epsilon_greedy(
                sums(2), [PLANS[0]], SMALL_SPACE, policy="p", epsilon=1, draws=1
            ),
            "2 problems, but 1 chosen plans",
        ),
    ],
)
def test_what_is_no_design_is_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CollectionError, match=message):
        list(make())
