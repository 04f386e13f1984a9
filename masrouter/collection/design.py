"""Which plan each problem is run under, and how probable it was.

A grid, plans chosen for each problem, uniform draws, draws around a router.

A design is a pure function of its arguments: the same problems, plans and seed give the same
assignments in the same order, so that a collection can be taken up again at any time.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from masrouter.collection.plan_file import PlanSpace
from masrouter.errors import CollectionError
from masrouter.problems import Problem
from masrouter.types import Plan


@dataclass(frozen=True, slots=True)
class Assignment:
    """One run to be made."""

    problem: Problem
    plan: Plan
    seed: int
    """Of the run: the same seed asks for the same samples."""
    policy: str
    propensity: float | None = None
    stages: Mapping[str, Any] | None = field(default=None, compare=False)

    def run_id(self, prompt_version: str) -> str:
        """Name of the run: by query, plan, seed and prompt version; 32 hex digits."""
        parts = [
            self.problem.problem_id,
            self.problem.query,
            self.plan.to_json(),
            self.seed,
            prompt_version,
        ]
        text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def grid(
    problems: Sequence[Problem], plans: Sequence[Plan], *, seeds: int = 1
) -> Iterator[Assignment]:
    """Every problem under every plan, `seeds` times; whole problems first, in a mixed order.

    Stopped early, a grid has whole rows for a random part of the problems.
    """
    _check(problems, seeds)
    if not plans:
        raise CollectionError("a grid needs a list of plans; the plan file has none")
    for problem in _mixed(problems):
        for seed in range(seeds):
            for plan in plans:
                yield Assignment(problem, plan, seed, "grid")


def paired(
    problems: Sequence[Problem],
    plans: Sequence[Sequence[Plan]],
    *,
    policy: str,
    seeds: int = 1,
) -> Iterator[Assignment]:
    """Each problem under plans of its own, `seeds` times; the order is a grid's.

    plans: those of each problem; one that stands there twice is one run.
    """
    _check(problems, seeds)
    if len(plans) != len(problems):
        raise CollectionError(f"{len(problems)} problems, but plans of {len(plans)}")
    own = {
        p.problem_id: tuple(dict.fromkeys(some)) for p, some in zip(problems, plans, strict=True)
    }
    for problem in _mixed(problems):
        for seed in range(seeds):
            for plan in own[problem.problem_id]:
                yield Assignment(problem, plan, seed, policy)


def uniform(
    problems: Sequence[Problem], space: PlanSpace, *, draws: int, seed: int = 0
) -> Iterator[Assignment]:
    """`draws` plans for each problem, each stage uniform, with its probabilities.

    Draws are independent, so a plan may come twice; each run has a seed of its own.
    """
    _check(problems, draws, space)
    for draw in range(draws):
        for problem in _mixed(problems):
            rng = _stream(("uniform", seed), space, problem, draw)
            plan = space.draw(rng, problem.task)
            yield _drawn(problem, plan, rng, "uniform", space.steps(plan, problem.task))


def epsilon_greedy(
    problems: Sequence[Problem],
    chosen: Sequence[Plan],
    space: PlanSpace,
    *,
    policy: str,
    epsilon: float,
    draws: int,
    seed: int = 0,
) -> Iterator[Assignment]:
    """The plan that a router has chosen with probability 1 - epsilon, else one from the space.

    chosen: the router's plans, one a problem.
    A plan's propensity is (1 - epsilon) [plan is the chosen one] + epsilon u(plan), with u the
    space's; a stage's is the same for its prefix of choices over that of the prefix before it.
    """
    _check(problems, draws, space)
    if len(chosen) != len(problems):
        raise CollectionError(f"{len(problems)} problems, but {len(chosen)} chosen plans")
    if not 0.0 < epsilon <= 1.0:
        raise CollectionError(
            f"epsilon: expected a number above 0, up to 1, got {epsilon}; without exploration the "
            "logs say nothing of other plans"
        )
    own = {p.problem_id: plan for p, plan in zip(problems, chosen, strict=True)}
    for draw in range(draws):
        for problem in _mixed(problems):
            greedy = own[problem.problem_id]
            design = ("epsilon", seed, policy, epsilon, greedy.to_json())
            rng = _stream(design, space, problem, draw)
            explored = rng.random() < epsilon
            plan = space.draw(rng, problem.task) if explored else greedy
            steps = _mixture(plan, greedy, space.steps(plan, problem.task), epsilon)
            yield _drawn(problem, plan, rng, policy, steps)


def _drawn(
    problem: Problem, plan: Plan, rng: random.Random, policy: str, steps: Sequence[float]
) -> Assignment:
    topology, count, *seats = steps
    stages = {"topology": topology, "count": count, "roles": seats[0::2], "models": seats[1::2]}
    return Assignment(problem, plan, rng.getrandbits(31), policy, math.prod(steps), stages)


def _mixture(plan: Plan, greedy: Plan, uniform: Sequence[float], epsilon: float) -> list[float]:
    """Step probabilities of the mixture, by the mass that each prefix of choices has in it."""
    path, own = _choices(plan), _choices(greedy)
    mass = [1.0]
    share = epsilon
    for end, step in enumerate(uniform, start=1):
        share *= step
        mass.append(share + (1.0 - epsilon) * (path[:end] == own[:end]))
    return [min(b / a, 1.0) for a, b in pairwise(mass)]


def _choices(plan: Plan) -> list[object]:
    path: list[object] = [plan.topology, len(plan.agents)]
    for agent in plan.agents:
        path += [agent.role, agent.model]
    return path


def _stream(
    design: Sequence[object], space: PlanSpace, problem: Problem, draw: int
) -> random.Random:
    """Random numbers of one draw. Another design, or the same with other settings, has others.

    Were they shared, a run could be drawn by two designs with different probabilities, and would
    be made and logged for the first of them alone.
    """
    sizes = [[name, *space.topologies[name]] for name in space.topologies]
    what = [design, sizes, space.roles_of(problem.task), space.models, problem.problem_id, draw]
    key = json.dumps(what, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return random.Random(int.from_bytes(hashlib.sha256(key).digest()[:16], "big"))


def _mixed(problems: Sequence[Problem]) -> list[Problem]:
    """An order that does not follow the files', the same every time."""
    return sorted(problems, key=lambda p: hashlib.sha256(p.problem_id.encode()).digest())


def _check(problems: Sequence[Problem], times: int, space: PlanSpace | None = None) -> None:
    if not problems:
        raise CollectionError("no problem to run")
    if len({problem.problem_id for problem in problems}) < len(problems):
        raise CollectionError("two problems have the same id")
    if times < 1:
        raise CollectionError(f"expected at least one run of each problem, got {times}")
    for task in {problem.task for problem in problems} if space else ():
        if space and not space.roles_of(task):
            raise CollectionError(
                f"the plan file's space has no role for problems of {task}; name some under "
                f"`{task}` or `any`"
            )
