"""What plans and models are called elsewhere.

The benchmarks know single models by name. A plan of one agent goes by its model's name where no
other plan has that model alone; every other plan goes by how it is shown, `debate(3x gpt-4o)`. A
YAML file may give other names: `gpt-4o: openai/gpt-4o`, one a line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from masrouter.errors import EvaluationError
from masrouter.logs import LogKind
from masrouter.outcomes import Outcomes
from masrouter.strict_yaml import describe, did_you_mean, load_strict
from masrouter.types import Plan


def plan_names(plans: Sequence[Plan]) -> tuple[str, ...]:
    """A distinct name for each plan; raises EvaluationError where two cannot be told apart."""
    alone = Counter(plan.agents[0].model for plan in plans if len(plan.agents) == 1)
    shown = Counter(map(str, plans))
    names = []
    for plan in plans:
        if len(plan.agents) == 1 and alone[plan.agents[0].model] == 1:
            names.append(plan.agents[0].model)
        elif shown[str(plan)] == 1:
            names.append(str(plan))
        else:  # the same seats in another order: told apart by naming each
            names.append(f"{plan.topology}({', '.join(map(str, plan.agents))})")
    _refuse_doubles(names)
    return tuple(names)


def read_names(path: str | Path) -> dict[str, str]:
    """A YAML mapping from masrouter's names to theirs; EvaluationError names file and line."""
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path}: cannot read the names: {error.strerror}") from error
    document = load_strict(text, str(path), error=EvaluationError)
    names = document.mapping(())
    for name, theirs in names.items():
        if not isinstance(theirs, str) or not theirs:
            raise document.problem((name,), f"expected a name, got {describe(theirs)}")
    return names


def renamed(names: Sequence[str], theirs: Mapping[str, str]) -> tuple[str, ...]:
    """The names with those of `theirs` in their place.

    Raises EvaluationError for an entry of `theirs` that nothing is called, and where two come out
    alike.
    """
    for name in theirs:
        if name not in names:
            raise EvaluationError(f"names: nothing is called {name!r}{did_you_mean(name, names)}")
    found = tuple(theirs.get(name, name) for name in names)
    _refuse_doubles(found)
    return found


def require_grid(outcomes: Outcomes, benchmark: str) -> None:
    """EvaluationError unless each query was run under several plans."""
    if outcomes.kind is not LogKind.GRID:
        raise EvaluationError(
            f"{benchmark} compares what every model did on every query, which grid logs hold; "
            f"these are {outcomes.kind.value} ({outcomes.why})"
        )


def _refuse_doubles(names: Sequence[str]) -> None:
    doubles = [name for name, times in Counter(names).items() if times > 1]
    if doubles:
        raise EvaluationError(
            f"names: {doubles[0]!r} stands for two plans; give each a name of its own"
        )
