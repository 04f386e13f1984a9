"""Divides one budget over a batch where it buys most.

Each task has options, of which at most one is taken: the multiple-choice knapsack problem. Its LP
relaxation is solved exactly by a greedy walk: of each task only the options on the upper concave
hull of value over cost matter, and the steps from one to the next are taken in the order of value
per dollar (Sinha and Zoltners, "The Multiple-Choice Knapsack Problem", Operations Research 27(3),
1979). At the last step's price all tasks' marginal values are equal; rounding it down to whole
options loses at most the value of one step, and what is left over is then spent as well.

Not here: what the options of a task are (`auto`), and the books of what is really spent
(`execution.ledger`), which hold whatever is allocated here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

_UNITS = 10**15
"""Of a US dollar, as the ledger's: whole numbers, so that sums are exact."""
_MOST_LEVELS = 32
"""Headrooms that are tried; beyond it they are rounded up to some of them."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to do a task."""

    value: float
    """What is expected of it, at least 0: a score."""
    cost_usd: float
    """What it is expected to cost."""
    hold_usd: float = 0.0
    """What has to be free when its calls are sent: a ledger reserves a call's worst cost."""

    def __post_init__(self) -> None:
        for name, number in (
            ("value", self.value), ("cost_usd", self.cost_usd), ("hold_usd", self.hold_usd)
        ):  # fmt: skip
            if not math.isfinite(number) or number < 0:
                raise ValueError(f"option: {name}: expected a finite number >= 0, got {number!r}")

    @property
    def headroom_usd(self) -> float:
        """What has to be free beyond its own expected cost."""
        return max(0.0, self.hold_usd - self.cost_usd)


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a budget was divided into."""

    chosen: tuple[int | None, ...]
    """Position among each task's options; None where the task goes without."""
    value: float
    """Sum of what is expected."""
    cost_usd: float
    """Sum of what it is expected to cost: never above the budget."""
    bound: float
    """No division of the budget is expected to be worth more: the LP relaxation's optimum."""
    price: float
    """Value that one more dollar would buy, at the step where the budget ended; 0 where every task
    has all that it can use."""


def allocate(options: Sequence[Sequence[Option]], budget_usd: float) -> Allocation:
    """Choose one option or none for each task, so that the expected total fits the budget.

    The value is at least that of `equal_split`, and without holds at least `bound` less one step.
    For every chosen option, what the others are expected to cost leaves room for what it has to
    hold. Raises ValueError for a budget that is no number of US dollars >= 0.
    """
    budget = _units(budget_usd)
    tasks = [_choices(task) for task in options]
    best = _Division(_equal(tasks, budget), price=0.0)
    for level in _levels(tasks):
        fitting = [[choice for choice in task if choice.headroom <= level] for task in tasks]
        divided = _greedy(fitting, budget - level)
        if divided.worth > best.worth:
            best = divided
    bound = max(_bound(tasks, budget), best.worth[0])
    return _allocation(best, bound)


def equal_split(options: Sequence[Sequence[Option]], budget_usd: float) -> Allocation:
    """The same with an equal share for each task, which it spends on its best option or on none."""
    budget = _units(budget_usd)
    tasks = [_choices(task) for task in options]
    return _allocation(_Division(_equal(tasks, budget), price=0.0), _bound(tasks, budget))


@dataclass(frozen=True, slots=True)
class _Choice:
    """An option in whole units, or the choice to do nothing."""

    position: int | None
    value: float
    cost: int
    headroom: int


