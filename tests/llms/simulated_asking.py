"""Small tasks for the simulated provider, and asking it about them as a delegated task is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from masrouter.delegation.query import task_query
from masrouter.llms import ChatRequest, Completion
from masrouter.llms.chat import messages
from masrouter.llms.simulated import SimulatedProvider, SimulatedTask
from masrouter.sections import section
from masrouter.topologies.prompts import STEP_BY_STEP

WEAK, CHEAP, STRONG, THINKER = "llama-3.1-8b-instruct", "gpt-4o-mini", "gpt-4.1", "o3-mini"


def counting(number: int, difficulty: float = 3.0) -> SimulatedTask:
    """A task whose answers are numbers."""
    right = 2 * number * number
    return SimulatedTask(
        f"A farmer keeps {number} hens in a wooden barn. Each hen lays two brown eggs a day. "
        f"How many eggs does the farmer gather in {number} days?",
        "math",
        difficulty,
        f"Each day brings {2 * number} eggs.\n\nAnswer: {right}",
        tuple(f"Answer: {wrong}" for wrong in (right + 1, number * number, 3 * number)),
    )


def choosing(number: int, difficulty: float = 3.0) -> SimulatedTask:
    """A task whose answers are letters."""
    return SimulatedTask(
        f"Route {number} climbs through pine forest to a stone chapel. The chapel bell was cast "
        "by a travelling founder from the coast. Which of these was the founder's home?\n"
        "A) a mountain village\nB) a river market\nC) a harbour town\nD) a desert fort",
        "knowledge",
        difficulty,
        "The founder came from the coast, where harbours are.\n\nAnswer: C",
        ("Answer: A", "Answer: B", "Answer: D"),
    )


def programming(number: int) -> SimulatedTask:
    """A task whose answers are programs."""

    def program(start: int) -> str:
        return (
            f"```python\ndef add_{number}(xs):\n    total = {start}\n    for x in xs:\n"
            "        total += x\n    return total\n```"
        )

    return SimulatedTask(
        f'def add_{number}(xs):\n    """Add all numbers of a list and give their sum back."""\n',
        "code",
        3.0,
        program(0),
        (program(1), program(2), program(3)),
    )


NUMBERS = [counting(n) for n in range(10, 54)]
LETTERS = [choosing(n) for n in range(10, 54)]


def ask(
    provider: SimulatedProvider,
    goal: str,
    *,
    context: str = "",
    results: dict[str, str] | None = None,
    model: str = WEAK,
    say: str = STEP_BY_STEP,
    seed: int = 0,
) -> Completion:
    """A delegated task, asked of one model that thinks step by step."""
    asked = section("question", task_query(goal, context, results))
    request = ChatRequest(model, messages(None, f"{asked}\n\n{say}"), 8192, seed=seed)
    return asyncio.run(provider.complete(request))


def share_right(
    tasks: Sequence[SimulatedTask],
    goal: Callable[[SimulatedTask], str] = lambda task: task.query,
    context: Callable[[SimulatedTask], str] = lambda task: "",
    *,
    provider: SimulatedProvider | None = None,
    model: str = WEAK,
    seeds: int = 2,
) -> float:
    """Share of right answers to all tasks."""
    provider = SimulatedProvider(tasks) if provider is None else provider
    asked = [(task, seed) for task in tasks for seed in range(seeds)]
    texts = [
        ask(provider, goal(task), context=context(task), model=model, seed=seed).text
        for task, seed in asked
    ]
    right = [task.index_of(text) == 0 for (task, _), text in zip(asked, texts, strict=True)]
    return sum(right) / len(right)
