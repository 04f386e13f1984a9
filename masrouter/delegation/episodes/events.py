"""The events of an episode's log, and how each reads and writes its line of JSON.

A log may come from anybody: every field is checked, and an unknown one is refused. Not here: files
(`log`), and what a result is credited with (`credit`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar, get_args

from masrouter.delegation.tasks import Grading, Source, TaskResult
from masrouter.errors import LogError, PlanError
from masrouter.types import Plan, Usage

T = TypeVar("T")

MOST_ID = 200
"""Characters of an episode's or a node's id."""
_MOST_COUNT = 2**53
_SOURCES: tuple[Source, ...] = get_args(Source)


@dataclass(frozen=True, slots=True)
class Opened:
    """An episode begins."""

    episode: str
    goal: str
    dataset: str
    time: str


@dataclass(frozen=True, slots=True)
class Decided:
    """What the router said when it chose."""

    cost_weight: float
    propensity: float
    expected_score: float
    expected_cost_usd: float | None
    fallback: bool
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Node:
    """One subtask of an episode: who worked on it, what it took, how good it was."""

    id: str
    """Unique in its episode."""
    under: str | None
    """The node that handed it out; None: the episode itself."""
    query: str
    """What the team was given: goal, context and the results that it needed."""
    plan: Plan | None
    """None where nothing was run."""
    asked: str | None
    asked_by: str | None
    decision: Decided | None
    """The router's, for `auto`."""
    models: tuple[str, ...]
    """Who really answered."""
    usage: Usage
    agent_usage: tuple[Usage, ...]
    """Tokens of each agent; empty where no split is known."""
    latency_s: float
    error: str | None
    """`type: message`; None where there was an answer."""
    grading: Grading | None
    """Its own, by its own grader."""
    kind: str | None = None
    seed: int | None = None
    time: str | None = None
    unused: bool = False
    """Told after its result: its answer had no part in how the episode ended."""

    @property
    def is_parent(self) -> bool:
        """Whether a model worked here that handed out parts; then its usage is of all of it."""
        return self.plan is None and bool(self.models)

    @classmethod
    def of(
        cls,
        node: str,
        under: str | None,
        result: TaskResult,
        *,
        query: str | None = None,
        kind: str | None = None,
        seed: int | None = None,
    ) -> Node:
        """What is kept of a result; `query` is what its team was given, and known from its run."""
        run, decision, error = result.run, result.decision, result.error
        asked = query or (run.query if run else None) or result.goal
        return cls(
            id=node,
            under=under,
            query=storable(asked),
            plan=result.plan,
            asked=None if result.asked is None else storable(result.asked),
            asked_by=result.source,
            decision=None
            if decision is None
            else Decided(
                cost_weight=decision.cost_weight,
                propensity=decision.propensity,
                expected_score=decision.expected_score,
                expected_cost_usd=decision.expected_cost_usd,
                fallback=decision.fallback,
                checkpoint=decision.checkpoint,
            ),
            models=tuple(storable(name) for name in result.models),
            usage=result.usage,
            agent_usage=tuple(
                Usage(part.prompt_tokens, part.completion_tokens)
                for part in (run.agent_usage if run else ())
            ),
            latency_s=result.latency_s,
            error=None if error is None else storable(f"{error.type}: {error.message}"),
            grading=result.grading,
            kind=kind,
            seed=seed,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """A node is over."""

    episode: str
    node: Node


@dataclass(frozen=True, slots=True)
class Graded:
    """A node's own grade was told after its result."""

    episode: str
    node: str
    grading: Grading
    time: str


@dataclass(frozen=True, slots=True)
class Unused:
    """A node's answer had no part in how the episode ended: it was outvoted, or done again."""

    episode: str
    node: str
    time: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The episode's final score."""

    episode: str
    grading: Grading
    time: str


Event: TypeAlias = Opened | Result | Graded | Unused | Finished


def now() -> str:
    """The time, as a log has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def storable(text: str) -> str:
    """As UTF-8 can hold it: halves of a surrogate pair come from models and providers."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def write_event(event: Event) -> dict[str, Any]:
    """The event as a JSON object; `read_event` reads it back unchanged."""
    if isinstance(event, Opened):
        return {"event": "opened"} | {f.name: getattr(event, f.name) for f in fields(event)}
    if isinstance(event, Finished):
        return {
            "event": "finished", "episode": event.episode, **_grading(event.grading),
            "time": event.time,
        }  # fmt: skip
    if isinstance(event, Graded):
        return {
            "event": "graded", "episode": event.episode, "node": event.node,
            **_grading(event.grading), "time": event.time,
        }  # fmt: skip
    if isinstance(event, Unused):
        return {
            "event": "unused", "episode": event.episode, "node": event.node, "time": event.time,
        }  # fmt: skip
    node, decision = event.node, event.node.decision
    return {
        "event": "result",
        "episode": event.episode,
        "node": node.id,
        "under": node.under,
        "query": node.query,
        "kind": node.kind,
        "plan": None if node.plan is None else node.plan.to_json(),
        "asked": node.asked,
        "asked_by": node.asked_by,
        "decision": None
        if decision is None
        else {f.name: getattr(decision, f.name) for f in fields(decision)},
        "models": list(node.models),
        "prompt_tokens": node.usage.prompt_tokens,
        "completion_tokens": node.usage.completion_tokens,
        "cost_usd": node.usage.cost_usd,
        "agents": [[part.prompt_tokens, part.completion_tokens] for part in node.agent_usage],
        "latency_s": node.latency_s,
        "error": node.error,
        "grading": None if node.grading is None else _grading(node.grading),
        "seed": node.seed,
        "time": node.time,
    }


def parse_line(line: bytes) -> Any:
    """The JSON of a line; ValueError where it is none, as what a kill cut off."""
    try:
        return json.loads(line.decode("utf-8"), parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_event(data: Any) -> Event:
    """The event of a line's JSON. Raises LogError as `key: why`."""
    whole = _Fields(data, "")
    kind = whole.text("event")
    episode = whole.id("episode")
    event: Event
    if kind == "opened":
        event = Opened(
            episode, whole.text("goal", empty=True), whole.text("dataset"), whole.text("time")
        )
    elif kind == "finished":
        event = Finished(episode, whole.grading(), whole.text("time"))
    elif kind == "graded":
        event = Graded(episode, whole.id("node"), whole.grading(), whole.text("time"))
    elif kind == "unused":
        event = Unused(episode, whole.id("node"), whole.text("time"))
    elif kind == "result":
        event = Result(episode, _read_node(whole))
    else:
        raise LogError(f"event: expected opened, result, graded, unused or finished, got {kind!r}")
    whole.end()
    return event


def _read_node(whole: _Fields) -> Node:
    plan = whole.value("plan")
    try:
        read_plan = None if plan is None else Plan.from_json(plan)
    except PlanError as error:
        raise LogError(f"plan: {error}") from None
    agents = whole.items("agents")
    split = []
    for pair in agents:
        if not isinstance(pair, list) or len(pair) != 2:
            raise LogError(f"agents: expected pairs of token counts, got {pair!r:.80}")
        split.append(Usage(*(_count("agents", tokens) for tokens in pair)))
    if split and (read_plan is None or len(split) != len(read_plan.agents)):
        raise LogError("agents: expected one pair for each agent of the plan, or none")
    asked_by = whole.optional_text("asked_by")
    if asked_by is not None and asked_by not in _SOURCES:
        raise LogError(f"asked_by: expected one of {', '.join(_SOURCES)}, got {asked_by!r:.80}")
    under = whole.value("under")
    seed = whole.value("seed")
    if seed is not None and (type(seed) is not int or not -(2**63) <= seed < 2**63):
        raise LogError(f"seed: expected an integer of 64 bits or null, got {seed!r:.80}")
    decision, grading = whole.value("decision"), whole.value("grading")
    return Node(
        id=whole.id("node"),
        under=None if under is None else _id("under", under),
        query=whole.text("query", empty=True),
        plan=read_plan,
        asked=whole.optional_text("asked"),
        asked_by=asked_by,
        decision=None if decision is None else _read_decision(decision),
        models=tuple(_text("models", name) for name in whole.items("models")),
        usage=Usage(
            _count("prompt_tokens", whole.value("prompt_tokens")),
            _count("completion_tokens", whole.value("completion_tokens")),
            whole.optional_number("cost_usd"),
        ),
        agent_usage=tuple(split),
        latency_s=whole.number("latency_s"),
        error=whole.optional_text("error"),
        grading=None if grading is None else _Fields(grading, "grading.").whole(_Fields.grading),
        kind=whole.optional_text("kind"),
        seed=seed,
        time=whole.optional_text("time"),
    )


def _read_decision(data: Any) -> Decided:
    def read(part: _Fields) -> Decided:
        fallback = part.value("fallback")
        if not isinstance(fallback, bool):
            raise LogError(f"decision.fallback: expected true or false, got {fallback!r:.80}")
        return Decided(
            cost_weight=part.number("cost_weight"),
            propensity=part.number("propensity", most=1.0),
            expected_score=part.number("expected_score", least=-math.inf),
            expected_cost_usd=part.optional_number("expected_cost_usd"),
            fallback=fallback,
            checkpoint=part.text("checkpoint", empty=True),
        )

    return _Fields(data, "decision.").whole(read)


class _Fields:
    """An object's fields, taken one by one; `end` refuses what nobody took."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, Mapping):
            raise LogError(f"{where.rstrip('.') or 'line'}: expected an object, got {data!r:.80}")
        self._left = dict(data)
        self._where = where

    def value(self, key: str) -> Any:
        if key not in self._left:
            raise LogError(f"{self._where}{key}: is missing")
        return self._left.pop(key)

    def end(self) -> None:
        if self._left:
            raise LogError(
                f"{self._where}{sorted(map(str, self._left))[0]}: unknown key; "
                "it may be a later masrouter's"
            )

    def whole(self, read: Callable[[_Fields], T]) -> T:
        found = read(self)
        self.end()
        return found

    def text(self, key: str, *, empty: bool = False) -> str:
        return _text(self._where + key, self.value(key), empty=empty)

    def optional_text(self, key: str) -> str | None:
        value = self.value(key)
        return None if value is None else _text(self._where + key, value)

    def id(self, key: str) -> str:
        return _id(self._where + key, self.value(key))

    def items(self, key: str) -> list[Any]:
        value = self.value(key)
        if not isinstance(value, list):
            raise LogError(f"{self._where}{key}: expected a list, got {value!r:.80}")
        return value

    def number(self, key: str, *, least: float = 0.0, most: float = math.inf) -> float:
        return _number(self._where + key, self.value(key), least, most)

    def optional_number(self, key: str) -> float | None:
        value = self.value(key)
        return None if value is None else _number(self._where + key, value, 0.0, math.inf)

    def grading(self) -> Grading:
        return Grading(self.number("score", most=1.0), self.text("source"))


def check_grading(grading: Grading) -> None:
    """Raises LogError for a score out of [0, 1], or without a source."""
    _number("score", grading.score, 0.0, 1.0)
    _text("source", grading.source)


def check_id(what: str, value: str) -> None:
    """Raises LogError for what is no id."""
    _id(what, value)


def _grading(grading: Grading) -> dict[str, Any]:
    return {"score": grading.score, "source": grading.source}


def _text(where: str, value: Any, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise LogError(f"{where}: expected a non-empty text, got {value!r:.80}")
    if storable(value) != value:
        raise LogError(f"{where}: holds half of a surrogate pair")
    return value


def _id(where: str, value: Any) -> str:
    text = _text(where, value)
    if len(text) > MOST_ID or not text.isprintable():
        raise LogError(
            f"{where}: expected at most {MOST_ID} printable characters, got {text!r:.80}"
        )
    return text


def _number(where: str, value: Any, least: float, most: float) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        if fits and math.isfinite(value) and least <= value <= most:
            return float(value)
    except OverflowError:
        pass
    raise LogError(
        f"{where}: expected a finite number from {least:g} to {most:g}, got {value!r:.80}"
    )


def _count(where: str, value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _MOST_COUNT:
        raise LogError(f"{where}: expected a whole number >= 0 or null, got {value!r:.80}")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")
