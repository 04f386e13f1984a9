"""Logs for choosing when to delegate: what a cheap model's samples and the strong worker gave.

JSON Lines, one query a line, all of it known, since a rule is judged by both sides of its choice:

    {"query_id": "arith-17", "query": "What is 17 * 23?", "task": "math", "context": "",
     "samples": [{"text": "... Answer: 391", "score": 1, "cost_usd": 0.00002}, ...],
     "strong": {"score": 1, "cost_usd": 0.0009},
     "lacks": false, "group": "arith-17", "check": {"named": false, "cost_usd": 0.00001},
     "stepped": [{"text": "1. 17 * 20 = 340 ...", "score": 1, "cost_usd": 0.00003}, ...],
     "partings": [{"steps": ["17 * 20 = 340"], "step": {"text": "2. ...", "cost_usd": 0.0004},
                   "samples": [{"text": "...", "score": 1, "cost_usd": 0.00003}, ...]}]}

Only `query_id`, `query`, `samples` and `strong` must be there. A sample that failed has the text ""
and score 0. `lacks`, `group` and `check` are for the missing-information check; `stepped` and
`partings` for delegating at a step. Traffic under a rule does not do: where samples agreed, nobody
knows what the strong worker would have said; so some queries are run both ways (`collecting`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from masrouter.delegation.calibration.lines import (
    cost_of,
    fields_of,
    flag_of,
    read_queries,
    score_of,
    string_of,
    text_of,
)
from masrouter.delegation.deliberation.agreement import MOST_SAMPLES
from masrouter.errors import LogError
from masrouter.logs.lines import BadLine


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of the cheap model."""

    text: str
    """Empty where the call failed."""
    score: float
    """In [0, 1]."""
    cost_usd: float | None
    """None is unknown."""


@dataclass(frozen=True, slots=True)
class StrongOutcome:
    """What the strong worker was worth on the same query."""

    score: float
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Check:
    """The cheap model's own word on what is missing, before anybody worked on the query."""

    named: bool
    """Whether it named anything."""
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What the strong worker said where it was asked for one step alone."""

    text: str
    """Empty where the call failed."""
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Parting:
    """What comes behind steps on which samples agree: the strong worker's step, and samples."""

    steps: tuple[str, ...]
    """Those that samples agree on, in order; none where they part at the first."""
    step: StepOutcome
    samples: tuple[Sample, ...]
    """Answers of the cheap model with `steps` and `step` settled, in the order of their drawing;
    none where the step cannot be read."""


@dataclass(frozen=True, slots=True)
class SampledQuery:
    """A query under both."""

    query_id: str
    query: str
    samples: tuple[Sample, ...]
    """Two or more, in the order in which they were drawn."""
    strong: StrongOutcome
    task: str | None = None
    """Domain, as in the log schema."""
    context: str = ""
    """What the query was given with."""
    lacks: bool | None = None
    """Whether it lacks information; None where nobody knows."""
    group: str | None = None
    """Queries of one group (a problem whole, and with a gap) are never parted by folds."""
    check: Check | None = None
    """None where the model was not asked."""
    stepped: tuple[Sample, ...] = ()
    """Samples that were asked to work in numbered steps; none where none were drawn."""
    partings: tuple[Parting, ...] = ()
    """One for each list of steps behind which a rule may delegate; see `collecting`."""

    def to_json(self) -> dict[str, Any]:
        """One line's object; what is not known is left out."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", ())}


def read_samples(*paths: str | Path) -> tuple[SampledQuery, ...]:
    """The queries of files, in order.

    Raises LogError as `file:line: field: what` for the first bad line, for a query id that stands
    twice, and where there is none at all.
    """
    return read_queries(paths, _query, "samples")


def sample_line(query: SampledQuery) -> bytes:
    """One line of a file for `read_samples`."""
    # ASCII, since a model's text may hold what UTF-8 has no form for.
    return json.dumps(query.to_json()).encode("ascii") + b"\n"


@contextmanager
def writing_samples(path: str | Path) -> Iterator[Callable[[SampledQuery], None]]:
    """A new file for `read_samples`, written query by query; it is gone again where none came.

    Raises LogError where it exists already or cannot be written.
    """
    written = 0

    def write(query: SampledQuery) -> None:
        nonlocal written
        try:
            file.write(sample_line(query))
            file.flush()
        except OSError as error:
            raise _unwritable(path, error) from error
        written += 1

    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        raise LogError(f"{path}: exists already; give another name") from None
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with Path(path).open("wb") as file:
            yield write
    finally:
        if not written:
            Path(path).unlink(missing_ok=True)


def _unwritable(path: str | Path, error: OSError) -> LogError:
    return LogError(f"{path}: cannot be written: {error.strerror or error}")


def _query(data: Mapping[str, Any]) -> SampledQuery:
    fields_of(data, "line", SampledQuery.__dataclass_fields__)
    strong = fields_of(data.get("strong"), "strong", ("score", "cost_usd"))
    stepped = _samples(data.get("stepped", []), "stepped", least=0)
    partings = data.get("partings", [])
    if not isinstance(partings, list):
        raise BadLine("partings", "expected a list")
    if partings and not stepped:
        raise BadLine("partings", "expected samples in `stepped` that part there")
    return SampledQuery(
        query_id=text_of(data, "query_id"),
        query=text_of(data, "query"),
        samples=_samples(data.get("samples"), "samples", least=2),
        strong=StrongOutcome(score_of(strong, "strong"), cost_of(strong, "strong")),
        task=text_of(data, "task") if data.get("task") is not None else None,
        context=string_of(data, "context", "context") if "context" in data else "",
        lacks=flag_of(data, "lacks", "lacks") if data.get("lacks") is not None else None,
        group=text_of(data, "group") if data.get("group") is not None else None,
        check=_check(data["check"]) if data.get("check") is not None else None,
        stepped=stepped,
        partings=_partings(partings),
    )


def _samples(data: Any, name: str, *, least: int) -> tuple[Sample, ...]:
    if not isinstance(data, list) or not least <= len(data) <= MOST_SAMPLES:
        raise BadLine(name, f"expected a list of {least} to {MOST_SAMPLES}")
    return tuple(_sample(one, f"{name}[{at}]") for at, one in enumerate(data))


def _check(data: Any) -> Check:
    data = fields_of(data, "check", ("named", "cost_usd"))
    return Check(flag_of(data, "named", "check.named"), cost_of(data, "check"))


def _partings(data: list[Any]) -> tuple[Parting, ...]:
    found: dict[tuple[str, ...], Parting] = {}
    for at, one in enumerate(data):
        parting = _parting(one, f"partings[{at}]")
        if parting.steps in found:
            raise BadLine(f"partings[{at}].steps", "stand twice; what comes behind them?")
        found[parting.steps] = parting
    return tuple(found.values())


def _parting(data: Any, name: str) -> Parting:
    data = fields_of(data, name, ("steps", "step", "samples"))
    steps = data.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise BadLine(f"{name}.steps", "expected a list of texts")
    step = fields_of(data.get("step"), f"{name}.step", ("text", "cost_usd"))
    said = StepOutcome(string_of(step, "text", f"{name}.step.text"), cost_of(step, f"{name}.step"))
    samples = _samples(data.get("samples"), f"{name}.samples", least=0)
    return Parting(tuple(steps), said, samples)


def _sample(data: Any, name: str) -> Sample:
    data = fields_of(data, name, ("text", "score", "cost_usd"))
    return Sample(
        string_of(data, "text", f"{name}.text"), score_of(data, name), cost_of(data, name)
    )
