"""Logs for choosing when to delegate: what a cheap model's samples and the strong worker gave.

JSON Lines, one query a line, all of it known, since a rule is judged by both sides of its choice:

    {"query_id": "arith-17", "query": "What is 17 * 23?", "task": "math",
     "samples": [{"text": "... Answer: 391", "score": 1, "cost_usd": 0.00002}, ...],
     "strong": {"score": 1, "cost_usd": 0.0009}}

`task` may be null or absent. A sample that failed has the text "" and score 0. Traffic under a
rule does not do: where samples agreed, nobody knows what the strong worker would have said; so
some queries are run both ways (`collect_samples`).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from masrouter.delegation.tasks import DelegationError, Task, TaskResult
from masrouter.errors import ConfigError, LogError
from masrouter.execution.ledger import Ledger
from masrouter.logs.lines import LINE_BYTES, BadLine, parse_line
from masrouter.topologies.team import call_seed

if TYPE_CHECKING:
    from masrouter.delegation.delegator import Delegator

MOST_SAMPLES = 64


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
class SampledQuery:
    """A query under both."""

    query_id: str
    query: str
    samples: tuple[Sample, ...]
    """Two or more, in the order in which they were drawn."""
    strong: StrongOutcome
    task: str | None = None
    """Domain, as in the log schema."""

    def to_json(self) -> dict[str, Any]:
        """One line's object."""
        return {
            "query_id": self.query_id,
            "query": self.query,
            "task": self.task,
            "samples": [
                {"text": one.text, "score": one.score, "cost_usd": one.cost_usd}
                for one in self.samples
            ],
            "strong": {"score": self.strong.score, "cost_usd": self.strong.cost_usd},
        }


def read_samples(*paths: str | Path) -> tuple[SampledQuery, ...]:
    """The queries of files, in order.

    Raises LogError as `file:line: field: what` for the first bad line, for a query id that stands
    twice, and where there is none at all.
    """
    found: dict[str, tuple[str, SampledQuery]] = {}
    for path in map(Path, paths):
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                query = _query(parse_line(line))
            except BadLine as bad:
                detail = f" ({bad.detail})" if bad.detail else ""
                raise LogError(f"{where}: {bad}{detail}") from None
            if query.query_id in found:
                first = found[query.query_id][0]
                raise LogError(
                    f"{where}: query_id: {query.query_id!r} stands already at {first}; give every "
                    "query one line"
                )
            found[query.query_id] = where, query
    if not found:
        raise LogError(f"{', '.join(map(str, paths)) or 'no file given'}: no samples there")
    return tuple(query for _, query in found.values())


@contextmanager
def writing_samples(path: str | Path) -> Iterator[Callable[[SampledQuery], None]]:
    """A new file for `read_samples`, written query by query; it is gone again where none came.

    Raises LogError where it exists already or cannot be written.
    """
    written = 0

    def write(query: SampledQuery) -> None:
        nonlocal written
        try:
            # ASCII, since a model's text may hold what UTF-8 has no form for.
            file.write(json.dumps(query.to_json()) + "\n")
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
        with Path(path).open("w", encoding="utf-8") as file:
            yield write
    finally:
        if not written:
            Path(path).unlink(missing_ok=True)


def _unwritable(path: str | Path, error: OSError) -> LogError:
    return LogError(f"{path}: cannot be written: {error.strerror or error}")