_NOTHING = _Choice(None, 0.0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Division:
    """One choice for each task."""

    choices: tuple[_Choice, ...]
    price: float

    @property
    def worth(self) -> tuple[float, int]:
        """What it is compared by: the value, and between equals the cost."""
        return math.fsum(choice.value for choice in self.choices), -self.cost

    @property
    def cost(self) -> int:
        return sum(choice.cost for choice in self.choices)


@dataclass(frozen=True, slots=True)
class _Step:
    """From one option of a task to the next on its hull."""

    efficiency: float
    """Value per unit of cost."""
    task: int
    to: _Choice


def _choices(task: Sequence[Option]) -> list[_Choice]:
    return [
        _Choice(position, option.value, _units(option.cost_usd), _units(option.headroom_usd))
        for position, option in enumerate(task)
    ]


def _levels(tasks: Sequence[Sequence[_Choice]]) -> list[int]:
    """Headrooms to leave free: what is chosen needs at most one of them."""
    found = sorted({choice.headroom for task in tasks for choice in task})
    if len(found) <= _MOST_LEVELS:
        return found
    last = len(found) - 1
    return [found[math.ceil(i * last / (_MOST_LEVELS - 1))] for i in range(_MOST_LEVELS)]


def _hull(task: Sequence[_Choice]) -> list[_Choice]:
    """Choices on the upper concave hull of value over cost, from doing nothing on."""
    hull = [_NOTHING]
    for choice in sorted(task, key=lambda c: (c.cost, -c.value)):
        if choice.value <= hull[-1].value:
            continue
        while len(hull) > 1 and _rises(hull[-2], hull[-1], choice):
            hull.pop()
        hull.append(choice)
    return hull


def _rises(first: _Choice, middle: _Choice, last: _Choice) -> bool:
    """Whether the second step is worth at least as much per dollar as the first."""
    return (middle.value - first.value) * (last.cost - middle.cost) <= (
        last.value - middle.value
    ) * (middle.cost - first.cost)


def _steps(tasks: Sequence[Sequence[_Choice]]) -> list[_Step]:
    """The steps of all hulls, best first; those of one task in their order."""
    steps = []
    for task, choices in enumerate(tasks):
        hull = _hull(choices)
        least = math.inf  # rounding must not put a task's later step before an earlier one
        for before, after in itertools.pairwise(hull):
            cost = after.cost - before.cost
            least = min(least, (after.value - before.value) / cost if cost else math.inf)
            steps.append(_Step(least, task, after))
    return sorted(steps, key=lambda step: -step.efficiency)


def _greedy(tasks: Sequence[Sequence[_Choice]], room: int) -> _Division:
    """Steps while they fit; then whatever else fits, the greatest gain first."""
    taken = [_NOTHING] * len(tasks)
    if room < 0:
        return _Division(tuple(taken), 0.0)
    price = 0.0
    stuck: set[int] = set()
    for step in _steps(tasks):
        if step.task in stuck:
            continue
        more = step.to.cost - taken[step.task].cost
        if more <= room:
            taken[step.task] = step.to
            room -= more
        else:
            stuck.add(step.task)
            price = price or step.efficiency * _UNITS
    while True:
        gains = [
            (choice.value - taken[task].value, taken[task].cost - choice.cost, -task, choice)
            for task, choices in enumerate(tasks)
            for choice in choices
            if choice.value > taken[task].value and choice.cost - taken[task].cost <= room
        ]
        if not gains:
            return _Division(tuple(taken), price)
        _, saved, task, choice = max(gains, key=lambda gain: gain[:3])
        taken[-task] = choice
        room += saved


def _equal(tasks: Sequence[Sequence[_Choice]], budget: int) -> tuple[_Choice, ...]:
    share = budget // max(1, len(tasks))
    return tuple(
        max(
            (_NOTHING, *(c for c in choices if c.cost + c.headroom <= share)),
            key=lambda choice: (choice.value, -choice.cost),
        )
        for choices in tasks
    )


def _bound(tasks: Sequence[Sequence[_Choice]], budget: int) -> float:
    """The LP relaxation's optimum: the last step is taken in part. Holds are left out of it."""
    values: list[float] = []
    taken = [_NOTHING] * len(tasks)
    for step in _steps(tasks):
        more = step.to.cost - taken[step.task].cost
        gain = step.to.value - taken[step.task].value
        if more > budget:
            values.append(gain * (budget / more))
            break
        values.append(gain)
        taken[step.task] = step.to
        budget -= more
    return math.fsum(values)


def _allocation(division: _Division, bound: float) -> Allocation:
    value, _ = division.worth
    return Allocation(
        chosen=tuple(choice.position for choice in division.choices),
        value=value,
        cost_usd=division.cost / _UNITS,
        bound=bound,
        price=division.price,
    )


def _units(usd: float) -> int:
    if not math.isfinite(usd) or usd < 0:
        raise ValueError(f"expected US dollars >= 0, got {usd!r}")
    return round(usd * _UNITS)