async def collect_samples(
    tasks: Sequence[Task],
    *,
    cheap: str,
    strong: str,
    delegator: Delegator,
    samples: int = 5,
    budget_usd: float | None = None,
    within: Ledger | None = None,
    seed: int = 0,
    max_concurrency: int = 8,
    on_query: Callable[[SampledQuery], None] | None = None,
    on_failure: Callable[[TaskResult], None] | None = None,
) -> tuple[SampledQuery, ...]:
    """Each task by the cheap model `samples` times, and once by the strong worker, all graded.

    Every task needs an id of its own and a grader. A call that fails for good counts as a wrong
    answer, as it would for whoever waits for it; one that was refused (unknown name, no key, no
    money left) raises DelegationError, and an answer that the grader cannot judge ConfigError.

    on_query: given each query, in their order, once all before it are done; and those that were
    done where it ends with an error, so that what was paid for is not lost. on_failure: given each
    call that failed for good; where a provider was down, they say nothing of its models.
    """
    if len({task.id for task in tasks}) < len(tasks) or any(t.id is None for t in tasks):
        raise ConfigError("collect_samples: every task needs an id of its own")
    if any(task.grade is None for task in tasks):
        raise ConfigError("collect_samples: every task needs a grader")
    if not 2 <= samples <= MOST_SAMPLES:
        raise ConfigError(f"collect_samples: samples: expected 2 to {MOST_SAMPLES}, got {samples}")
    ledger = Ledger(budget_usd, within=within)
    slots = asyncio.Semaphore(max_concurrency)

    async def ask(task: Task, model: str, part: str) -> tuple[TaskResult, float]:
        async with slots:
            result = await delegator.delegate_task(
                replace(task, id=f"{task.id}-{part}", model=model, needs=()),
                within=ledger,
                seed=call_seed(seed, 0, f"{task.id} {part}"),
            )
        if result.error is not None:
            if result.error.type not in ("provider", "worker", "deadline"):
                raise DelegationError(result.error)
            if on_failure is not None:
                on_failure(result)
            return result, 0.0
        if result.grading is None:
            raise ConfigError(f"collect_samples: task {task.id!r}: its grader gave no grade")
        return result, result.grading.score

    async def collect(task: Task) -> SampledQuery:
        parts = [(cheap, f"sample-{n}") for n in range(1, samples + 1)] + [(strong, "strong")]
        *cheaply, (best, score) = await asyncio.gather(*(ask(task, *part) for part in parts))
        return SampledQuery(
            query_id=str(task.id),
            query=task.goal,
            task=task.kind,
            samples=tuple(
                Sample(one.answer or "", value, one.usage.cost_usd) for one, value in cheaply
            ),
            strong=StrongOutcome(score, best.usage.cost_usd),
        )

    tell = on_query or (lambda query: None)
    working: list[asyncio.Task[SampledQuery]] = []
    found: list[SampledQuery] = []
    try:
        async with asyncio.TaskGroup() as group:
            working += [group.create_task(collect(task)) for task in tasks]
            for one in working:
                found.append(await one)
                tell(found[-1])
    except BaseExceptionGroup as broken:
        raise broken.exceptions[0] from None
    finally:
        for one in working[len(found) :]:
            if one.done() and not one.cancelled() and one.exception() is None:
                tell(one.result())
    return tuple(found)


def _lines(path: Path) -> Iterable[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(LINE_BYTES + 1):
                yield line
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror or error}") from error


def _query(data: Mapping[str, Any]) -> SampledQuery:
    _known(data, "line", ("query_id", "query", "task", "samples", "strong"))
    samples = data.get("samples")
    if not isinstance(samples, list) or not 2 <= len(samples) <= MOST_SAMPLES:
        raise BadLine("samples", f"expected a list of 2 to {MOST_SAMPLES}")
    strong = _known(data.get("strong"), "strong", ("score", "cost_usd"))
    task = data.get("task")
    return SampledQuery(
        query_id=_text(data, "query_id"),
        query=_text(data, "query"),
        samples=tuple(_sample(one, f"samples[{at}]") for at, one in enumerate(samples)),
        strong=StrongOutcome(_score(strong, "strong"), _cost(strong, "strong")),
        task=None if task is None else _text(data, "task"),
    )


def _sample(data: Any, name: str) -> Sample:
    data = _known(data, name, ("text", "score", "cost_usd"))
    if not isinstance(data.get("text"), str):
        raise BadLine(f"{name}.text", "expected text")
    return Sample(data["text"], _score(data, name), _cost(data, name))


def _known(data: Any, name: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    """An object without other keys."""
    if not isinstance(data, Mapping):
        raise BadLine(name, "expected an object")
    for key in data:
        if key not in keys:
            raise BadLine(name, f"unknown key {key!r}; there are {', '.join(keys)}")
    return data


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadLine(name, "expected non-empty text")
    return value


def _score(data: Mapping[str, Any], name: str) -> float:
    value = data.get("score")
    if not _is_number(value) or not 0 <= value <= 1:
        raise BadLine(f"{name}.score", "expected a number in [0, 1]")
    return float(value)


def _cost(data: Mapping[str, Any], name: str) -> float | None:
    value = data.get("cost_usd")
    if value is None and "cost_usd" in data:
        return None
    if not _is_number(value) or not 0 <= value < 1e9:
        raise BadLine(f"{name}.cost_usd", "expected US dollars >= 0, or null where unknown")
    return float(value)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
